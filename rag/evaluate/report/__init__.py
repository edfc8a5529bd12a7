"""A comparison as one HTML file that opens anywhere, without a network: tables, plots, and a browser of single questions."""

from rag.evaluate.report.page import write_report

__all__ = ["write_report"]
