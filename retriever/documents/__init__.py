"""Read files: find them, decode and parse them into documents, and cut these into chunks."""
