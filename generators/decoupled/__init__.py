"""Decoupled context processing (Li, Guo and Kumar, NeurIPS 2022, https://arxiv.org/abs/2210.05758): contexts encoded apart from questions.

Each context goes into the encoder alone, the question into the decoder alone; cross-attention over the contexts' encodings, put together
in any order, is the one way from the first to the second. So encodings are made once and kept, and serving needs the decoder only.

    model.py      the network: Enc(c), and P(y | x, Concat(Enc(c_1) … Enc(c_k)))
    encoder.py    contexts on their way into a store, one by one, as the keys and values of every decoder layer
    memory.py     stored contexts as what the decoder attends to; reading, scoring, writing
    train.py      both halves together, from nothing, the loss on the target alone; batches.py and tokenizer.py are its parts
    decoupled.py  the method for pipelines, over reader.py
"""
