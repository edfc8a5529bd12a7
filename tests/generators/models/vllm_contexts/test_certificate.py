from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from generators.models.vllm_contexts.certificate import FILE, Certificate, certificates, certify, check_certified, label_of
from generators.models.vllm_contexts.metrics import Counted
from rag.core.errors import ConfigError, CorpusMismatch
from retrievers.context.store import ContextStore
from tests.generators.models.vllm_contexts.conftest import MODEL

GIVEN = Certificate("0.32.0", "float32", label_of(MODEL), "float16", 2e-5, 1e-3, 1e-4, 4, "2026-11-23T15:00:00+00:00")
SERVER = Counted(0, 0, {}, "0.32.0", "float32", frozenset({label_of(MODEL)}))
URL = "http://localhost:8000/v1"


def test_a_certificate_is_kept_and_the_newest_of_its_kind_stays(store: Path) -> None:
    assert certificates(store) == []
    certify(store, GIVEN)
    certify(store, replace(GIVEN, dtype="bfloat16"))
    certify(store, replace(GIVEN, difference=3e-5))
    assert certificates(store) == [replace(GIVEN, dtype="bfloat16"), replace(GIVEN, difference=3e-5)]
    assert len(ContextStore(store)) == 3
    assert not list(store.glob(f"*{FILE}.*"))


@pytest.mark.parametrize("content", ["", "{}", "[1]", '[{"version": "0.32.0"}]', "\x00"])
def test_a_file_that_cannot_be_read_certifies_nothing(store: Path, content: str) -> None:
    (store / FILE).write_text(content)
    assert certificates(store) == []
    certify(store, GIVEN)
    assert certificates(store) == [GIVEN]


def test_no_place_to_keep_it_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be kept"):
        certify(tmp_path / "none", GIVEN)


def test_only_what_was_checked_is_used(store: Path) -> None:
    with pytest.raises(ConfigError, match=rf"nobody has checked that vLLM 0\.32\.0 in float32 .*`rag contexts check .*store --url {URL}`"):
        check_certified(store, MODEL, SERVER, URL, None)
    with pytest.raises(ConfigError, match="--adapter law`"):
        check_certified(store, MODEL, SERVER, URL, "law")
    certify(store, GIVEN)
    check_certified(store, MODEL, SERVER, URL, None)
    for other in (replace(SERVER, version="0.33.0"), replace(SERVER, dtype="bfloat16")):
        with pytest.raises(ConfigError, match="nobody has checked"):
            check_certified(store, MODEL, other, URL, None)


def test_a_server_of_other_stores_is_told_apart_from_one_without_any(store: Path) -> None:
    certify(store, GIVEN)
    with pytest.raises(ConfigError, match="loads no contexts"):
        check_certified(store, MODEL, replace(SERVER, version=None, identities=frozenset()), URL, None)
    with pytest.raises(CorpusMismatch, match="no store of the model and adapter"):
        check_certified(store, replace(MODEL, adapter="a" * 64), SERVER, URL, None)
