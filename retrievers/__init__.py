"""Documents in, ranked passages out: readers, chunkers, the corpus on disk, dense, sparse, fusion and reranking."""
