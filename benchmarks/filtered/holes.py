"""Shows filters of other systems that lose hits or return others, each with a few rows.

    peers/bin/python -m benchmarks.filtered.holes

Run with the interpreter of `peers.txt`; a system that is not installed is named.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable

import numpy as np


def bm25s_mask() -> str:
    """A mask that allows one row, without the word; two hits are asked for."""
    import bm25s

    words = bm25s.BM25()
    texts = ["alpha beta", "alpha gamma", "delta epsilon"]
    words.index(bm25s.tokenize(texts, show_progress=False), show_progress=False)
    ids, scores = words.retrieve(
        bm25s.tokenize(["alpha"], show_progress=False),
        k=2,
        weight_mask=np.array([0.0, 0.0, 1.0]),
        show_progress=False,
    )
    return f"row 2 alone is allowed; returned: {ids[0].tolist()}, scores {scores[0].tolist()}"


def qdrant_edge_boolean() -> str:
    """A filter on a boolean that one of two points fulfils."""
    import qdrant_edge as q

    params = q.EdgeVectorParams(size=2, distance=q.Distance.Cosine)
    with tempfile.TemporaryDirectory() as folder:
        shard = q.EdgeShard.create(f"{folder}/shard", q.EdgeConfig(vectors=params))
        points = [q.Point(1, [1.0, 0.0], {"ok": True}), q.Point(2, [1.0, 0.1], {"ok": False})]
        shard.update(q.UpdateOperation.upsert_points(points))
        condition = q.FieldCondition(key="ok", match=q.MatchValue(True))
        found = shard.query(
            q.QueryRequest(
                limit=5, query=q.Query.Nearest([1.0, 0.0]), filter=q.Filter(must=[condition])
            )
        )
        shard.close()
    return f"point 1 has ok: true; MatchValue(True) returned: {[point.id for point in found]}"


def txtai_candidates() -> str:
    """A filter that only the farthest of 500 rows fulfils."""
    from txtai import Embeddings

    rows = Embeddings(
        method="external", transform=lambda given: np.array([[1.0, 0.0]] * len(given)), content=True
    )
    rows.index((n, {"object": np.array([1.0, n / 100]), "n": n}, None) for n in range(500))
    found = rows.search("select id from txtai where similar('x') and n >= 499 limit 10", 10)
    return f"row 499 alone is allowed; returned: {found}"


CASES: tuple[Callable[[], str], ...] = (bm25s_mask, qdrant_edge_boolean, txtai_candidates)


def main() -> int:
    for case in CASES:
        try:
            said = case()
        except ImportError as error:
            said = f"not installed ({error.name})"
        print(f"{case.__name__.replace('_', ' ')}: {said}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
