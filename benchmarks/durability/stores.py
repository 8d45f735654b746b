"""The stores that are compared, each behind the same few calls.

Every adapter uses the calls and the defaults that its project documents for a local, embedded
store. Vectors are supplied, so no store loads a model. Packages are imported when a store is
opened; which are needed is in `peers.txt`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sqlite3
import uuid
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeAlias

import numpy as np

Entry: TypeAlias = "tuple[str, str, np.ndarray]"

DIMENSION = 384  # as all-MiniLM-L6-v2 has
NAMESPACE = uuid.UUID(int=0)


class Store(Protocol):
    """What the tests ask of a store.

    Attributes:
        name: For people.
        package: The distribution whose version is reported.
        needs: Modules that must be importable.
        check: Its own way to verify everything stored, as its users would ask; empty where it
            has none.
    """

    name: str
    package: str
    needs: tuple[str, ...]
    check: str

    def open(self, path: Path) -> None:
        """Open what is at `path`, or create it."""

    def add(self, batch: Sequence[Entry]) -> None:
        """Add or replace documents; returning is the acknowledgement."""

    def delete(self, ids: Sequence[str]) -> None:
        """Delete documents; returning is the acknowledgement."""

    def read(self) -> dict[str, str]:
        """Return every document's text."""

    def search(self, vector: np.ndarray, k: int) -> list[str]:
        """Return the ids of the k most similar documents, best first."""

    def close(self) -> None:
        """Close the store as its users would."""

    def verify(self, path: Path) -> list[str]:
        """Return the problems that `check` finds in the closed store."""


class _Plain:
    """What stores have in common: no check of their own."""

    name = ""
    package = ""
    needs: tuple[str, ...] = ()
    check = ""

    def verify(self, path: Path) -> list[str]:
        return []


class _Retriever(_Plain):
    """This project: documents with embeddings of their own, and an encoder that is never asked."""

    name = "retriever"
    package = "retriever"
    needs = ("retriever", "faiss")
    check = "verify"

    def open(self, path: Path) -> None:
        from retriever import Index
        from retriever.testing import HashEncoder

        self._index = Index.open(path, model=HashEncoder(DIMENSION), chunking="document")

    def add(self, batch: Sequence[Entry]) -> None:
        from retriever import Document

        self._index.add([Document(text, name, embedding=vector) for name, text, vector in batch])

    def delete(self, ids: Sequence[str]) -> None:
        self._index.delete(ids)

    def read(self) -> dict[str, str]:
        return {document.id or "": document.text for document in self._index.documents()}

    def search(self, vector: np.ndarray, k: int) -> list[str]:
        return [hit.document_id for hit in self._index.search(vector=vector, k=k)]

    def close(self) -> None:
        self._index.close()

    def verify(self, path: Path) -> list[str]:
        from retriever import Index

        return [str(problem) for problem in Index.verify_path(path).problems]


class _Lance(_Plain):
    """LanceDB: one table, `merge_insert` for upserts, no vector index (a full scan, exact)."""

    name = "LanceDB"
    package = "lancedb"
    needs = ("lancedb",)

    def open(self, path: Path) -> None:
        import lancedb
        import pyarrow as pa

        self._database = lancedb.connect(path)
        if "documents" in self._database.list_tables().tables:
            self._table = self._database.open_table("documents")
            return
        vector = pa.list_(pa.float32(), DIMENSION)
        fields = [("id", pa.string()), ("text", pa.string()), ("vector", vector)]
        self._table = self._database.create_table("documents", schema=pa.schema(fields))

    def add(self, batch: Sequence[Entry]) -> None:
        rows = [{"id": name, "text": text, "vector": vector} for name, text, vector in batch]
        upsert = self._table.merge_insert("id")
        upsert.when_matched_update_all().when_not_matched_insert_all().execute(rows)

    def delete(self, ids: Sequence[str]) -> None:
        self._table.delete(f"id IN ({', '.join(repr(name) for name in ids)})")

    def read(self) -> dict[str, str]:
        rows = self._table.to_arrow().select(["id", "text"]).to_pylist()
        return _unique((row["id"], row["text"]) for row in rows)

    def search(self, vector: np.ndarray, k: int) -> list[str]:
        rows = self._table.search(vector).select(["id"]).limit(k).to_list()
        return [row["id"] for row in rows]

    def close(self) -> None:
        self._table = self._database = None


