"""BM25 over an index: scores are those of the formula, whatever the segments and the history."""

from __future__ import annotations

import math
import random
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from retriever import Document, Index, Limits
from retriever.documents.words import Term, terms_of
from retriever.search import lexical, postings
from retriever.search.inversion import inverted, merged
from retriever.search.lexical import Matches
from retriever.storage.catalog import ChunkText
from retriever.testing import HashEncoder

WORDS = ["pump", "valve", "oil", "leak", "pressure", "seal", "rotor", "圧力", "hose", "ERR_CONN_42"]


def texts(count: int, seed: int = 0) -> list[Document]:
    rng = random.Random(seed)
    return [
        Document(
            " ".join(rng.choices(WORDS, k=rng.randint(1, 30))), id=f"d{n:03}", title=f"Page {n % 7}"
        )
        for n in range(count)
    ]


def terms(*words: str) -> list[Term]:
    return [Term((word,)) for word in words]


QUESTION = [*terms("pump", "oil", "7", "rotor", "nowhere"), Term(("seal", "hose"), 0.5)]


def answers(index: Index, asked: Sequence[Term] = QUESTION) -> tuple[dict[str, float], list[float]]:
    """Return the score of each document that matches, and the idf of each term."""
    with index._pool.transaction() as connection:
        view = index._views.at(connection)
        found = lexical.matches(view, connection, asked, view.live)
        assert (np.diff(found.ids) > 0).all()
        names = dict(
            connection.execute(
                "SELECT c.id, d.id FROM chunks c JOIN documents d ON pk = document_pk"
            )
        )
        scores = zip(found.ids.tolist(), found.scores.tolist(), strict=True)
        return {names[one]: score for one, score in scores}, found.idf.tolist()


def by_the_formula(documents: Sequence[Document], asked: Sequence[Term]) -> dict[str, float]:
    counts = {
        d.id or "": Counter([*terms_of(d.text, None), *terms_of(d.title or "", None)])
        for d in documents
    }
    mean = sum(c.total() for c in counts.values()) / len(counts)
    scores: dict[str, float] = {}
    for term in asked:
        tfs = {d: sum(c[form] for form in term.alternatives) for d, c in counts.items()}
        df = sum(tf > 0 for tf in tfs.values())
        idf = math.log(1 + (len(counts) - df + 0.5) / (df + 0.5))
        for d, tf in tfs.items():
            if tf:
                norm = 1.2 * (1 - 0.75 + 0.75 * counts[d].total() / mean)
                gained = term.weight * idf * 2.2 * tf / (tf + norm)
                scores[d] = scores.get(d, 0.0) + gained
    return scores


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.index"


@pytest.fixture
def index(path: Path) -> Iterator[Index]:
    with Index.open(path, model=HashEncoder(), limits=Limits(tail_texts=10)) as opened:
        yield opened


def test_scores_are_those_of_the_formula(index: Index):
    documents = texts(60)
    index.add(documents)
    found, _ = answers(index)
    assert found == pytest.approx(by_the_formula(documents, QUESTION), rel=1e-12)
    few = terms("7")  # few rows have it: another way of adding up
    assert answers(index, few)[0] == pytest.approx(by_the_formula(documents, few), rel=1e-12)


def test_equal_documents_give_equal_scores_however_they_came_into_the_index(tmp_path: Path):
    documents = texts(60)
    with Index.open(tmp_path / "bulk.index", model=HashEncoder()) as bulk:
        bulk.add(documents)
        expected = answers(bulk)
    limits = Limits(tail_texts=4, tail_rows=9, merge_segments=3)
    with Index.open(tmp_path / "by-and-by.index", model=HashEncoder(), limits=limits) as other:
        rng = random.Random(7)
        for n, document in enumerate(documents):
            other.add([document, {"id": f"x{n}", "text": f"pump {rng.choice(WORDS)} gone {n}"}])
            if n % 3 == 0:
                answers(other)
            if n % 2:
                other.delete([f"x{n}", f"x{n - 1}"])
        assert answers(other) == expected
        assert other.verify(deep=True).ok
        other.backup(tmp_path / "copy.index")
        other.compact()
        assert answers(other) == expected
        assert other.verify(deep=True).ok
    with Index.open(tmp_path / "copy.index", model=HashEncoder()) as copy:
        assert answers(copy) == expected


