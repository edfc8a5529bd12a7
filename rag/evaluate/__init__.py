"""Evaluation people can trust: data sets, metrics, a runner that resumes, comparisons with intervals, reports."""
