from __future__ import annotations

import json
from pathlib import Path

import pytest

from generators.models.server import check_options, command_of
from generators.models.vllm_contexts.flags import context_flags
from generators.models.vllm_contexts.shelves import StoreSetting, settings_of
from rag.core.errors import ConfigError, CorpusNotFound
from tests.generators.models.vllm_contexts.conftest import built


def test_a_server_is_told_its_stores(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    red = built(tmp_path / "red")
    monkeypatch.chdir(tmp_path)
    flags = context_flags(["store"], {"red": ("0" * 64, [red])}, ram_bytes=5)
    check_options(flags)
    command = command_of("folder", "name", 1, False, flags)
    given = json.loads(command[command.index("--kv-transfer-config") + 1])
    settings = settings_of(given.pop("kv_connector_extra_config"))
    assert settings.stores == [StoreSetting(path=str(store)), StoreSetting(path=str(red), tenant="red")]
    assert (settings.tenants, settings.ram_bytes) == ({"red": "0" * 64}, 5)
    assert given == {
        "kv_connector": "ContextConnector",
        "kv_connector_module_path": "generators.models.vllm_contexts.connector",
        "kv_role": "kv_consumer",
        "kv_load_failure_policy": "recompute",
    }


def test_a_server_without_a_store_is_not_started(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name a store"):
        context_flags([])
    with pytest.raises(CorpusNotFound, match="rag contexts build"):
        context_flags([tmp_path])