def test_only_allowed_rows_match_and_their_scores_do_not_depend_on_which(index: Index):
    index.add(texts(60))
    index.add(texts(7, seed=3)[:3])
    scores, _ = answers(index)
    with index._pool.transaction() as connection:
        view = index._views.at(connection)
        every = lexical.matches(view, connection, QUESTION, view.live)
        allowed = view.live.only(every.ids[::3])
        some = lexical.matches(view, connection, QUESTION, allowed)
        assert some.ids.tolist() == every.ids[::3].tolist()
        assert some.scores.tolist() == every.scores[::3].tolist()
        with_oil = lexical.rows_with(view, connection, Term(("oil", "rotor")), allowed)
        expected = lexical.matches(view, connection, [Term(("oil", "rotor"))], allowed).ids
        assert with_oil.tolist() == expected.tolist() != []
    assert len(scores) > 50


def test_terms_are_counted_and_listed_by_their_beginnings_over_live_rows_only(index: Index):
    index.add([{"id": f"d{n}", "text": f"serial sn{n:02} pump"} for n in range(30)])
    index.delete(["d3", "d29"])
    with index._pool.transaction() as connection:
        view = index._views.at(connection)
        counts = lexical.frequencies(view, connection, ["pump", "sn03", "sn04", "", "\ud800"])
        assert counts.tolist() == [28, 0, 1, 0, 0]
        found = lexical.terms_with_prefix(view, connection, "sn0", 20)
        assert found == [f"sn{n:02}" for n in range(10) if n != 3]
        assert lexical.terms_with_prefix(view, connection, "sn", 4) == found[:5]


def test_merging_gives_the_bytes_that_the_texts_give(tmp_path: Path):
    rows = [
        ChunkText(
            n + 1,
            d.text * (300 if n == 5 else 1),
            d.title,
            ("圧力", "Seal"),
            ["en", None, "de"][n % 3],
        )
        for n, d in enumerate(texts(50))
    ]
    kept = np.arange(20) % 3 > 0
    parts = [(inverted(rows[:20]), kept), (inverted([]), None), (inverted(rows[20:]), None)]
    fresh = inverted([*(row for row, keep in zip(rows, kept, strict=False) if keep), *rows[20:]])
    for name, given in (("merged", merged(parts)), ("fresh", fresh)):
        with (tmp_path / name).open("wb") as file:
            postings.write(given, file.write)
    assert (tmp_path / "merged").read_bytes() == (tmp_path / "fresh").read_bytes()
    opened = postings.read(tmp_path / "fresh")
    assert opened.problems() == []
    assert opened.find("圧力".encode()).positions.tolist() == list(range(len(opened)))
    assert opened.languages == ("", "de", "en")
    with (tmp_path / "empty").open("wb") as file:
        postings.write(inverted([]), file.write)
    assert len(postings.read(tmp_path / "empty")) == 0


def test_an_index_without_lexical_segments_answers_from_its_texts(index: Index, path: Path):
    index.add(texts(40))
    expected = answers(index)
    index._views.forget()
    for file in path.glob("*.terms"):
        file.unlink()
    with pytest.raises(lexical.StaleView):  # a merge may have replaced it
        answers(index)
    assert answers(index) == expected
    index.add(Document("", id="another"))
    assert index.verify(deep=True).ok
    assert list(path.glob("*.terms"))


def test_a_search_by_vectors_never_reads_postings(index: Index):
    index.add(texts(40))
    index.search("pump", k=3, mode="dense")
    view = index._views.newest
    assert view is not None
    assert index._views._lexical_views is None


def test_nothing_is_asked_of_nothing(index: Index):
    with index._pool.transaction() as connection:
        view = index._views.at(connection)
        found = lexical.matches(view, connection, QUESTION, view.live)
        assert isinstance(found, Matches)
        assert (len(found.ids), len(found.scores), len(found.idf)) == (0, 0, 6)
        assert view.lexical(connection).languages == frozenset()


def test_answers_in_many_threads_are_each_of_one_commit(path: Path):
    """While a writer adds, deletes and merges, each answer is that of some whole batch."""
    limits = Limits(tail_texts=3, merge_segments=2)
    stop = threading.Event()
    failures: list[object] = []
    with Index.open(path, model=HashEncoder(), limits=limits) as writer:
        writer.add([{"id": f"a{n}", "text": "pump one"} for n in range(4)])

        def ask() -> None:
            try:
                while not stop.is_set():
                    try:
                        scores, _ = answers(writer, terms("pump"))
                    except lexical.StaleView:
                        continue
                    if len(scores) % 4 or len(set(scores.values())) != 1:
                        failures.append(scores)
            except Exception as exc:
                failures.append(exc)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for batch in range(16):
            writer.add([{"id": f"b{batch}-{n}", "text": "pump two"} for n in range(4)])
            if batch % 3 == 2:
                writer.delete([f"b{batch - 1}-{n}" for n in range(4)])
            if batch == 11:
                writer.compact()
        stop.set()
        for thread in threads:
            thread.join()
        assert failures == []
        assert len(answers(writer, terms("pump"))[0]) == 4 + 4 * (16 - 5)
