"""Parse plain text: every file that decodes and has no parser of its own."""

from __future__ import annotations

from typing import Any

from retriever.documents.decoding import Decoded, decode
from retriever.types import Document


def parse_text(data: bytes, path: str) -> list[Document]:
    """Return a plain text as one document.

    Raises:
        UnsupportedFormat: If the file is binary.
        UnreadableFile: If its encoding is broken or not recognised.
    """
    decoded = decode(data, path)
    return [Document(decoded.text, metadata=encoding_metadata(decoded))]


def encoding_metadata(decoded: Decoded) -> dict[str, Any]:
    """Return metadata on how a file was decoded; none if it is valid UTF-8."""
    if decoded.doubt:
        return {"encoding": decoded.encoding, "encoding_doubt": decoded.doubt}
    return {} if decoded.encoding == "utf-8" else {"encoding": decoded.encoding}
