"""The way in: a folder or documents, chunked, encoded and committed."""
