"""Collect documents into groups that are worth a call of the tokenizer and of the encoder."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from retriever.types import Document


class HasDocuments(Protocol):
    """What a pipeline takes and yields undivided, such as a change or a stored document.

    Attributes:
        documents: In order; there may be none.
        size: What encoding them costs, compared with other items of the same call.
    """

    @property
    def documents(self) -> Sequence[Document]: ...  # noqa: D102
    @property
    def size(self) -> int: ...  # noqa: D102


ItemT = TypeVar("ItemT", bound=HasDocuments)


@dataclass(slots=True)
class Group(Generic[ItemT]):
    """Items that are read, chunked and encoded together.

    Attributes:
        items: In order.
        documents: How many documents they have; an item without any counts as one.
        characters: How long their texts are.
        size: The sum of their sizes.
        began: When the first one was read.
        is_complete: Whether no further item is added.
    """

    items: list[ItemT] = field(default_factory=list)
    documents: int = 0
    characters: int = 0
    size: int = 0
    began: float = field(default_factory=time.monotonic)
    is_complete: bool = False

    def add(self, item: ItemT) -> None:
        """Add an item."""
        self.items.append(item)
        self.documents += max(1, len(item.documents))
        self.characters += sum(len(document.text) for document in item.documents)
        self.size += item.size


def in_groups(
    items: Iterable[ItemT], *, documents: int, characters: int, seconds: float
) -> Iterator[Group[ItemT]]:
    """Yield the group that each item was added to, whether or not it is complete by then.

    The next item may be long in coming; this gives the caller the chance to store meanwhile what
    has been encoded.

    Args:
        items: Read as they are needed.
        documents: Documents that make a group complete.
        characters: Characters that do.
        seconds: Time after which a group is complete, at the next item.
    """
    group: Group[ItemT] = Group()
    for item in items:
        group.add(item)
        group.is_complete = (
            group.documents >= documents
            or group.characters >= characters
            or time.monotonic() - group.began >= seconds
        )
        yield group
        if group.is_complete:
            group = Group()
    if group.items:
        group.is_complete = True
        yield group


def equal_shares(sizes: Sequence[int], limit: int) -> Iterator[slice]:
    """Yield slices of about equal sums, as few as keep each from going much over a limit.

    Equal ones are better than full ones and a small rest: progress is shown, and an interrupt is
    noticed, after each.
    """
    fair = sum(sizes) / math.ceil(max(sum(sizes), 1) / limit)
    start = total = 0
    for position, size in enumerate(sizes, 1):
        total += size
        if total >= fair or position == len(sizes):
            yield slice(start, position)
            start, total = position, 0
