"""An MCP server for the tests: ``python server.py [how it misbehaves]``."""

from __future__ import annotations

import os
import sys
import time

if "dies" in sys.argv:
    print("cannot find my database", file=sys.stderr)
    sys.exit(3)
if "silent" in sys.argv:
    sys.stdin.read()
if "chatter" in sys.argv:
    while True:
        print("not a message", flush=True)
        time.sleep(0.01)

from mcp.server.mcpserver import Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import CallToolResult, TextContent

server = MCPServer("test")
starts = os.environ.get("STARTS")
if starts:
    with open(starts, "a") as log:
        log.write("started\n")


@server.tool(name="say.again")
def again(text: str, times: int = 1) -> str:
    """Say it again."""
    return text * times


@server.tool()
def environment() -> str:
    """What the program was given."""
    return ",".join(sorted(os.environ))


@server.tool()
def refuse() -> str:
    """Says no."""
    raise ToolError("not on a Sunday")


@server.tool()
def hang() -> str:
    """Never answers."""
    time.sleep(3600)
    return ""


@server.tool()
def crash() -> str:
    """Takes the server with it."""
    print("out of memory", file=sys.stderr, flush=True)
    os._exit(9)


@server.tool()
def picture() -> Image:
    """A picture."""
    return Image(data=b"\x89PNG", format="png")


@server.tool()
def figures() -> CallToolResult:
    """Data without text."""
    return CallToolResult(content=[], structured_content={"n": 3})


@server.tool()
def two() -> CallToolResult:
    """Two texts."""
    return CallToolResult(content=[TextContent(text="one"), TextContent(text="two")])


@server.tool()
def tangled(value: str = "") -> str:
    """Its schema refers to itself, twice."""
    return "taken"


knot = server._tool_manager.get_tool("tangled")
assert knot is not None
knot.parameters = {"type": "object", "properties": {"value": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}] * 2}}}


if __name__ == "__main__":
    server.run()
