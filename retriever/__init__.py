"""Semantic search over a folder of documents, on one machine.

>>> from retriever import Index, Document
>>> with Index.open("water.index", model="all-MiniLM-L6-v2") as index:
...     report = index.add_files("data/handbook/water")
...     for hit in index.search("The pump trips twice, may I press again?", k=1):
...         print(f"{hit.score:.2f}", hit.citation)
0.42 data/handbook/water/tarn-lift-pump.md:18

Importing this package imports nothing heavy; each name below is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retriever.config import Chunking, Limits, SearchOptions
    from retriever.encoders.protocol import (
        CountsTokens,
        Encoder,
        HasCacheKey,
        HasName,
        HasPrecision,
        Reranker,
        Tokenizer,
        Tokens,
    )
    from retriever.errors import (
        DataLoss,
        DocumentNotFound,
        FormatMismatch,
        IndexBusy,
        IndexClosed,
        IndexCorrupt,
        IndexExists,
        IndexLocked,
        IndexNotFound,
        IndexReadOnly,
        IngestError,
        InvalidConfig,
        InvalidDocument,
        InvalidEvaluation,
        InvalidQuery,
        LimitExceeded,
        MissingDependency,
        ModelError,
        ModelMismatch,
        ModelUnavailable,
        NotFound,
        RetrieverError,
        StorageError,
        UnreadableFile,
        UnsafeModelFile,
        UnsupportedFormat,
        UsageError,
        WriteFailed,
    )
    from retriever.index import Index
    from retriever.reports import (
        BackupReport,
        Check,
        CompactReport,
        FileCounts,
        IndexStatus,
        IngestReport,
        LockHolder,
        Loss,
        LostDocument,
        Problem,
        RepairReport,
        SegmentInfo,
        TokenCounts,
        VerifyReport,
    )
    from retriever.types import (
        Chunk,
        Citation,
        Document,
        FileOutcome,
        Heading,
        Hit,
        Ledger,
        Metadata,
        Progress,
        ProgressCallback,
        Results,
        Span,
        Unfamiliar,
        Vector,
    )

__version__ = "0.0.1"

_HOMES = {
    "retriever.index": ("Index",),
    "retriever.config": ("Chunking", "Limits", "SearchOptions"),
    "retriever.encoders.protocol": (
        "CountsTokens",
        "Encoder",
        "HasCacheKey",
        "HasName",
        "HasPrecision",
        "Reranker",
        "Tokenizer",
        "Tokens",
    ),
    "retriever.reports": (
        "BackupReport",
        "Check",
        "CompactReport",
        "FileCounts",
        "IndexStatus",
        "IngestReport",
        "LockHolder",
        "Loss",
        "LostDocument",
        "Problem",
        "RepairReport",
        "SegmentInfo",
        "TokenCounts",
        "VerifyReport",
    ),
    "retriever.types": (
        "Chunk",
        "Citation",
        "Document",
        "FileOutcome",
        "Heading",
        "Hit",
        "Ledger",
        "Metadata",
        "Progress",
        "ProgressCallback",
        "Results",
        "Span",
        "Unfamiliar",
        "Vector",
    ),
    "retriever.errors": (
        "DataLoss",
        "DocumentNotFound",
        "FormatMismatch",
        "IndexBusy",
        "IndexClosed",
        "IndexCorrupt",
        "IndexExists",
        "IndexLocked",
        "IndexNotFound",
        "IndexReadOnly",
        "IngestError",
        "InvalidConfig",
        "InvalidDocument",
        "InvalidEvaluation",
        "InvalidQuery",
        "LimitExceeded",
        "MissingDependency",
        "ModelError",
        "ModelMismatch",
        "ModelUnavailable",
        "NotFound",
        "RetrieverError",
        "StorageError",
        "UnreadableFile",
        "UnsafeModelFile",
        "UnsupportedFormat",
        "UsageError",
        "WriteFailed",
    ),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "BackupReport",
    "Check",
    "Chunk",
    "Chunking",
    "Citation",
    "CompactReport",
    "CountsTokens",
    "DataLoss",
    "Document",
    "DocumentNotFound",
    "Encoder",
    "FileCounts",
    "FileOutcome",
    "FormatMismatch",
    "HasCacheKey",
    "HasName",
    "HasPrecision",
    "Heading",
    "Hit",
    "Index",
    "IndexBusy",
    "IndexClosed",
    "IndexCorrupt",
    "IndexExists",
    "IndexLocked",
    "IndexNotFound",
    "IndexReadOnly",
    "IndexStatus",
    "IngestError",
    "IngestReport",
    "InvalidConfig",
    "InvalidDocument",
    "InvalidEvaluation",
    "InvalidQuery",
    "Ledger",
    "LimitExceeded",
    "Limits",
    "LockHolder",
    "Loss",
    "LostDocument",
    "Metadata",
    "MissingDependency",
    "ModelError",
    "ModelMismatch",
    "ModelUnavailable",
    "NotFound",
    "Problem",
    "Progress",
    "ProgressCallback",
    "RepairReport",
    "Reranker",
    "Results",
    "RetrieverError",
    "SearchOptions",
    "SegmentInfo",
    "Span",
    "StorageError",
    "TokenCounts",
    "Tokenizer",
    "Tokens",
    "Unfamiliar",
    "UnreadableFile",
    "UnsafeModelFile",
    "UnsupportedFormat",
    "UsageError",
    "Vector",
    "VerifyReport",
    "WriteFailed",
    "__version__",
]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(home), name)
    # Python calls this function only for names that the module lacks: once for each.
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
