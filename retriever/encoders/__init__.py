"""Text to vectors, and pairs of texts to scores.

- `protocol` says what an encoder, a tokenizer and a reranker are; `plugged`, `answers` and
  `loaded_models` take those of callers.
- `bi_encoder` and `cross_encoder` are the package's own. `checkpoint/` reads what the files of a
  model say and `forward/` computes it. `reference` and `cross_reference` let sentence-transformers
  compute what this package does not.
- `acceptance` compares what is computed with its reference, once; `canaries` compares an encoder
  with an index.
- `computing` is what the caller asked for (device, threads, precision), `environment` what the
  machine has.
- `loading` gives the spaces of an index their encoders.

Must not know documents, chunks, indexes or storage. Nothing here imports torch, transformers or
sentence-transformers before they are needed.
"""
