"""Methods that train a chosen part of the model's own parameters."""
