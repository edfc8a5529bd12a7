"""kNN-LM: a frozen model's next token is a mixture of its own and of what followed in similar places (Khandelwal et al., ICLR 2020)."""

from __future__ import annotations

from generators.knn_lm.datastore import Datastore, Neighbours
from generators.knn_lm.decoder import Decoder
from generators.knn_lm.interpolation import Interpolation
from generators.knn_lm.model import KNNLM
from generators.knn_lm.reading import Reader, perplexity
from generators.knn_lm.windows import Windows

__all__ = ["KNNLM", "Datastore", "Decoder", "Interpolation", "Neighbours", "Reader", "Windows", "perplexity"]
