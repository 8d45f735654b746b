"""Index folders and documents: plan, read, chunk, encode and commit."""
