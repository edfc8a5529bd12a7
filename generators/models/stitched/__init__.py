"""Stitched caches: keys and values of passages that were encoded apart, put together in front of a question."""
