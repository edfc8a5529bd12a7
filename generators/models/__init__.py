"""Language models behind one contract: in process, on a vLLM server, or behind any OpenAI-compatible endpoint."""
