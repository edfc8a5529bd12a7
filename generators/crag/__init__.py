"""Corrective RAG: passages are judged before they are used, cut to what helps, and replaced when they do not."""

from __future__ import annotations

from generators.crag.crag import CRAG
from generators.crag.evaluators import Evaluator, ModelEvaluator, RerankEvaluator

__all__ = ["CRAG", "Evaluator", "ModelEvaluator", "RerankEvaluator"]
