"""Lexical search: the constants of BM25, and the engine beside others.

The parts are in `__main__.py`.
"""
