"""Tools of MCP servers. (`rag.serve.mcp` is the other side: a pipeline as an MCP server.)"""

from __future__ import annotations

from tools.mcp.client import MCPTool, MCPTools

__all__ = ["MCPTool", "MCPTools"]
