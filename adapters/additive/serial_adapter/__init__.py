"""Serial adapter."""
