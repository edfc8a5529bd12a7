"""Self-RAG: retrieve on demand, write a segment per passage, judge the segments, keep the best."""
