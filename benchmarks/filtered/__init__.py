"""Filtered search beside other systems; see `__main__.py`."""
