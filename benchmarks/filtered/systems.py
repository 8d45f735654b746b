"""The systems whose filtered search is compared, each driven as its documentation says.

Every system gets the same vectors and the same whole numbers as metadata: `bucket` (0 to 999, at
random) and `topic` (a cluster of the vectors). A filter is a field and a half-open range of it.
Packages are imported when a system is loaded; each runs in a process of its own, by
`benchmarks.encode.child`.
"""

from __future__ import annotations

import json
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

FIELDS = ("bucket", "topic")


class System:
    """A system that is filled from files and asked with a filter.

    Attributes:
        needs: Modules that must be importable.
    """

    needs: tuple[str, ...] = ()

    def fill(self, corpus: str, vectors: str, questions: str, folder: str) -> dict[str, Any]:
        """Store everything, and build what the system builds; return the seconds that takes."""
        self.rows = json.loads(Path(corpus).read_text("utf-8"))
        self.vectors = np.load(vectors)
        self.questions = np.load(questions)
        self.folder = Path(folder)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        began = time.perf_counter()
        self.build()
        return {"seconds": time.perf_counter() - began}

    def ask(self, asked: list[Any], k: int) -> dict[str, Any]:
        """Answer questions, each a number, a field and a range; return ids and seconds of each."""
        ids, seconds = [], []
        for number, field, low, high in asked:
            began = time.perf_counter()
            found = self.search(self.questions[number], field, low, high, k)
            seconds.append(time.perf_counter() - began)
            ids.append([int(one) for one in found])
        return {"ids": ids, "seconds": seconds}

    def build(self) -> None:
        """Store the rows."""
        raise NotImplementedError

    def search(self, vector: Any, field: str, low: int, high: int, k: int) -> list[Any]:
        """Return the positions of the best rows of a range, best first."""
        raise NotImplementedError


class _Retriever(System):
    needs = ("retriever",)

    def build(self) -> None:
        from retriever import Document, Index

        self._index = Index.open(self.folder / "r.index", dimension=self.vectors.shape[1])
        self._index.add(
            [
                Document(
                    row["text"],
                    id=str(number),
                    embedding=vector,
                    metadata={field: row[field] for field in FIELDS},
                )
                for number, (row, vector) in enumerate(zip(self.rows, self.vectors, strict=True))
            ]
        )

    def search(self, vector: Any, field: str, low: int, high: int, k: int) -> list[Any]:
        given = {field: {"$gte": low, "$lt": high}}
        return [hit.document_id for hit in self._index.search(vector=vector, k=k, filter=given)]


class _Chroma(System):
    needs = ("chromadb",)

    def build(self) -> None:
        import chromadb

        client = chromadb.PersistentClient(str(self.folder / "chroma"))
        self._rows = client.create_collection("rows", metadata={"hnsw:space": "cosine"})
        for start in range(0, len(self.rows), 1000):
            part = self.rows[start : start + 1000]
            self._rows.add(
                ids=[str(start + n) for n in range(len(part))],
                embeddings=self.vectors[start : start + len(part)],
                documents=[row["text"] for row in part],
                metadatas=[{field: row[field] for field in FIELDS} for row in part],
            )

    def search(self, vector: Any, field: str, low: int, high: int, k: int) -> list[Any]:
        where = {"$and": [{field: {"$gte": low}}, {field: {"$lt": high}}]}
        return self._rows.query(query_embeddings=[vector], n_results=k, where=where)["ids"][0]


class _Lance(System):
    """Without a vector index, or with one as it comes; the filter is applied before by default."""

    needs = ("lancedb",)

    def __init__(
        self, prefilter: bool | None = None, *, indexed: bool = False, refine: int = 0
    ) -> None:
        self._where: dict[str, Any] = {} if prefilter is None else {"prefilter": prefilter}
        self._indexed, self._refine = indexed, refine

    def build(self) -> None:
        import lancedb
        import pyarrow as pa

        size = self.vectors.shape[1]
        flat = pa.array(self.vectors.ravel(), pa.float32())
        columns = {
            "id": pa.array(range(len(self.rows)), pa.int64()),
            "vector": pa.FixedSizeListArray.from_arrays(flat, size),
            **{field: pa.array([row[field] for row in self.rows], pa.int64()) for field in FIELDS},
        }
        self._table = lancedb.connect(str(self.folder)).create_table("rows", pa.table(columns))
        if self._indexed:
            self._table.create_index(metric="cosine", vector_column_name="vector")
            for field in FIELDS:
                self._table.create_scalar_index(field)

    def search(self, vector: Any, field: str, low: int, high: int, k: int) -> list[Any]:
        where = f"{field} >= {low} AND {field} < {high}"
        asked = self._table.search(vector).distance_type("cosine").where(where, **self._where)
        if self._refine:
            asked = asked.nprobes(self._refine).refine_factor(self._refine)
        return [row["id"] for row in asked.select(["id", "_distance"]).limit(k).to_list()]


