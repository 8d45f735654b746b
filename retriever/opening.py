"""Open or create an index, and clean up after the last write."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path
from time import sleep
from typing import Any

from retriever import __version__, arguments
from retriever.config import Chunking, ChunkingLike
from retriever.documents.chunking import Chunker
from retriever.encoders.loading import EncoderSource
from retriever.errors import (
    DataLoss,
    IndexCorrupt,
    IndexNotFound,
    InvalidConfig,
    RetrieverError,
    StorageError,
)
from retriever.limits import Limits
from retriever.storage import (
    base_folder,
    catalog,
    head_file,
    layout,
    records,
    schema,
    waiting,
)
from retriever.storage.locking import read_holder
from retriever.storage.pool import ReadPool, reading
from retriever.storage.records import Space
from retriever.storage.vector_formats import MAX_DIMENSION

_MORE_LOOKS = 50
_LOOK_AGAIN_S = 0.02
_log = logging.getLogger("retriever")


def open_or_create(
    directory: Path,
    encoders: EncoderSource,
    chunking: ChunkingLike,
    *,
    base: Path | None,
    dimension: int | None,
    may_create: bool,
    lock_timeout_s: float,
    limits: Limits,
) -> ReadPool:
    """Check an index and return a pool of read connections; create the index if allowed.

    `base` is used only for a new index.
    """
    if not _is_created(directory):
        if not may_create:
            raise _no_index(directory)
        _create(directory, encoders, chunking, base, dimension, lock_timeout_s)
    require_database(directory)
    pool = ReadPool(directory, limits)
    try:
        space = _check(directory, pool)
        _check_options(directory, space, encoders, chunking, dimension)
    except BaseException:
        pool.close()
        raise
    return pool


def require_index(directory: Path) -> Path:
    """Return the path if an index is there, damaged or not; else raise IndexNotFound."""
    if not _is_created(directory):
        raise _no_index(directory)
    return directory


def _is_created(directory: Path) -> bool:
    """Return whether a directory is an index; one whose creation was interrupted is not."""
    database = directory / layout.DATABASE
    try:
        # HEAD is written last. Where it is, the creation was complete, even if the database is
        # missing now.
        if (directory / layout.HEAD).exists() and (
            (directory / layout.LOCK).exists() or database.exists()
        ):
            return True
        if not (database.is_file() and database.stat().st_size):
            return False
        if (directory / layout.JOURNAL).exists():
            return False  # a journal exists only during creation, before the switch to WAL
    except OSError as exc:
        raise StorageError(
            f"{directory} cannot be read: {exc.strerror}.", hint="Check its permissions."
        ) from exc
    with reading(directory) as connection:
        return not schema.is_blank(connection)


def _no_index(directory: Path) -> IndexNotFound:
    if directory.exists() and not directory.is_dir():
        return IndexNotFound(
            f"{directory} is a file, not an index.", hint="Name the index directory."
        )
    what = "has no index in it" if directory.exists() else "does not exist"
    return IndexNotFound(
        f"{directory} {what}.",
        hint="Create one with `retriever index FOLDER`, or pass model= to Index.open.",
    )


def check_dimension(dimension: Any, *, names_model: bool) -> int | None:
    """Return the dimension of a new index without a model, or None if none was given.

    Raises:
        InvalidConfig: It is out of bounds, or a model was named too.
    """
    if dimension is None:
        return None
    if names_model:
        raise InvalidConfig(
            f"dimension={dimension!r} is for an index without a model; a model, or an option of "
            "one, was given too.",
            hint="Leave out one of them. To shorten a model's vectors, use dimensions=.",
        )
    return arguments.whole(
        dimension,
        "dimension",
        least=1,
        most=MAX_DIMENSION,
        hint=f"It is an integer from 1 to {MAX_DIMENSION:,}.",
    )


def _create(
    directory: Path,
    encoders: EncoderSource,
    chunking: ChunkingLike,
    base: Path | None,
    dimension: int | None,
    lock_timeout_s: float,
) -> None:
    if directory.exists():
        _require_empty(directory)
    from retriever.ingest.spaces import new_space, space_for_vectors

    wanted = Chunking.parse(chunking)
    if dimension is not None:
        space = space_for_vectors(dimension, wanted)
    else:
        encoder = encoders.encoder()
        # Refuses options that do not fit the encoder, before anything is written.
        Chunker(encoder.tokenizer, encoder.max_tokens, wanted)
        space = new_space(encoder, wanted, "active")
    settings = {"created_by": __version__, records.BASE: base_folder.recorded(directory, base)}
    from retriever.storage.writer import create

    create(directory, space, settings, timeout_s=lock_timeout_s)


def _require_empty(directory: Path) -> None:
    """Refuse to create an index in a directory with other files."""
    if not directory.is_dir():
        raise InvalidConfig(
            f"{directory} is a file.", hint="Name a directory that does not exist yet."
        )
    ours = {*layout.DATABASE_FILES, layout.LOCK, layout.IGNORE}
    names = [path.name for path in directory.iterdir()]
    others = [
        name
        for name in names
        if not (name in ours or layout.IS_TEMPORARY(name) or layout.IS_WAITING(name))
    ]
    if others:
        raise InvalidConfig(
            f"{directory} is not an index and is not empty: it holds {sorted(others)[0]!r}.",
            hint="Name a new or an empty directory for the index.",
        )


def _check(directory: Path, pool: ReadPool) -> Space:
    """Check format, schema and HEAD.

    HEAD is read before the database. In between, a writer may have folded old commits or a repair
    may have replaced the database, which looks like lost commits. The check is then repeated, for
    as long as a writer holds the lock.
    """
    for _ in range(_MORE_LOOKS):
        try:
            return _check_once(directory, pool)
        except DataLoss:
            sleep(_LOOK_AGAIN_S)
            if read_holder(directory) is None:
                break
    return _check_once(directory, pool)


def require_database(directory: Path) -> None:
    """Refuse an index whose database is missing or not a regular file.

    Raises:
        IndexCorrupt: It is; the error names the file.
    """
    if not (directory / layout.DATABASE).is_file():
        layout.require_regular(directory, layout.DATABASE)
        raise IndexCorrupt(
            f"{directory} has lost its database, {layout.DATABASE}.",
            path=str(directory),
            check="database",
            hint="Restore a backup.",
        )


def _check_once(directory: Path, pool: ReadPool) -> Space:
    with pool.transaction() as connection:
        schema.check(connection, str(directory))  # first, since all else assumes this format
    head = head_file.read_head(directory)
    with pool.transaction() as connection:
        head_file.check_head(directory, head, connection)
        return catalog.active_space(connection)


def _check_options(
    directory: Path,
    space: Space,
    encoders: EncoderSource,
    chunking: ChunkingLike,
    dimension: int | None,
) -> None:
    if dimension is not None and dimension != space.dimension:
        raise InvalidConfig(
            f"{directory} holds vectors of {space.dimension} numbers, not of {dimension}.",
            hint="Leave dimension= out, or name another directory for the new index.",
        )
    encoders.check_identity(space)
    stored = space.chunking.options
    has = stored.to_dict()
    for name, value in stored.with_options(chunking).to_dict().items():
        if has[name] != value:
            raise InvalidConfig(
                f"{directory} was created with chunking {name}={has[name]!r}, not {value!r}.",
                hint="Leave the option out, or change the index with `retriever rebuild`.",
            )


def tidy(directory: Path) -> None:
    """Move the write-ahead log into the database if nobody else is writing; never fails."""
    with suppress(RetrieverError, OSError):
        if waiting.is_wanted(directory):
            return  # the waiting writer does it when it closes
        from retriever.storage.writer import Writer

        writer = Writer.open(directory, timeout_s=0)
        try:
            writer.checkpoint(0)
        finally:
            writer.close()
