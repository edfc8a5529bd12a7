"""The routes, one file for each group: ``routes(service)`` gives a router. What they share is `rag.serve.service.Service`."""
