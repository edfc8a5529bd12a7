"""Pipelines as YAML, both ways. Only registered names; unknown keys, duplicate keys, tags and aliases are refused.

    shared:
      handbook: {type: Corpus, path: handbook}
    nodes:
      search: {type: BM25, corpus: {ref: handbook}, k: 50}
      answer: {type: Cited, model: {type: VLLM, url: "http://localhost:8000/v1"}}
    edges:
      - search -> answer.retriever
    limits:
      answer: 60            # seconds

An edge that goes back is written ``{edge: judge.again -> search.query, loop: 3}``. A component that two others use stands in ``shared``
and is referred to by ``{ref: name}``. Relative paths are taken from the working directory.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from rag.core.errors import ConfigError, GraftError
from rag.core.registry import check_arguments, check_parts, configuration, registered

if TYPE_CHECKING:
    from rag.core.pipeline import Pipeline

_SECTIONS = ("shared", "nodes", "edges", "limits")
MAX_CHARACTERS = 1_000_000
MAX_NODES = 1_000


class _StrictLoader(yaml.SafeLoader):
    """YAML as people mean it: no aliases (they can blow up a small file) and no key twice."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.events.AliasEvent):
            raise ConfigError("YAML anchors and aliases are not allowed; put what is used twice into 'shared' and write {ref: name}")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        seen: set[str] = set()
        for key in keys:
            if not isinstance(key, str):
                raise ConfigError(f"line {node.start_mark.line + 1}: keys must be text, not {key!r}")
            if key in seen:
                raise ConfigError(f"line {node.start_mark.line + 1}: key '{key}' stands twice")
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def load(source: str | Path) -> Pipeline:
    """Build the pipeline. Raises `ConfigError` (`GraphError` for edges) that names the place, what is allowed and the file."""
    where = str(source) if isinstance(source, Path) else "pipeline"
    try:
        return _build(_parse(_text(source)))
    except GraftError as error:
        raise type(error)(f"{where}: {error}") if type(error).__init__ is Exception.__init__ else error from None


def _text(source: str | Path) -> str:
    if isinstance(source, str):
        if "\n" not in source and source.endswith((".yaml", ".yml")):
            raise ConfigError(f"'{source}' is taken as YAML text; for the file of that name give Path('{source}')")
        return source
    try:
        return source.read_text("utf-8")
    except FileNotFoundError:
        raise ConfigError("there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read as UTF-8 text ({error})") from None


