"""Benchmarks: each prints a table and takes ``--json FILE``. Run one with ``python -m benchmarks.NAME``."""
