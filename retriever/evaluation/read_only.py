"""Results whose mappings cannot be changed, and that can be pickled and copied all the same."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any


class ReadOnlyMappings:
    """A base for results whose attributes are read-only views of mappings."""

    def __getstate__(self) -> dict[str, Any]:
        """Return plain dicts, because Python cannot pickle or copy read-only views of them."""
        return {name: plain(value) for name, value in vars(self).items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update({name: read_only(value) for name, value in state.items()})


def plain(value: Any) -> Any:
    """Return a dict of a read-only view, and of those in it; anything else as it is."""
    if isinstance(value, MappingProxyType):
        return {name: plain(one) for name, one in value.items()}
    return value


def read_only(value: Any) -> Any:
    """Return a read-only view of a dict, and of those in it; anything else as it is."""
    if isinstance(value, dict):
        return MappingProxyType({name: read_only(one) for name, one in value.items()})
    return value
