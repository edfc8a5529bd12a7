"""Cross-attention tuning."""
