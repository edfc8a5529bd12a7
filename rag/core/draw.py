"""Pictures of a graph: Mermaid text, or an SVG that needs nothing else."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from rag.core.errors import InputError
from rag.core.typing import describe

if TYPE_CHECKING:
    from rag.core.pipeline import Edge, Pipeline

_MERMAID = frozenset(
    ("call", "class", "classdef", "click", "default", "end", "flowchart", "graph", "href", "interpolate", "linkstyle", "style", "subgraph")
)
"""Words that a Mermaid flowchart cannot have as the name of a node."""

_WIDTH, _HEIGHT, _GAP_X, _GAP_Y, _MARGIN = 150, 46, 90, 26, 24


def draw(pipeline: Pipeline, path: str | Path | None) -> str:
    """Mermaid, or SVG for a path that ends in ".svg"; ".mmd" and ".md" are Mermaid. Raises `InputError` for another ending."""
    if path is None:
        return mermaid(pipeline)
    target = Path(path)
    if target.suffix not in (".svg", ".mmd", ".md"):
        raise InputError(f"{target}: a drawing ends in .svg, .mmd or .md, not '{target.suffix}'")
    text = svg(pipeline) if target.suffix == ".svg" else mermaid(pipeline)
    target.write_text(f"```mermaid\n{text}```\n" if target.suffix == ".md" else text, "utf-8")
    return text


def mermaid(pipeline: Pipeline) -> str:
    """Value edges are solid, call edges dotted, loops thick; an edge is labelled with its port."""
    lines = ["flowchart LR"]
    lines += [f'    {_id(node.name)}["{node.name}<br/><small>{_kind(node.component)}</small>"]' for node in pipeline.nodes.values()]
    for edge in pipeline.edges:
        arrow = "-. " + _label(edge) + " .->" if edge.call else f"== {_label(edge)} ==>" if edge.loop else f"-- {_label(edge)} -->"
        lines.append(f"    {_id(edge.source)} {arrow} {_id(edge.target)}")
    return "\n".join(lines) + "\n"


def _id(name: str) -> str:
    return f"{name}_" if name.lower() in _MERMAID else name


def svg(pipeline: Pipeline) -> str:
    """Columns by distance from the inputs, arrows left to right; call edges dashed, loops below."""
    place = _places(pipeline)
    columns = max((x for x, _ in place.values()), default=0) + 1
    rows = max((y for _, y in place.values()), default=0) + 1
    width = columns * (_WIDTH + _GAP_X) - _GAP_X + 2 * _MARGIN
    height = rows * (_HEIGHT + _GAP_Y) - _GAP_Y + 2 * _MARGIN + (40 if any(e.loop for e in pipeline.edges) else 0)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="system-ui, sans-serif" font-size="13">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 8 4 0 8z" fill="#4a5568"/></marker></defs>',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    parts += [_arrow(edge, place, height) for edge in pipeline.edges]
    for node in pipeline.nodes.values():
        x, y = _corner(place[node.name])
        middle = x + _WIDTH / 2
        ports = ", ".join(f"{p.name}: {describe(p.type)}" for p in node.signature.inputs.values())
        parts.append(
            f"<g><title>{escape(f'{node.name}({ports}) -> ' + describe(node.signature.outputs['']))}</title>"
            f'<rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="8" fill="#eef2ff" stroke="#4c51bf"/>'
            f'<text x="{middle}" y="{y + 20}" text-anchor="middle" font-weight="600" fill="#1a202c">{escape(node.name)}</text>'
            f'<text x="{middle}" y="{y + 37}" text-anchor="middle" font-size="11" fill="#4a5568">'
            f"{escape(_kind(node.component))}</text></g>"
        )
    return "\n".join([*parts, "</svg>\n"])


def _places(pipeline: Pipeline) -> dict[str, tuple[int, int]]:
    column = dict.fromkeys(pipeline.nodes, 0)
    for _ in pipeline.nodes:  # longest path; the graph has no cycle besides its loop edges
        for edge in pipeline.edges:
            if edge.loop is None:
                column[edge.target] = max(column[edge.target], column[edge.source] + 1)
    used: dict[int, int] = {}
    place: dict[str, tuple[int, int]] = {}
    for name, x in column.items():
        place[name] = (x, used.get(x, 0))
        used[x] = used.get(x, 0) + 1
    return place


def _corner(place: tuple[int, int]) -> tuple[int, int]:
    return _MARGIN + place[0] * (_WIDTH + _GAP_X), _MARGIN + place[1] * (_HEIGHT + _GAP_Y)


def _arrow(edge: Edge, place: dict[str, tuple[int, int]], height: int) -> str:
    (x1, y1), (x2, y2) = _corner(place[edge.source]), _corner(place[edge.target])
    if edge.loop is not None:
        start, end = x1 + _WIDTH / 2, x2 + _WIDTH / 2
        path = f"M{start} {y1 + _HEIGHT} C{start} {height - 8} {end} {height - 8} {end} {y2 + _HEIGHT + 3}"
        middle = ((start + end) / 2, height - 12.0)
    else:
        a, b = (x1 + _WIDTH, y1 + _HEIGHT / 2), (x2 - 3, y2 + _HEIGHT / 2)
        path = f"M{a[0]} {a[1]} C{a[0] + _GAP_X / 2} {a[1]} {b[0] - _GAP_X / 2} {b[1]} {b[0]} {b[1]}"
        middle = ((a[0] + b[0]) / 2, (a[1] + b[1]) / 2 - 5)
    dash = ' stroke-dasharray="5 4"' if edge.call else ""
    halo = 'paint-order="stroke" stroke="#ffffff" stroke-width="4"'  # the label stays readable where the line runs through it
    text = f'<text x="{middle[0]}" y="{middle[1]}" text-anchor="middle" font-size="10" fill="#4a5568" {halo}>{escape(_label(edge))}</text>'
    return f'<path d="{path}" fill="none" stroke="#4a5568" stroke-width="1.4"{dash} marker-end="url(#tip)"/>{text}'


def _label(edge: Edge) -> str:
    bound = f" ≤{edge.loop}×" if edge.loop else ""
    return f"{edge.output}{' → ' if edge.output else ''}{edge.port}{bound}"


def _kind(component: object) -> str:
    return getattr(component, "__name__", type(component).__name__)
