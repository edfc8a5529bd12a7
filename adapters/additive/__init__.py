"""Methods that add modules or vectors to a frozen model."""
