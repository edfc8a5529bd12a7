"""FLARE: a model that looks ahead, and searches where it is unsure of what it is about to write (Jiang et al., EMNLP 2023)."""
