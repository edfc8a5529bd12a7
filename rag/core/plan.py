"""Compiling a graph: open ports, call edges, order, loops. Done once; a run then only follows the plan."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, get_type_hints

from rag.core.errors import GraphError, InputError
from rag.core.ports import Port
from rag.core.typing import accepts, describe, fits, protocol_methods

if TYPE_CHECKING:
    from rag.core.pipeline import Edge, Node, Pipeline

SKIPPED: Any = type("Skipped", (), {"__repr__": lambda self: "skipped"})()
"""Stands for the output of a branch that was not taken."""


def call_result(protocol: type) -> Any:
    """What the one method of ``protocol`` returns."""
    method = getattr(protocol, protocol_methods(protocol)[0])
    return get_type_hints(method)["return"]


@dataclass(slots=True)
class Step:
    """One node of the plan. ``feeds`` are (port, slot, output name, is a label); a many-to-one port has several."""

    slot: int
    name: str
    function: Callable[..., Any]
    is_async: bool
    timeout: float | None
    component: Any
    feeds: list[tuple[str, int, str, bool]] = field(default_factory=list)
    many: str | None = None
    required: frozenset[str] = frozenset()
    calls: dict[str, Any] = field(default_factory=dict)
    final: bool = False  # what it writes is the answer, so its text is streamed


@dataclass(frozen=True, slots=True)
class Loop:
    """After stage ``after``: if the source gave a value, put it into ``target.port`` and go back to stage ``back``, clearing ``body``."""

    edge: Edge
    source_slot: int
    label: bool  # the source's output is a branch label, not a field
    target_slot: int
    after: int
    back: int
    body: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """A compiled graph. ``stages`` hold steps that depend on earlier stages only; ``sinks`` are (name, slot) of the results."""

    stages: tuple[tuple[Step, ...], ...]
    slots: int
    sinks: tuple[tuple[str, int], ...]
    open_ports: tuple[tuple[Step, Port], ...]
    loops: tuple[Loop, ...]
    inline: bool

    def bind(self, question: Any, inputs: dict[str, Any]) -> dict[int, dict[str, Any]]:
        """Sort the caller's inputs to the open ports: ``{slot: {port: value}}``. Raises `InputError` for what is unknown or missing."""
        bound: dict[int, dict[str, Any]] = {}
        used: set[str] = set()
        positional = False
        for step, port in self.open_ports:
            dotted = f"{step.name}.{port.name}"
            key = dotted if dotted in inputs else port.name
            if key in inputs:
                used.add(key)
                value = inputs[key]
            elif port.required and question is not None and accepts(port.type, question):
                positional = True
                value = question
            elif port.required:
                given = "no value" if question is None else f"no value that fits (the unnamed input is {describe(type(question))})"
                raise InputError(f"'{dotted}' takes {describe(port.type)} and got {given}; inputs of this pipeline are: {self._inputs()}")
            else:
                continue
            if not accepts(port.type, value):
                raise InputError(f"'{dotted}' takes {describe(port.type)}, not {describe(type(value))}")
            bound.setdefault(step.slot, {})[port.name] = value
        unknown = inputs.keys() - used
        if unknown:
            raise InputError(f"unknown input {', '.join(map(repr, sorted(unknown)))}; inputs of this pipeline are: {self._inputs()}")
        if question is not None and not positional:
            raise InputError(f"no open port takes the unnamed input; inputs of this pipeline are: {self._inputs()}")
        return bound

    def _inputs(self) -> str:
        return (
            ", ".join(f"{s.name}.{p.name}: {describe(p.type)}{'' if p.required else ' (optional)'}" for s, p in self.open_ports) or "none"
        )


def compile_plan(pipeline: Pipeline) -> Plan:
    """Compile the main flow: everything that leads by value edges to a node whose output nobody takes."""
    if not pipeline.nodes:
        raise GraphError("the pipeline has no nodes; add one with pipe.add(name, node)")
    taken = {e.source for e in pipeline.edges if e.loop is None}
    sinks = [n for n in pipeline.nodes if n not in taken]
    return _compile(pipeline, sinks, main=True)


def compile_call(pipeline: Pipeline, edge: Edge) -> Any:
    """Compile everything upstream of a call edge into an object with the one method that the port's protocol asks for."""
    from rag.core.calls import CallEdge

    protocol = pipeline.nodes[edge.target].signature.inputs[edge.port].type
    plan = _compile(pipeline, [edge.source], main=False)
    method = protocol_methods(protocol)[0]
    parameters = [p for p in inspect.signature(getattr(protocol, method)).parameters.values() if p.name != "self"]
    first = parameters[0].name
    hints = get_type_hints(getattr(protocol, method))
    known = {p.name for p in parameters}
    entries = [(s, p) for s, p in plan.open_ports if p.required]
    for step, port in entries:
        if port.name not in known and not fits(hints[first], port.type):
            raise GraphError(
                f"{edge}: '{step.name}.{port.name}' ({describe(port.type)}) is open, and a call of {describe(protocol)} cannot fill it"
            )
    if not entries:
        raise GraphError(f"{edge}: nothing upstream of '{edge.source}' takes the {first} of a call; leave its {first} port open")
    return CallEdge(plan, edge, method, tuple(p.name for p in parameters))


