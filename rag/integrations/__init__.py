"""graft's retrievers as components of other toolkits: one file each, importing that toolkit alone."""
