"""Link tokens."""
