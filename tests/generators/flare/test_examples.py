from __future__ import annotations

from pathlib import Path

import pytest

from generators.flare.flare import Flare
from generators.flare.instruct import FlareInstruct
from rag.core.pipeline import Pipeline

EXAMPLES = Path(__file__).parents[3] / "examples" / "pipelines"


@pytest.mark.parametrize(("name", "kind"), [("flare", Flare), ("flare_instruct", FlareInstruct)])
def test_the_example_pipelines_build(name, kind):
    configuration = Pipeline.from_yaml(EXAMPLES / f"{name}.yaml").to_yaml()
    assert f"type: {kind.__name__}" in configuration
