"""A pipeline behind an OpenAI-compatible address."""
