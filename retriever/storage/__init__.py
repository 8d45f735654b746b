"""Keeping: the only code that touches the index directory. `FORMAT.md` here is its format."""
