"""A sentence encoder of two random layers, in a folder as sentence-transformers writes it, and an adapter that is trained for it."""

from __future__ import annotations

import json
from pathlib import Path

from adapters.methods import build
from adapters.training.options import Options
from tests.adapters.tiny import tiny
from tests.adapters.training.parts import related, tokenizer, write_lines

TEXTS = ["w1 w2 w3", "w4", "w5 w6 w7 w8 w9 w10 w11", "w2 w90 w1"]


def encoder_folder(path: Path, seed: int = 0, pooling: str = "mean_tokens") -> Path:
    tiny("bert", seed=seed).bert.save_pretrained(path)
    tokenizer().save_pretrained(path)
    kinds = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
    modules = [
        {"idx": at, "name": str(at), "path": place, "type": f"sentence_transformers.models.{kind}"}
        for at, (place, kind) in enumerate(kinds)
    ]
    (path / "modules.json").write_text(json.dumps(modules))
    (path / "1_Pooling").mkdir()
    (path / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32, f"pooling_mode_{pooling}": True}))
    return path


def adapter_folder(path: Path, base: Path, method: str = "LoRA", seed: int = 0) -> Path:
    """As `rag train` makes it, with a rate that moves vectors far."""
    from rag.cli.training import Training

    data = write_lines(path.with_name(f"{path.name}.jsonl"), [vars(record) for record in related()])
    options = Options(lr=0.05, steps=4, batch=3, seed=seed)
    Training(str(base), data, None, 32, options).run(build(method, {}), path, path.with_name(f"{path.name}.training"), False)
    return path
