"""What a search raises when its snapshot is outdated."""


class StaleView(Exception):
    """A segment of this snapshot is gone: a merge has replaced it since. Begin a new one."""
