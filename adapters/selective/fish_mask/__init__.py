"""FishMask."""
