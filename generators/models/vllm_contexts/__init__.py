"""Stitched contexts inside a vLLM server: a plug-in for the server, and what a client needs to use it."""
