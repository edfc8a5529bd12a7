"""The prompts of `Stitched` for training: the very tokens that it reads, as blocks."""

from __future__ import annotations

from adapters.training.blocks import PassagePrompt
from adapters.training.data import Grounded
from generators.models.stitched.decoder import Decoder
from generators.models.stitched.encoder import LocalEncoder
from generators.models.stitched.prompt import BETWEEN, PASSAGES, around_passages
from generators.passages import passage_data
from generators.prompts import render
from rag.core.errors import InputError
from rag.core.types import Passage
from retrievers.prompting import as_data, check_question, prompt_language


class Lessons:
    """Prompts for ``decoder``, bare: a model that cannot be stitched is refused when its `Decoder` is made, before it learns anything."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._encoder = LocalEncoder.over(decoder)
        (self._between,) = self._encoder.tokenised([BETWEEN])

    def prompt(self, record: Grounded) -> PassagePrompt:
        """The prompt of ``record`` in the language of its question. Raises `InputError` for a passage of which nothing is left as data."""
        question = check_question(record.question)
        message = render("cited", prompt_language("auto", question), passages=PASSAGES, question=as_data(question))
        before, behind = around_passages(self._decoder, message)
        texts = [passage_data(Passage("", text)) for text in record.passages]
        if "" in texts:
            raise InputError(f"passage {texts.index('') + 1} of the question '{question[:60]}' has no character that can be seen")
        passages = self._encoder.tokenised(texts)
        return PassagePrompt(tuple(before), tuple(passages), self._between, tuple(behind), bool(self._decoder.tokenizer.chat_template))
