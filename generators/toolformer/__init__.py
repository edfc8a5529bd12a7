"""Toolformer (Schick et al. 2023, https://arxiv.org/abs/2302.04761): calls of tools in the middle of a text."""
