"""The errors that this package raises.

    RetrieverError                     code, message, hint    exit 8 unless said otherwise
    ├── UsageError (also ValueError)                          exit 2
    │   ├── InvalidDocument  InvalidQuery (CursorExpired)  InvalidFilter  InvalidConfig
    │   ├── InvalidEvaluation          path, line
    │   └── LimitExceeded              limit, value, option
    ├── NotFound (also LookupError)    IndexNotFound  DocumentNotFound        exit 3
    ├── StorageError
    │   ├── IndexExists                                       exit 2
    │   ├── IndexLocked                pid, host, since       exit 5
    │   ├── IndexBusy                                         exit 5
    │   ├── IndexReadOnly
    │   ├── IndexClosed
    │   ├── WriteFailed                durable
    │   ├── FormatMismatch             found, supported       exit 4
    │   ├── IndexCorrupt               path, check, repair    exit 4
    │   └── DataLoss                                          exit 4
    ├── IngestError                    path, reader           exit 6
    │   ├── UnsupportedFormat
    │   └── UnreadableFile                                    exit 3
    ├── ModelError                                            exit 7
    │   └── ModelUnavailable  ModelMismatch(expected, actual)  UnsafeModelFile
    ├── MissingDependency (also ImportError)   extra          exit 7
    └── SearchTimeout                          timeout_s, step    exit 5

No error has the exit status 0 or 1, which mean "found" and "nothing found".

A message says what happened to which thing and why; `hint` says what to do about it. Errors of
lower libraries are mapped once, in the module that owns the library, always with `from`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retriever.reports import IngestReport, RepairReport


class RetrieverError(Exception):
    """The base of every error raised by this package.

    Attributes:
        code: A stable word for programs, `index_locked` for `IndexLocked`.
        message: What happened to which thing, and why.
        hint: What to do about it; empty only if nothing can be done.
        exit_code: The exit status of the command line for this error; never 0 or 1.
        report: What was committed before the failure, for calls on many documents.
        repair_report: What `repair` had repaired, quarantined and found lost before the failure;
            None if it had done nothing.
    """

    exit_code: int = 8
    report: IngestReport | None = None
    repair_report: RepairReport | None = None

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    @property
    def code(self) -> str:
        """Return the stable name of this kind of error."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(self).__name__).lower()

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".rstrip()

    def __reduce__(self) -> tuple[Any, ...]:
        """Support pickling and copying with every attribute.

        `Exception.__reduce__` calls `type(self)(*args)`, without the keyword-only arguments. That
        fails in the thread in which `multiprocessing.Pool` reads results, and the pool then waits
        for ever.
        """
        return _restore, (type(self), self.args), self.__dict__


def _restore(kind: type[RetrieverError], args: tuple[Any, ...]) -> RetrieverError:
    """Return an error without calling its `__init__`; the pickle sets its attributes."""
    error: RetrieverError = kind.__new__(kind, *args)
    return error


class UsageError(RetrieverError, ValueError):
    """An argument was wrong; nothing was done."""

    exit_code = 2


class InvalidDocument(UsageError):
    """A document cannot be indexed as given."""


class InvalidQuery(UsageError):
    """A query cannot be searched for as given."""


class InvalidFilter(UsageError):
    """A filter does not follow the grammar, or asks for what cannot be compared."""


class CursorExpired(InvalidQuery):
    """The index has changed since the page whose cursor this is: search from the beginning."""


class InvalidConfig(UsageError):
    """An option contradicts another option or what the index was created with."""


class InvalidEvaluation(UsageError):
    """A file or an argument of an evaluation is malformed.

    Attributes:
        path: The file, if the fault is in one.
        line: The number of its line, from 1.
    """

    def __init__(
        self, message: str, *, hint: str, path: str | None = None, line: int | None = None
    ) -> None:
        place = path if line is None else f"{path}:{line}"
        super().__init__(message if path is None else f"{place} {message}", hint=hint)
        self.path = path
        self.line = line


