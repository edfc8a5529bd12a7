"""The typed pipeline graph.

    pipe = Pipeline()
    pipe.add("search", BM25(corpus))
    pipe.add("answer", Cited(model))
    pipe.connect("search", "answer.retriever")      # a call edge: Cited calls everything upstream as its retriever
    print(pipe.run("How long may a suit be worn outside?"))

A *value edge* carries a result once. A *call edge* hands everything upstream of it over as a function: it arises where the port asks for a
protocol of one method (`rag.core.protocols.Retriever`) and the source returns what that method returns.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag.core.errors import GraphError, InputError
from rag.core.ports import Port, Signature, signature_of
from rag.core.sync import iterate_sync, run_sync
from rag.core.typing import describe, fits, protocol_methods

if TYPE_CHECKING:
    from rag.core.engine import Run
    from rag.core.plan import Plan


MAX_LOOP = 10_000
"""How often an edge may be followed in one run: a number far above it is a slip, or was written to keep a server busy."""


@dataclass(frozen=True, slots=True)
class Edge:
    """``source.output`` into ``target.port``. ``call``: hand over a function; ``loop``: how often the edge may be followed in one run."""

    source: str
    output: str
    target: str
    port: str
    call: bool = False
    loop: int | None = None

    def __str__(self) -> str:
        return f"{self.source}{'.' if self.output else ''}{self.output} -> {self.target}.{self.port}"


@dataclass(frozen=True, slots=True)
class Node:
    """A named node with its ports and its time limit in seconds."""

    name: str
    component: Any
    signature: Signature
    timeout: float | None = None


class Pipeline:
    """A graph of nodes, checked as it is built and compiled once. See the module's docstring."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.edges: list[Edge] = []
        self._plan: Plan | None = None

    # -- building ----------------------------------------------------------------------------------------------------------------

    def add(self, name: str, node: Any, *, timeout: float | None = None) -> Pipeline:
        """Add ``node`` (a function or an object with a typed ``run``) under ``name``; ``timeout`` in seconds bounds each of its runs.

        A coroutine runs on the event loop; a plain function runs inline in `run` and in a worker thread in `arun`, `map` and `stream`.
        Raises `GraphError` if the name is taken or no identifier, or if the ports cannot be read.
        """
        if not name.isidentifier():
            raise GraphError(f"node name '{name}': use letters, digits and '_', not starting with a digit")
        if name in self.nodes:
            raise GraphError(f"there is already a node '{name}' ({describe(type(self.nodes[name].component))}); choose another name")
        if timeout is not None and not timeout > 0:
            raise GraphError(f"node '{name}': timeout must be positive seconds, not {timeout}")
        self.nodes[name] = Node(name, node, signature_of(name, node), timeout)
        self._plan = None
        return self

    def connect(self, source: str, target: str, *, loop: int | None = None) -> Pipeline:
        """Connect an output (``"node"``, ``"node.field"`` or ``"node.label"``) to a port (``"node.port"``, or ``"node"`` if only one fits).

        ``loop=n`` marks an edge that goes back: it is followed at most n times in a run, then the run stops with `LoopLimit`.
        Raises `GraphError` naming both ends, their types and what would fit.
        """
        source_node, output = self._split(source)
        if output not in source_node.signature.outputs:
            known = ", ".join(f"'{source_node.name}.{o}'" if o else f"'{source_node.name}'" for o in source_node.signature.outputs)
            raise GraphError(f"'{source}' does not exist; outputs of '{source_node.name}' are: {known}")
        if loop is not None and not 1 <= loop <= MAX_LOOP:
            raise GraphError(f"{source} -> {target}: loop must be from 1 to {MAX_LOOP:,}, not {loop}")
        target_node, port_name = self._split(target)
        offered = source_node.signature.outputs[output]
        port = self._port(source, offered, target_node, port_name, loop is not None)
        edge = Edge(source_node.name, output, target_node.name, port.name, _is_call(offered, port.type), loop)
        if edge.call and loop is not None:
            raise GraphError(f"{edge}: a call edge cannot loop; the node that calls decides how often")
        if loop is None:
            self._refuse_cycle(edge)
        self.edges.append(edge)
        self._plan = None
        return self

    def _split(self, path: str) -> tuple[Node, str]:
        name, _, rest = path.partition(".")
        if name not in self.nodes:
            raise GraphError(f"there is no node '{name}' (in '{path}'); nodes are: {', '.join(self.nodes) or 'none yet'}")
        return self.nodes[name], rest

    def _port(self, source: str, offered: Any, node: Node, name: str, looping: bool) -> Port:
        ports = node.signature.inputs
        if name:
            if name not in ports:
                raise GraphError(f"'{node.name}.{name}' does not exist; ports of '{node.name}' are: {_list_ports(ports.values())}")
            candidates = [ports[name]]
        else:
            candidates = list(ports.values())
        fitting = [p for p in candidates if _is_call(offered, p.type) or fits(offered, p.type)]
        if not fitting:
            wanted = f"'{node.name}.{name}' takes {describe(candidates[0].type)}" if name else f"ports are: {_list_ports(candidates)}"
            would = [f"'{node.name}.{p.name}'" for p in ports.values() if _is_call(offered, p.type) or fits(offered, p.type)]
            hint = f"; it would fit {', '.join(would)}" if would else ""
            raise GraphError(f"'{source}' gives {describe(offered)}, which does not fit: {wanted}{hint}")
        free = [p for p in fitting if p.many or looping or not self._taken(node.name, p.name)]
        if not free:
            taken = ", ".join(str(e) for e in self.edges if e.target == node.name and e.port in {p.name for p in fitting})
            raise GraphError(
                f"'{source}' cannot be connected to '{node.name}': the port is connected already ({taken}); join the values first"
            )
        if len(free) > 1:
            required = [p for p in free if p.required]
            if len(required) != 1:
                raise GraphError(
                    f"'{source}' fits several ports of '{node.name}': {_list_ports(free)}; name one, as '{node.name}.{free[0].name}'"
                )
            free = required
        return free[0]

    def _taken(self, node: str, port: str) -> bool:
        return any(e.target == node and e.port == port and e.loop is None for e in self.edges)

    def _refuse_cycle(self, edge: Edge) -> None:
        path = self._path(edge.target, edge.source)
        if path:
            raise GraphError(f"{edge} closes a cycle ({' -> '.join([*path, edge.target])}); if it is meant, bound it: connect(..., loop=3)")

    def _path(self, start: str, end: str) -> list[str]:
        stack = [[start]]
        seen: set[str] = set()
        while stack:
            path = stack.pop()
            if path[-1] == end:
                return path
            if path[-1] not in seen:
                seen.add(path[-1])
                stack.extend([*path, e.target] for e in self.edges if e.source == path[-1] and e.loop is None)
        return []

    # -- running -----------------------------------------------------------------------------------------------------------------

    @property
    def plan(self) -> Plan:
        """The compiled graph; compiled on first use. Raises `GraphError` if a required port of a call edge's sub-graph is left open."""
        if self._plan is None:
            from rag.core.plan import compile_plan

            self._plan = compile_plan(self)
        return self._plan

    def run(self, question: Any = None, /, **inputs: Any) -> Any:
        """Run once and return the result: the value of the last node, or a dict if several ended the run.

        ``question`` goes to every open required port; ``inputs`` go to the open ports of that name (or ``**{"node.port": value}``).
        Raises what a node raised if it is a `GraftError`, and `NodeError` around anything else.
        """
        return self.explain(question, **inputs).value

    async def arun(self, question: Any = None, /, **inputs: Any) -> Any:
        """`run`, as a coroutine."""
        return (await self.aexplain(question, **inputs)).value

    def explain(self, question: Any = None, /, **inputs: Any) -> Run:
        """Run once and return the `Run`: its value or error, and the trace of every node."""
        from rag.core.engine import drive, execute

        plan = self.plan
        bound = plan.bind(question, inputs)
        return drive(execute(plan, bound, inline=True)) if plan.inline else run_sync(execute(plan, bound))

    async def aexplain(self, question: Any = None, /, **inputs: Any) -> Run:
        """`explain`, as a coroutine. Cancelling it cancels the nodes."""
        from rag.core.engine import execute

        return await execute(self.plan, self.plan.bind(question, inputs))

    def map(self, questions: Iterable[Any], *, in_flight: int = 64) -> list[Run]:
        """Run many questions, ``in_flight`` at a time, and return their `Run`s in the order given. A failed one holds its error.

        An item is what `run` takes as ``question``, or a dict of named inputs.
        """

        async def collect() -> list[Run]:
            return [run async for run in self.amap(questions, in_flight=in_flight)]

        return sorted(run_sync(collect()), key=lambda run: run.index)

    def amap(self, questions: Iterable[Any], *, in_flight: int = 64) -> AsyncIterator[Run]:
        """`map`, yielding each `Run` as it finishes (``run.index`` is its place). ``questions`` may be endless: it is read as needed."""
        from rag.core.engine import execute_many

        if in_flight < 1:
            raise InputError(f"in_flight must be at least 1, not {in_flight}")
        return execute_many(self.plan, questions, in_flight)

    def stream(self, question: Any = None, /, **inputs: Any) -> Iterator[Any]:
        """Run once and yield its events (`TextDelta`, `Retrieved`, `NodeStarted`, `NodeFinished`) and, last, the `Run`."""
        return iterate_sync(self.astream(question, **inputs))

    def astream(self, question: Any = None, /, **inputs: Any) -> AsyncIterator[Any]:
        """`stream`, as an async iterator. Closing it cancels the run."""
        from rag.core.engine import execute_stream

        return execute_stream(self.plan, self.plan.bind(question, inputs))

    # -- files and pictures ------------------------------------------------------------------------------------------------------

    def to_yaml(self) -> str:
        """The graph as YAML; `from_yaml` gives it back. Raises `ConfigError` if a node is not a registered component."""
        from rag.core.yamlfile import dump

        return dump(self)

    @classmethod
    def from_yaml(cls, source: str | Path) -> Pipeline:
        """Build from YAML text, or from the file when ``source`` is a `Path`. Only registered names; unknown keys are refused."""
        from rag.core.yamlfile import load

        return load(source)

    def replaced(self, replace: Callable[[Any], Any]) -> Pipeline:
        """The same graph with ``replace(part)`` in the place of each part of its components: ``lambda part: other if part is model else
        part``. What does not change is shared. Raises `ConfigError` for a component that cannot be built anew."""
        from rag.core.replacing import replaced

        return replaced(self, replace)

    def draw(self, path: str | Path | None = None) -> str:
        """The graph as Mermaid text, or as SVG when ``path`` ends in ".svg"; written to ``path`` if given."""
        from rag.core.draw import draw

        return draw(self, path)


def _is_call(offered: Any, wanted: Any) -> bool:
    from rag.core.plan import call_result

    return len(protocol_methods(wanted)) == 1 and not fits(offered, wanted) and fits(offered, call_result(wanted))


def _list_ports(ports: Iterable[Port]) -> str:
    return ", ".join(f"{'*' if p.many else ''}{p.name}: {describe(p.type)}{'' if p.required else ' (optional)'}" for p in ports) or "none"
