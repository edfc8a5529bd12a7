"""Methods that write the change of a weight matrix in fewer numbers."""
