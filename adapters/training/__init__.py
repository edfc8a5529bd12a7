"""Training of what a frozen model wears: data, losses, the loop, checkpoints, the run card."""
