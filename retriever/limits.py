"""How much an `Index` works on at a time."""

from __future__ import annotations

from dataclasses import dataclass, fields

from retriever.arguments import seconds, whole


@dataclass(frozen=True, slots=True)
class Limits:
    """How much an `Index` works on at a time; the defaults suit most machines.

    They bound memory, waiting, and what is lost when a call is killed. No answer depends on them,
    nor does any document; they hold for one `Index` object and are not recorded in the index.

    Attributes:
        commit_documents: While documents are added, rebuilt or deleted: documents in one commit. A
            file with more is stored in several.
        commit_chunks: Chunks after which a commit is made.
        commit_characters: Characters of text after which one is made.
        commit_seconds: Seconds after which one is made; a call begins with shorter intervals.
        part_characters: Characters after which what was read of a file is stored, though more of
            it follows. A single document is never divided.
        give_way_seconds: How long other writers wait at most while documents are read.
        group_characters: Characters that are chunked, and queued for the encoder, together.
        queued_groups: Groups in that queue, the one that is being encoded included. With two the
            encoder need not wait for the next.
        queued_characters: Upper bound on text queued for the encoder. A larger group is queued
            alone and blocks reading until it is done.
        encode_tokens: Tokens in one call of the encoder. Progress is reported, and an interrupt
            noticed, after each.
        interrupt_seconds: How long an error or an interrupt waits for a running call of the
            encoder to return.
        tail_rows: Vectors that a search reads from the database. A write that leaves more puts
            them into a segment file, which is mapped into memory.
        tail_texts: Passages that a lexical search reads from the database and cuts into words. A
            write that leaves more puts their words into a segment file.
        merge_bytes: Bytes of vectors that a write merges at most. Larger segments than half of it
            are left for `compact`.
        merge_segments: Small segments, from 2, after which a write merges them.
        compact_bytes: Bytes of vectors in a segment that `compact` writes.
        read_connections: Connections that read at a time. A search holds one while it reads, with
            two file descriptors; more searches than connections take turns.
        read_wait_seconds: How long a search waits for a connection before it opens one more; its
            own thread may be holding one that it does not give back before.
        idle_connections: Connections kept open for later searches.
        idle_seconds: Seconds after which one that was not used is closed.

    Raises:
        InvalidConfig: A limit is not a number, or out of bounds.
    """

    commit_documents: int = 1_000
    commit_chunks: int = 16_384
    commit_characters: int = 16_000_000
    commit_seconds: float = 5.0
    part_characters: int = 4_000_000
    give_way_seconds: float = 0.1

    group_characters: int = 100_000
    queued_groups: int = 2
    queued_characters: int = 4_000_000
    encode_tokens: int = 32_768
    interrupt_seconds: float = 2.0

    tail_rows: int = 4_096
    tail_texts: int = 64
    merge_bytes: int = 64 << 20
    merge_segments: int = 8
    compact_bytes: int = 512 << 20

    read_connections: int = 32
    read_wait_seconds: float = 10.0
    idle_connections: int = 8
    idle_seconds: float = 30.0

    def __post_init__(self) -> None:
        for limit in fields(self):
            value, name = getattr(self, limit.name), f"limits {limit.name}"
            number: float
            if limit.name.endswith("_seconds"):
                number = seconds(value, name)
            else:
                least = _LEAST.get(limit.name, 1)
                hint = f"Give a whole number, from {least}."
                number = whole(value, name, least=least, hint=hint)
            object.__setattr__(self, limit.name, number)


_LEAST = {"merge_segments": 2, "idle_connections": 0}
"""The smallest values of limits, where they are not 1."""