def _compile(pipeline: Pipeline, sinks: list[str], *, main: bool) -> Plan:
    names = _ancestors(pipeline, sinks)
    value_edges = [e for e in pipeline.edges if not e.call and e.source in names and e.target in names]
    level = _levels(names, [e for e in value_edges if e.loop is None])
    order = sorted(names, key=lambda n: level[n])  # stable: nodes of a level keep the order in which they were added
    slot = {name: index for index, name in enumerate(order)}
    steps = {name: _step(pipeline, pipeline.nodes[name], slot, value_edges) for name in order}
    depth = max(level.values()) + 1
    stages = tuple(tuple(steps[n] for n in order if level[n] == i) for i in range(depth))
    open_ports = tuple((steps[n], p) for n in order for p in pipeline.nodes[n].signature.inputs.values() if _is_open(pipeline, n, p))
    for step, port in open_ports:
        if port.many:
            raise GraphError(
                f"'{step.name}.{port.name}' takes any number of {describe(port.type)}, but no edge leads to it; connect at least one"
            )
    loops = tuple(
        Loop(
            e,
            slot[e.source],
            e.output in pipeline.nodes[e.source].signature.labels,
            slot[e.target],
            level[e.source],
            level[e.target],
            tuple(slot[n] for n in _descendants(e.target, value_edges)),
        )
        for e in value_edges
        if e.loop is not None
    )
    _mark_final(pipeline, steps, sinks if main else [], value_edges)
    inline = not any(s.is_async or s.timeout or s.calls for s in steps.values())
    return Plan(stages, len(order), tuple((n, slot[n]) for n in sinks), open_ports, loops, inline)


def _step(pipeline: Pipeline, node: Node, slot: dict[str, int], edges: list[Edge]) -> Step:
    signature = node.signature
    step = Step(slot[node.name], node.name, signature.function, signature.is_async, node.timeout, node.component)
    step.many = next((p.name for p in signature.inputs.values() if p.many), None)
    step.required = frozenset(p.name for p in signature.inputs.values() if p.required)
    for edge in edges:
        if edge.target == node.name and edge.loop is None:
            label = edge.output in pipeline.nodes[edge.source].signature.labels
            step.feeds.append((edge.port, slot[edge.source], edge.output, label))
    for edge in pipeline.edges:
        if edge.call and edge.target == node.name:
            step.calls[edge.port] = compile_call(pipeline, edge)
    return step


def _mark_final(pipeline: Pipeline, steps: dict[str, Step], sinks: list[str], edges: list[Edge]) -> None:
    """A sink's text is the answer; so is that of a node whose value a join such as `First` merely passes on to a sink."""
    waiting = list(sinks)
    while waiting:
        name = waiting.pop()
        steps[name].final = True
        if getattr(pipeline.nodes[name].component, "passes_on", False):
            waiting.extend(e.source for e in edges if e.target == name and not steps[e.source].final)


def _is_open(pipeline: Pipeline, node: str, port: Port) -> bool:
    return not any(e.target == node and e.port == port.name and e.loop is None for e in pipeline.edges)


def _ancestors(pipeline: Pipeline, sinks: list[str]) -> list[str]:
    found = set(sinks)
    stack = list(sinks)
    while stack:
        target = stack.pop()
        for edge in pipeline.edges:
            if edge.target == target and not edge.call and edge.source not in found:
                found.add(edge.source)
                stack.append(edge.source)
    return [n for n in pipeline.nodes if n in found]


def _descendants(start: str, edges: list[Edge]) -> list[str]:
    found = {start: None}
    stack = [start]
    while stack:
        source = stack.pop()
        for edge in edges:
            if edge.source == source and edge.loop is None and edge.target not in found:
                found[edge.target] = None
                stack.append(edge.target)
    return list(found)


def _levels(names: list[str], edges: list[Edge]) -> dict[str, int]:
    """Longest distance from a start: the stage in which each node runs. `Pipeline.connect` has refused cycles."""
    level = dict.fromkeys(names, 0)
    incoming: dict[str, list[str]] = {n: [] for n in names}
    for edge in edges:
        incoming[edge.target].append(edge.source)
    waiting = {n: len(sources) for n, sources in incoming.items()}
    ready = [n for n in names if not waiting[n]]
    for name in ready:  # grows while it is walked
        for edge in edges:
            if edge.source == name:
                level[edge.target] = max(level[edge.target], level[name] + 1)
                waiting[edge.target] -= 1
                if not waiting[edge.target]:
                    ready.append(edge.target)
    return level
