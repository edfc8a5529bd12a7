"""(question, retriever, model) in, cited answer out: one file or folder per method; `generators.models` holds the models."""
