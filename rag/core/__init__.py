"""The ground floor: types, errors, the pipeline graph and its runtime. Imports no other room."""
