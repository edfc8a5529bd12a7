"""Parallel adapter."""
