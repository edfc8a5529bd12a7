"""YAML both ways: it round-trips, names only what is registered, and refuses every key it does not know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rag.core.errors import ConfigError, GraphError
from rag.core.pipeline import Pipeline
from rag.core.registry import component, configuration, known_names, registered
from rag.core.types import Hit, Passage


@component
class YamlShelf:
    def __init__(self, path: str) -> None:
        self.path = path


@component
class YamlSearch:
    def __init__(self, shelf: YamlShelf, k: int = 5, weights: dict[str, float] | None = None, tags: tuple[str, ...] = ()) -> None:
        if k <= 0:
            raise ValueError(f"k must be positive, not {k}")
        self.shelf, self.k, self.weights, self.tags = shelf, k, weights, tags

    def run(self, query: str) -> list[Hit]:
        return [Hit(Passage(str(i), self.shelf.path), 1.0, i) for i in range(self.k)]


@component
class YamlCount:
    def run(self, *rankings: list[Hit]) -> int:
        return sum(map(len, rankings))


@component
class YamlForgetful:
    def __init__(self, size: int) -> None:
        pass

    def run(self, x: str) -> str:
        return x


GOOD = """
shared:
  books: {type: YamlShelf, path: books}
nodes:
  one: {type: YamlSearch, shelf: {ref: books}, k: 2}
  two: {type: YamlSearch, shelf: {ref: books}, weights: {a: 0.5}}
  end: {type: YamlCount}
edges:
  - one -> end
  - two -> end.rankings
limits:
  end: 30