class _Chroma(_Plain):
    """Chroma's `PersistentClient` with every default: HNSW files from 1,000 documents on."""

    name = "Chroma"
    package = "chromadb"
    needs = ("chromadb",)
    settings: ClassVar[dict[str, Any]] = {"space": "cosine"}

    def open(self, path: Path) -> None:
        os.environ.setdefault("ANONYMIZED_TELEMETRY", "False")
        import chromadb

        self._client = chromadb.PersistentClient(str(path))
        self._collection = self._client.get_or_create_collection(
            "documents", embedding_function=None, configuration={"hnsw": self.settings}
        )

    def add(self, batch: Sequence[Entry]) -> None:
        self._collection.upsert(
            ids=[name for name, _, _ in batch],
            documents=[text for _, text, _ in batch],
            embeddings=[vector for _, _, vector in batch],
        )

    def delete(self, ids: Sequence[str]) -> None:
        self._collection.delete(ids=list(ids))

    def read(self) -> dict[str, str]:
        everything = self._collection.get(include=["documents"])
        return _unique(zip(everything["ids"], everything["documents"], strict=True))

    def search(self, vector: np.ndarray, k: int) -> list[str]:
        found = self._collection.query(query_embeddings=[vector], n_results=k, include=[])
        return list(found["ids"][0])

    def close(self) -> None:
        self._client.close()


class _ChromaOften(_Chroma):
    """Chroma with a documented setting, so that 300 documents are enough to have HNSW files.

    With the defaults a small collection lives in SQLite and memory alone, and a few seconds of
    writing save the HNSW files a few times at most; this is the same code, exercised more.
    """

    name = "Chroma with sync_threshold 100"
    settings: ClassVar[dict[str, Any]] = {"space": "cosine", "sync_threshold": 100}


class _Qdrant(_Plain):
    """Qdrant's local mode, `QdrantClient(path=…)`; its server is another program, not tested."""

    name = "Qdrant local"
    package = "qdrant-client"
    needs = ("qdrant_client",)

    def open(self, path: Path) -> None:
        from qdrant_client import QdrantClient, models

        self._client = QdrantClient(path=str(path))
        self._models = models
        if not self._client.collection_exists("documents"):
            vectors = models.VectorParams(size=DIMENSION, distance=models.Distance.COSINE)
            self._client.create_collection("documents", vectors_config=vectors)

    def add(self, batch: Sequence[Entry]) -> None:
        # Ids must be integers or UUIDs; the string goes into the payload, as the manual says.
        points = [
            self._models.PointStruct(
                id=_uuid(name), vector=vector.tolist(), payload={"id": name, "text": text}
            )
            for name, text, vector in batch
        ]
        self._client.upsert("documents", points=points)

    def delete(self, ids: Sequence[str]) -> None:
        chosen = self._models.PointIdsList(points=[_uuid(name) for name in ids])
        self._client.delete("documents", points_selector=chosen)

    def read(self) -> dict[str, str]:
        rows: list[tuple[str, str]] = []
        offset = None
        while True:
            points, offset = self._client.scroll("documents", limit=1_000, offset=offset)
            rows += [(point.payload["id"], point.payload["text"]) for point in points]
            if offset is None:
                return _unique(rows)

    def search(self, vector: np.ndarray, k: int) -> list[str]:
        found = self._client.query_points("documents", query=vector.tolist(), limit=k)
        return [point.payload["id"] for point in found.points]

    def close(self) -> None:
        self._client.close()


class _Txtai(_Plain):
    """txtai with content in SQLite, external vectors, and `save` after every change.

    txtai promises nothing before `save`, so a change is acknowledged when `save` returns. The
    index is saved where it was loaded from, as its examples do.
    """

    name = "txtai"
    package = "txtai"
    needs = ("txtai",)

    def open(self, path: Path) -> None:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        from txtai import Embeddings

        self._path = str(path)
        self._vectors: dict[str, np.ndarray] = {}

        def look_up(texts: Sequence[str]) -> np.ndarray:
            return np.stack([self._vectors[text] for text in texts])

        self._embeddings = Embeddings(method="external", transform=look_up, content=True)
        if self._embeddings.exists(self._path):
            self._embeddings.load(self._path, config={"transform": look_up})

    def add(self, batch: Sequence[Entry]) -> None:
        self._vectors = {text: vector for _, text, vector in batch}
        self._embeddings.upsert([(name, text, None) for name, text, _ in batch])
        self._embeddings.save(self._path)

    def delete(self, ids: Sequence[str]) -> None:
        self._embeddings.delete(list(ids))
        self._embeddings.save(self._path)

    def read(self) -> dict[str, str]:
        count = self._embeddings.count()
        if not count:
            return {}
        # Twice the count, so that rows which the vectors know nothing of are seen as well.
        rows = self._embeddings.search("SELECT id, text FROM txtai", limit=2 * count)
        return _unique((row["id"], row["text"]) for row in rows)

    def search(self, vector: np.ndarray, k: int) -> list[str]:
        self._vectors = {"query": vector}
        return [row["id"] for row in self._embeddings.search("query", limit=k)]

    def close(self) -> None:
        self._embeddings.close()


