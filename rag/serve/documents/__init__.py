"""Documents that come over HTTP: sent to disk, parsed in a process of their own, written by one thread."""