class _QdrantEdge(System):
    needs = ("qdrant_edge",)

    def build(self) -> None:
        import qdrant_edge as q

        self._q = q
        size = self.vectors.shape[1]
        config = q.EdgeConfig(vectors=q.EdgeVectorParams(size=size, distance=q.Distance.Cosine))
        self._shard = q.EdgeShard.create(str(self.folder / "shard"), config)
        for field in FIELDS:
            schema = q.PayloadSchemaType.Integer
            self._shard.update(q.UpdateOperation.create_field_index(field, schema))
        for start in range(0, len(self.rows), 1000):
            points = [
                q.Point(n, self.vectors[n].tolist(), {f: self.rows[n][f] for f in FIELDS})
                for n in range(start, min(start + 1000, len(self.rows)))
            ]
            self._shard.update(q.UpdateOperation.upsert_points(points))
        self._shard.optimize()

    def search(self, vector: Any, field: str, low: int, high: int, k: int) -> list[Any]:
        q = self._q
        condition = q.FieldCondition(key=field, range=q.RangeFloat(gte=low, lt=high))
        request = q.QueryRequest(
            limit=k, query=q.Query.Nearest(vector.tolist()), filter=q.Filter(must=[condition])
        )
        return [point.id for point in self._shard.query(request)]


class _Zvec(System):
    needs = ("zvec",)

    def build(self) -> None:
        import zvec

        self._zvec = zvec
        schema = zvec.CollectionSchema(
            name="rows",
            fields=[
                zvec.FieldSchema(
                    field,
                    zvec.DataType.INT64,
                    index_param=zvec.InvertIndexParam(enable_range_optimization=True),
                )
                for field in FIELDS
            ],
            vectors=zvec.VectorSchema(
                "vector",
                zvec.DataType.VECTOR_FP32,
                self.vectors.shape[1],
                index_param=zvec.HnswIndexParam(metric_type=zvec.MetricType.COSINE),
            ),
        )
        self._rows = zvec.create_and_open(path=str(self.folder / "zvec"), schema=schema)
        for start in range(0, len(self.rows), 1000):
            self._rows.insert(
                [
                    zvec.Doc(
                        id=str(n),
                        fields={field: self.rows[n][field] for field in FIELDS},
                        vectors={"vector": self.vectors[n].tolist()},
                    )
                    for n in range(start, min(start + 1000, len(self.rows)))
                ]
            )
        self._rows.optimize()

    def search(self, vector: Any, field: str, low: int, high: int, k: int) -> list[Any]:
        query = self._zvec.Query("vector", vector=vector.tolist())
        where = f"{field} >= {low} AND {field} < {high}"
        return [doc.id for doc in self._rows.query(query, topk=k, filter=where, output_fields=[])]


class _Txtai(System):
    """SQL over the best candidates; how many is said in `similar`, otherwise ten times k."""

    needs = ("txtai",)

    def __init__(self, candidates: int | None = None) -> None:
        self._candidates = "" if candidates is None else f", {candidates}"

    def build(self) -> None:
        from txtai import Embeddings

        def transform(given: list[Any]) -> Any:
            return np.stack(
                [self.questions[int(one)] if isinstance(one, str) else one for one in given]
            )

        self._rows = Embeddings(method="external", transform=transform, content=True)
        self._rows.index(
            (n, {"object": self.vectors[n], **{f: row[f] for f in FIELDS}}, None)
            for n, row in enumerate(self.rows)
        )
        self._numbers = {one.tobytes(): n for n, one in enumerate(self.questions)}

    def search(self, vector: Any, field: str, low: int, high: int, k: int) -> list[Any]:
        number = self._numbers[vector.tobytes()]
        query = (
            f"select id, score from txtai where similar('{number}'{self._candidates}) "
            f"and {field} >= {low} and {field} < {high} limit {k}"
        )
        return [row["id"] for row in self._rows.search(query, k)]


SYSTEMS = {
    "retriever": _Retriever,
    "chroma": _Chroma,
    "lancedb, no index": _Lance,
    "lancedb, index": partial(_Lance, indexed=True),
    "lancedb, index, refined 50": partial(_Lance, indexed=True, refine=50),
    "lancedb, index, postfilter": partial(_Lance, False, indexed=True),
    "qdrant edge": _QdrantEdge,
    "zvec": _Zvec,
    "txtai": _Txtai,
    "txtai, 1,000 candidates": partial(_Txtai, 1000),
}
