"""The reading room: files to bytes (`sources`), to documents (`parsers`), to chunks (`chunking`).

It knows the encoder's tokenizer by its protocol only, and nothing of indexes or searching.
"""
