"""From a question to results: views of the index, rankings, folding, reranking, hits."""
