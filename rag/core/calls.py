"""A call edge at run time: a sub-graph behind the one method of a protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rag.core.engine import follow
from rag.core.errors import RunError
from rag.core.plan import SKIPPED, Plan
from rag.core.trace import span

if TYPE_CHECKING:
    from rag.core.pipeline import Edge


class CallEdge:
    """Everything upstream of ``edge``, callable as often as the node likes.

    The first argument of a call goes to every open required port upstream, the others to the open ports of their name. ``k`` bounds the
    result: it goes to the last node's own ``k`` port if that has one, and the result is cut to it in any case.
    """

    def __init__(self, plan: Plan, edge: Edge, method: str, parameters: tuple[str, ...]) -> None:
        self._plan = plan
        self._edge = edge
        self._parameters = parameters
        setattr(self, method, self._invoke)

    async def _invoke(self, *args: Any, **kwargs: Any) -> Any:
        given = dict(zip(self._parameters, args, strict=False)) | kwargs
        unknown = given.keys() - set(self._parameters)
        if unknown or len(args) > len(self._parameters):
            raise TypeError(
                f"{self._edge}: unexpected argument {', '.join(sorted(unknown)) or args[-1]}; takes {', '.join(self._parameters)}"
            )
        first = given.pop(self._parameters[0])
        given = {name: value for name, value in given.items() if value is not None}
        with span(f"call {self._edge.source}") as call:
            call.inputs = {self._parameters[0]: str(first)[:80]}
            slots = await follow(self._plan, self._bind(first, given), False)
            value = slots[self._plan.sinks[0][1]]
            if value is SKIPPED:
                raise RunError(f"{self._edge}: no branch upstream led to a result")
            if self._edge.output:
                value = getattr(value, self._edge.output)
            return value[: given["k"]] if "k" in given and isinstance(value, list) else value

    def _bind(self, first: Any, given: dict[str, Any]) -> dict[int, dict[str, Any]]:
        bound: dict[int, dict[str, Any]] = {}
        last = self._plan.sinks[0][1]
        for step, port in self._plan.open_ports:
            if port.name in given:
                if port.name != "k" or step.slot == last:
                    bound.setdefault(step.slot, {})[port.name] = given[port.name]
            elif port.required:
                bound.setdefault(step.slot, {})[port.name] = first
        return bound

    def __repr__(self) -> str:
        return f"<call edge {self._edge}>"