class LimitExceeded(UsageError):
    """A value is over a limit that protects the process."""

    def __init__(self, message: str, *, limit: int, value: int, option: str, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.limit = limit
        self.value = value
        self.option = option


class NotFound(RetrieverError, LookupError):
    """Something named does not exist."""

    exit_code = 3


class IndexNotFound(NotFound):
    """No index is at the path given."""


class DocumentNotFound(NotFound):
    """The index has no document with that id."""


class StorageError(RetrieverError):
    """The index directory could not be used."""


class IndexExists(StorageError):
    """Something is already where an index was to be written."""

    exit_code = 2


class IndexLocked(StorageError):
    """Another process is writing to the index."""

    exit_code = 5

    def __init__(
        self, message: str, *, hint: str, pid: int | None, host: str | None, since: str | None
    ) -> None:
        super().__init__(message, hint=hint)
        self.pid = pid
        self.host = host
        self.since = since


class IndexBusy(StorageError):
    """The index is in use, though not by another writer; the same call may succeed later.

    Another program holds the database, a reader keeps an old snapshot open, or the index kept
    changing while it was read. `IndexLocked` is for a writer that holds the index's lock.
    """

    exit_code = 5


class IndexReadOnly(StorageError):
    """The index was opened read-only, or its directory cannot be written."""


class IndexClosed(StorageError):
    """The index was closed, or carried across a fork."""


class WriteFailed(StorageError):
    """A write failed; the writer is closed.

    Attributes:
        durable: Whether the change was committed nevertheless.
    """

    def __init__(self, message: str, *, hint: str, durable: bool) -> None:
        super().__init__(message, hint=hint)
        self.durable = durable


class FormatMismatch(StorageError):
    """The index was written in another format."""

    exit_code = 4

    def __init__(self, message: str, *, hint: str, found: int, supported: int) -> None:
        super().__init__(message, hint=hint)
        self.found = found
        self.supported = supported


class IndexCorrupt(StorageError):
    """Stored bytes are not what was written.

    Attributes:
        path: The damaged file.
        check: The name of the check that failed.
        repair: Whether `repair` can repair it.
    """

    exit_code = 4

    def __init__(
        self, message: str, *, path: str, check: str, repair: bool = True, hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint or f"Run `retriever repair -i {path}`.")
        self.path = path
        self.check = check
        self.repair = repair


class DataLoss(StorageError):
    """Acknowledged commits are missing from the database."""

    exit_code = 4


class IngestError(RetrieverError):
    """One file could not be turned into documents."""

    exit_code = 6

    def __init__(self, message: str, *, path: str, reader: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.path = path
        self.reader = reader


class UnsupportedFormat(IngestError):
    """No parser reads this kind of file."""


class UnreadableFile(IngestError):
    """A file that the caller named cannot be read; files in folders are listed in the report."""

    exit_code = 3


class ModelError(RetrieverError):
    """A model could not be used."""

    exit_code = 7


class ModelUnavailable(ModelError):
    """The model is not on this machine."""


class ModelMismatch(ModelError):
    """The model is not the one that the index was built with."""

    def __init__(self, message: str, *, field: str, expected: Any, actual: Any, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.field = field
        self.expected = expected
        self.actual = actual


class UnsafeModelFile(ModelError):
    """The model is stored in a form that can execute code, or its weights are not as published."""


class MissingDependency(RetrieverError, ImportError):
    """A package that this feature needs is not installed."""

    exit_code = 7

    def __init__(self, message: str, *, extra: str, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.extra = extra


class SearchTimeout(RetrieverError):
    """A search did not end in the time that it was given; the index can be used as before.

    Attributes:
        timeout_s: The seconds that it was given.
        step: What it was doing, as `encoding the question`.
    """

    exit_code = 5

    def __init__(self, message: str, *, timeout_s: float, step: str, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.timeout_s = timeout_s
        self.step = step
