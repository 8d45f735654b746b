"""Dense, lexical and hybrid search: which constants training collections choose, and what follows.

The parts are in `__main__.py`.
"""
