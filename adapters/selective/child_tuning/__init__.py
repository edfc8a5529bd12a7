"""Child-Tuning."""