"""


def test_it_builds_and_runs() -> None:
    pipe = Pipeline.from_yaml(GOOD)
    assert pipe.run("q") == 7
    assert pipe.nodes["one"].component.shelf is pipe.nodes["two"].component.shelf
    assert pipe.nodes["end"].timeout == 30


def test_it_round_trips() -> None:
    pipe = Pipeline.from_yaml(GOOD)
    text = pipe.to_yaml()
    again = Pipeline.from_yaml(text)
    assert again.to_yaml() == text
    assert again.edges == pipe.edges
    assert again.run("q") == 7
    assert again.nodes["one"].component.shelf is again.nodes["two"].component.shelf


def test_a_loop_round_trips() -> None:
    nodes = "nodes: {a: {type: First}, b: {type: First}, c: {type: First}}"
    pipe = Pipeline.from_yaml(nodes + "\nedges: [c -> a, a -> b, {edge: b -> a.values, loop: 2}]")
    again = Pipeline.from_yaml(pipe.to_yaml())
    assert again.edges == pipe.edges
    assert [e.loop for e in again.edges] == [None, None, 2]


def test_a_file_is_named_in_its_errors(tmp_path: Path) -> None:
    path = tmp_path / "pipe.yaml"
    path.write_text(GOOD.replace("k: 2", "kk: 2"))
    with pytest.raises(ConfigError, match=r"pipe\.yaml: nodes\.one \(YamlSearch\): unknown key 'kk'; allowed are: shelf, k, weights, tags"):
        Pipeline.from_yaml(path)
    with pytest.raises(ConfigError, match=r"none\.yaml: there is no such file"):
        Pipeline.from_yaml(tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="UTF-8"):
        Pipeline.from_yaml(tmp_path / "bytes.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a mapping with 'nodes'"),
        ("- a", "expected a mapping with 'nodes'"),
        ("nodes: {}\nextra: 1", "unknown section 'extra'; allowed are: shared, nodes, edges, limits"),
        ("nodes: {a: {type: YamlNothing}}", "there is no component 'YamlNothing'; known are:"),
        ("nodes: {a: {type: os.system, command: ls}}", "there is no component 'os.system'"),
        ("nodes: {a: {type: Path}}", "there is no component 'Path'"),
        ("nodes: {a: {k: 1}}", "expected {type: Name"),
        ("nodes: {a: {type: YamlSearch}}", "missing 'shelf'"),
        ("nodes: {a: {type: YamlSearch, shelf: {ref: books}}}", "name one of: nothing shared yet"),
        ("nodes: {a: {type: YamlSearch, shelf: {type: YamlShelf, path: x}, k: 0}}", "k must be positive, not 0"),
        ("nodes: {a: {type: First}}\nedges: [a b]", "expected 'source -> target.port', got 'a b'"),
        ("nodes: {a: {type: First}}\nedges: [a -> b]", "there is no node 'b'"),
        ("nodes: {a: {type: First}}\nedges: {a: b}", "expected a list"),
        ("nodes: {a: {type: First}}\nedges: [{edge: a -> a, lop: 2}]", "expected {edge"),
        ("nodes: {a: {type: First}}\nedges: [{edge: a -> a, loop: true}]", "loop must be a whole number"),
        ("nodes: {a: {type: First}}\nedges: [{edge: a -> a, loop: 0}]", "loop must be from 1 to 10,000, not 0"),
        ("nodes: {a: {type: First}}\nedges: [{edge: a -> a, loop: 99999999999}]", "loop must be from 1 to 10,000"),
        ("nodes: {a: {type: First}}\nlimits: {b: 3}", "limits.b: there is no node 'b'"),
        ("nodes: {a: {type: First}}\nlimits: {a: soon}", "expected seconds"),
        ("nodes: {a: {type: First}, a: {type: First}}", "key 'a' stands twice"),
        ("nodes: {1: {type: First}}", "keys must be text"),
        ("nodes: &x {a: *x}", "aliases are not allowed"),
        ("nodes: {a: !!python/object/apply:os.system [ls]}", "a tag that is not allowed"),
        ("nodes: {a: {type: First}", "not valid YAML"),
        ("nodes: " + "[" * 5000, "nested too deeply|not valid YAML"),
        ("nodes: {" + ", ".join(f"n{i}: {{type: First}}" for i in range(1500)) + "}", "1,500 nodes; a pipeline file may have 1,000"),
        ("# " + "x" * 1_000_001, "1,000,003 characters"),
    ],
)
def test_wrong_files_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        Pipeline.from_yaml(text)
    assert any(part in str(error.value) for part in message.split("|"))


def test_an_edge_that_does_not_fit_is_a_graph_error() -> None:
    with pytest.raises(GraphError, match="does not fit"):
        Pipeline.from_yaml("nodes: {a: {type: YamlCount}, b: {type: YamlSearch, shelf: {type: YamlShelf, path: x}}}\nedges: [a -> b]")


def test_what_is_not_registered_cannot_be_written() -> None:
    def node(x: str) -> str:
        return x

    with pytest.raises(ConfigError, match="not a registered component"):
        Pipeline().add("node", node).to_yaml()
    with pytest.raises(ConfigError, match="does not keep its argument 'size'"):
        Pipeline().add("node", YamlForgetful(3)).to_yaml()


def test_the_registry_knows_public_names_without_importing_them() -> None:
    assert {"BM25", "Cited", "First", "YamlShelf"} <= set(known_names())
    assert registered("First").__name__ == "First"
    assert configuration(YamlSearch(YamlShelf("x"), k=7)) == {"shelf": _AnyShelf(), "k": 7}


class _AnyShelf:
    def __eq__(self, other: Any) -> bool:
        return isinstance(other, YamlShelf)


def test_two_components_of_one_name_are_refused() -> None:
    class YamlShelf:
        pass

    with pytest.raises(ConfigError, match="two components are called 'YamlShelf'"):
        component(YamlShelf)


def test_a_path_given_as_text_is_recognised(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"give Path\('my/pipe\.yaml'\)"):
        Pipeline.from_yaml("my/pipe.yaml")


@pytest.mark.parametrize(
    ("shelf", "message"),
    [
        ("books", r"nodes\.a \(YamlSearch\): 'shelf' takes a component \(YamlShelf\), not 'books'; write \{type: Name"),
        ("{type: YamlCount}", r"'shelf' takes a component \(YamlShelf\), not YamlCount"),
        ("{ref: [x]}", r"must stand alone and name one of"),
        ("{type: YamlNothing}", r"nodes\.a\.shelf: there is no component 'YamlNothing'"),
    ],
)
def test_what_stands_for_a_component_must_be_one(shelf: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Pipeline.from_yaml(f"nodes: {{a: {{type: YamlSearch, shelf: {shelf}}}}}")


@pytest.mark.parametrize("model", ["smollm2", "{type: First}", "[1]"])
def test_what_stands_for_a_model_must_have_its_methods(model: str) -> None:
    with pytest.raises(ConfigError, match=r"'model' takes a component \(LanguageModel\)"):
        Pipeline.from_yaml(f"nodes: {{a: {{type: Cited, model: {model}}}}}")
    assert Pipeline.from_yaml("nodes: {a: {type: Cited, model: {type: VLLM}}}").nodes
