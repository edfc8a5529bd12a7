"""Operations of web services as tools, from their OpenAPI 3 descriptions."""

from __future__ import annotations

from tools.openapi.tool import OpenAPITool, openapi_tools

__all__ = ["OpenAPITool", "openapi_tools"]
