"""Functions that a model may call while it writes. See `tools.tool` for the contract."""
