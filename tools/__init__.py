"""Functions that a model may call. The first tools arrive with the methods that call them."""