class _Tutorial(_Plain):
    """What tutorials teach: rows in SQLite, and a faiss index written in place beside them."""

    name = "SQLite + faiss tutorial"
    package = "faiss-cpu"
    needs = ("faiss",)

    def open(self, path: Path) -> None:
        import faiss

        path.mkdir(parents=True, exist_ok=True)
        self._faiss = faiss
        self._file = path / "vectors.faiss"
        self._rows = sqlite3.connect(path / "rows.db")
        self._rows.execute(
            "CREATE TABLE IF NOT EXISTS documents "
            "(number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE, text TEXT)"
        )
        self._index = (
            faiss.read_index(str(self._file))
            if self._file.exists()
            else faiss.IndexIDMap2(faiss.IndexFlatIP(DIMENSION))
        )

    def add(self, batch: Sequence[Entry]) -> None:
        self._remove([name for name, _, _ in batch])
        numbers = [
            self._rows.execute(
                "INSERT INTO documents (id, text) VALUES (?, ?)", (name, text)
            ).lastrowid
            for name, text, _ in batch
        ]
        self._rows.commit()
        vectors = np.stack([vector for _, _, vector in batch])
        self._index.add_with_ids(vectors, np.array(numbers, np.int64))
        self._faiss.write_index(self._index, str(self._file))

    def delete(self, ids: Sequence[str]) -> None:
        self._remove(ids)
        self._rows.commit()
        self._faiss.write_index(self._index, str(self._file))

    def _remove(self, ids: Sequence[str]) -> None:
        wanted = json.dumps(list(ids))
        chosen = "id IN (SELECT value FROM json_each(?))"
        rows = self._rows.execute(f"SELECT number FROM documents WHERE {chosen}", (wanted,))
        self._index.remove_ids(np.array([number for (number,) in rows], np.int64))
        self._rows.execute(f"DELETE FROM documents WHERE {chosen}", (wanted,))

    def read(self) -> dict[str, str]:
        return dict(self._rows.execute("SELECT id, text FROM documents"))

    def search(self, vector: np.ndarray, k: int) -> list[str]:
        _, numbers = self._index.search(vector[None, :], k)
        query = "SELECT id FROM documents WHERE number = ?"
        rows = [self._rows.execute(query, (int(number),)).fetchone() for number in numbers[0]]
        return [row[0] for row in rows if row is not None]

    def close(self) -> None:
        self._rows.close()


OURS: type[Store] = _Retriever
STORES: tuple[type[Store], ...] = (
    OURS,
    _Lance,
    _Chroma,
    _ChromaOften,
    _Qdrant,
    _Txtai,
    _Tutorial,
)


def store_named(name: str) -> Store:
    """Return a new adapter."""
    return next(store for store in STORES if store.name == name)()


def missing(store: type[Store]) -> str:
    """Return the module that a store needs and that is not installed, or an empty string."""
    return next((name for name in store.needs if importlib.util.find_spec(name) is None), "")


def label(store: type[Store]) -> str:
    """Return a store's name with its version."""
    try:
        found = version(store.package)
    except PackageNotFoundError:
        found = "?"
    return f"{store.name} ({store.package} {found})"


def _unique(rows: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the rows as a dictionary; one that is there twice gets a text that is nobody's."""
    found: dict[str, str] = {}
    for name, text in rows:
        if name in found:
            text = f"{found[name]}\n(and again)\n{text}"
        found[name] = text
    return found


def _uuid(name: str) -> str:
    return str(uuid.uuid5(NAMESPACE, name))
