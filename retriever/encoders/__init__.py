"""Text to vectors: the protocol of an encoder, models by name, and the package's own encoders.

Owns everything about a model except the vectors it gives. Must not know documents, chunks, indexes
or storage. Nothing here imports torch, transformers or sentence-transformers before it is needed.
"""