def _parse(text: str) -> dict[str, Any]:
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(f"{len(text):,} characters; a pipeline file may have {MAX_CHARACTERS:,}")
    try:
        data = yaml.load(text, Loader=_StrictLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"not valid YAML, or a tag that is not allowed: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ConfigError("nested too deeply") from None
    if not isinstance(data, dict) or not isinstance(data.get("nodes"), dict):
        raise ConfigError(f"expected a mapping with 'nodes'; allowed sections are: {', '.join(_SECTIONS)}")
    for section in data:
        if section not in _SECTIONS:
            raise ConfigError(f"unknown section '{section}'; allowed are: {', '.join(_SECTIONS)}")
    if len(data["nodes"]) > MAX_NODES:
        raise ConfigError(f"{len(data['nodes']):,} nodes; a pipeline file may have {MAX_NODES:,}")
    return data


def _build(data: dict[str, Any]) -> Pipeline:
    from rag.core.pipeline import Pipeline

    shared: dict[str, Any] = {}
    for name, entry in _mapping(data, "shared").items():
        shared[name] = _make(entry, f"shared.{name}", shared)
    limits = _mapping(data, "limits")
    pipeline = Pipeline()
    for name, entry in data["nodes"].items():
        pipeline.add(name, _make(entry, f"nodes.{name}", shared), timeout=_seconds(limits.get(name), name))
    for name in limits:
        if name not in pipeline.nodes:
            raise ConfigError(f"limits.{name}: there is no node '{name}'; nodes are: {', '.join(pipeline.nodes)}")
    edges = data.get("edges") or []
    if not isinstance(edges, list):
        raise ConfigError("edges: expected a list of 'source -> target.port'")
    for number, entry in enumerate(edges, 1):
        _connect(pipeline, entry, f"edges[{number}]")
    return pipeline


def _mapping(data: dict[str, Any], section: str) -> dict[str, Any]:
    value = data.get(section) or {}
    if not isinstance(value, dict):
        raise ConfigError(f"{section}: expected a mapping of names, not {type(value).__name__}")
    return value


def _seconds(value: Any, node: str) -> float | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
        raise ConfigError(f"limits.{node}: expected seconds, not {value!r}")
    return value


def _connect(pipeline: Pipeline, entry: Any, where: str) -> None:
    loop = None
    if isinstance(entry, dict):
        unknown = entry.keys() - {"edge", "loop"}
        if unknown or "edge" not in entry:
            raise ConfigError(f"{where}: expected {{edge: source -> target.port, loop: n}}, got keys {', '.join(entry)}")
        entry, loop = entry["edge"], entry.get("loop")
        if loop is not None and (isinstance(loop, bool) or not isinstance(loop, int)):
            raise ConfigError(f"{where}: loop must be a whole number, not {loop!r}")
    if not isinstance(entry, str) or entry.count("->") != 1:
        raise ConfigError(f"{where}: expected 'source -> target.port', got {entry!r}")
    source, target = (part.strip() for part in entry.split("->"))
    pipeline.connect(source, target, loop=loop)


def _make(entry: Any, where: str, shared: dict[str, Any]) -> Any:
    """A component from ``{type: Name, argument: value, …}`` or the shared one from ``{ref: name}``."""
    if not isinstance(entry, dict) or not ("type" in entry or "ref" in entry):
        raise ConfigError(f"{where}: expected {{type: Name, …}} or {{ref: name}}, got {entry!r}")
    if "ref" in entry:
        if len(entry) > 1 or not isinstance(entry["ref"], str) or entry["ref"] not in shared:
            raise ConfigError(
                f"{where}: {{ref: {entry['ref']}}} must stand alone and name one of: {', '.join(shared) or 'nothing shared yet'}"
            )
        return shared[entry["ref"]]
    try:
        cls = registered(str(entry["type"]))
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    arguments = {key: _value(value, f"{where}.{key}", shared) for key, value in entry.items() if key != "type"}
    check_arguments(cls, arguments, f"{where} ({cls.__name__})")
    check_parts(cls, arguments, f"{where} ({cls.__name__})")
    try:
        return cls(**arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where} ({cls.__name__}): {error}") from error


def _value(value: Any, where: str, shared: dict[str, Any]) -> Any:
    if isinstance(value, dict):
        if "type" in value or "ref" in value:
            return _make(value, where, shared)
        return {key: _value(item, f"{where}.{key}", shared) for key, item in value.items()}
    if isinstance(value, list):
        return [_value(item, f"{where}[{number}]", shared) for number, item in enumerate(value, 1)]
    return value


def dump(pipeline: Pipeline) -> str:
    """The YAML of ``pipeline``. Raises `ConfigError` if something in it is not a registered component or plain data."""
    uses: dict[int, int] = {}
    for node in pipeline.nodes.values():
        _count_uses(node.component, uses)
    writer = _Writer(uses)
    nodes = {name: writer.entry(node.component, f"node '{name}'") for name, node in pipeline.nodes.items()}
    edges: list[Any] = [str(e) if e.loop is None else {"edge": str(e), "loop": e.loop} for e in pipeline.edges]
    limits = {name: node.timeout for name, node in pipeline.nodes.items() if node.timeout is not None}
    sections = {"shared": writer.shared, "nodes": nodes, "edges": edges, "limits": limits}
    return yaml.safe_dump({k: v for k, v in sections.items() if v}, sort_keys=False, allow_unicode=True, width=120)


def _is_component(value: Any) -> bool:
    return getattr(type(value), "__module__", "builtins") != "builtins" and not isinstance(value, Path)


def _count_uses(value: Any, uses: dict[int, int]) -> None:
    if isinstance(value, dict):
        for item in value.values():
            _count_uses(item, uses)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _count_uses(item, uses)
    elif _is_component(value):
        uses[id(value)] = uses.get(id(value), 0) + 1
        if uses[id(value)] == 1:
            for item in configuration(value).values():
                _count_uses(item, uses)


class _Writer:
    """Turns components into plain data; those used twice go to ``shared``."""

    def __init__(self, uses: dict[int, int]) -> None:
        self.uses = uses
        self.shared: dict[str, Any] = {}
        self._names: dict[int, str] = {}

    def entry(self, component: Any, where: str) -> dict[str, Any]:
        """``{type: …}`` or ``{ref: …}``."""
        if id(component) in self._names:
            return {"ref": self._names[id(component)]}
        name = type(component).__name__
        if not _is_component(component) or registered(name) is not type(component):
            raise ConfigError(f"{where}: {name} is not a registered component; decorate its class with @component")
        plain = {"type": name, **{key: self._plain(value, f"{where}, argument '{key}'") for key, value in configuration(component).items()}}
        if self.uses.get(id(component), 0) < 2:
            return plain
        label = f"{name.lower()}{sum(k.startswith(name.lower()) for k in self.shared) + 1}"
        self.shared[label] = plain
        self._names[id(component)] = label
        return {"ref": label}

    def _plain(self, value: Any, where: str) -> Any:
        if value is None or isinstance(value, (str, int, float, bool)):
            return value
        if isinstance(value, Path):
            return str(value)
        if isinstance(value, dict):
            return {str(key): self._plain(item, where) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._plain(item, where) for item in value]
        return self.entry(value, where)
