"""The public API of `Index`: what each call promises, on real SQLite and real faiss."""

from __future__ import annotations

import threading
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import retriever
from retriever import Chunking, Document, Index, Limits, Progress
from retriever.testing import HashEncoder


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "manuals.index"


@pytest.fixture
def limits() -> Limits:
    """Return the limits of `index`; a test that needs others is parametrized with them."""
    return Limits()


@pytest.fixture
def index(path: Path, limits: Limits):
    with Index.open(path, model=HashEncoder(), limits=limits) as opened:
        yield opened


PUMPS = [
    Document("Reset the pump by holding the red button for ten seconds.", id="pump"),
    Document("The ferry leaves at noon from the west pier.", id="ferry", title="Ferries"),
    Document("Bread is ready at six; the baker sleeps at eight.", id="bread", source="food.md"),
]


# --- opening -------------------------------------------------------------------------------------


def test_a_missing_path_without_a_model_is_index_not_found(path: Path):
    with pytest.raises(retriever.IndexNotFound, match=r"does not exist.*retriever index"):
        Index.open(path)
    assert not path.exists()


def test_a_file_or_a_foreign_directory_is_not_an_index(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(retriever.IndexNotFound, match="is a file"):
        Index.open(tmp_path / "notes.txt")
    with pytest.raises(retriever.IndexNotFound, match="has no index in it"):
        Index.open(tmp_path)
    with pytest.raises(retriever.InvalidConfig, match=r"not empty: it holds 'notes\.txt'"):
        Index.open(tmp_path, model=HashEncoder())
    assert [entry.name for entry in tmp_path.iterdir()] == ["notes.txt"]


def test_opening_an_existing_index_needs_no_model_and_writes_nothing(index: Index, path: Path):
    index.add(PUMPS)
    before = {p.name: p.stat().st_mtime_ns for p in path.iterdir() if "store.db-" not in p.name}
    with Index.open(path, read_only=True) as reader:
        assert reader.count() == 3
        assert reader.get("ferry").title == "Ferries"
        with pytest.raises(retriever.IndexReadOnly, match="read_only"):
            reader.add("more")
    after = {p.name: p.stat().st_mtime_ns for p in path.iterdir() if "store.db-" not in p.name}
    assert after == before


def test_another_model_is_refused_by_the_field_that_differs(index: Index, path: Path):
    with pytest.raises(retriever.ModelMismatch) as caught:
        Index.open(path, model=HashEncoder(dimension=64))
    assert caught.value.field == "dimension"
    assert "rebuild" in caught.value.hint


def test_changed_chunk_options_are_refused_by_name(index: Index, path: Path):
    with pytest.raises(retriever.InvalidConfig, match=r"chunking unit='window', not 'document'"):
        Index.open(path, model=HashEncoder(), chunking="document")
    with pytest.raises(retriever.InvalidConfig, match="overlap"):
        Index.open(path, chunking=Chunking(overlap=3))
    Index.open(path, chunking=Chunking()).close()


def test_a_closed_index_says_so(path: Path):
    index = Index.open(path, model=HashEncoder())
    index.close()
    index.close()
    for call in (index.count, index.status, lambda: index.search("x"), lambda: index.add("x")):
        with pytest.raises(retriever.IndexClosed, match="is closed"):
            call()


# --- adding --------------------------------------------------------------------------------------


def test_documents_dicts_and_strings_are_documents(index: Index):
    report = index.add([PUMPS[0], {"text": "The mill stands still.", "id": "mill"}, "Just text."])
    assert (report.added, report.replaced, report.chunks, report.commits) == (3, 0, 3, 1)
    digest = "7e1b7f8cf3e8ff3c9b35bdfd7bb0dcbbd8d1e6a4"
    ids = {document.id for document in index.documents()}
    assert {"pump", "mill"} < ids
    assert len(ids) == 3
    assert index.get("mill").text == "The mill stands still."
    assert index.get(digest) is None
    (text_id,) = ids - {"pump", "mill"}
    assert len(text_id) == 64


def test_adding_an_id_again_replaces_it_in_one_commit(index: Index):
    index.add(PUMPS)
    old = index.chunks("pump")[0].id
    report = index.add(Document("The pump was replaced by a new pump.", id="pump"))
    assert (report.added, report.replaced) == (0, 1)
    assert index.count() == 3
    assert index.get("pump").text.startswith("The pump was")
    assert index.chunks("pump")[0].id > old
    assert all(hit.chunk_id != old for hit in index.search("pump", k=10))


def test_an_equal_text_is_encoded_once(path: Path):
    encoder = HashEncoder()
    with Index.open(path, model=encoder) as index:
        first = index.add([{"text": "same words", "id": "a"}, {"text": "same words", "id": "b"}])
        again = index.add({"text": "same words", "id": "c"})
        assert (first.encoded, again.encoded) == (1, 0)
        hits = index.search("same words", k=3, fold=False)
        assert [hit.document_id for hit in hits] == ["a", "b", "c"]
        assert len({hit.score for hit in hits}) == 1


def test_the_same_id_twice_in_one_call_names_both_positions(index: Index):
    with pytest.raises(retriever.InvalidDocument, match=r"Documents 0 and 2 .* 'a'"):
        index.add([{"text": "x", "id": "a"}, "y", {"text": "z", "id": "a"}])
    assert index.count() == 0


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"commit_documents": 0}, "limits commit_documents is 0"),
        ({"encode_tokens": 1.5}, "limits encode_tokens is 1.5"),
        ({"commit_seconds": -1}, "limits commit_seconds is -1"),
        ({"queued_groups": True}, "limits queued_groups is True"),
        ({"tail_rows": "many"}, "limits tail_rows is 'many'"),
        ({"merge_segments": 1}, r"limits merge_segments is 1\..* from 2"),
        ({"idle_connections": -1}, "limits idle_connections is -1"),
        ({"idle_seconds": float("nan")}, "limits idle_seconds is nan"),
    ],
)
def test_limits_are_checked(limits: dict[str, object], message: str):
    with pytest.raises(retriever.InvalidConfig, match=message):
        Limits(**limits)


def test_limits_are_an_object_of_their_own(path: Path, index: Index):
    other = path.with_name("other.index")
    for call in (Index.open, partial(Index.adopt, path)):
        with pytest.raises(retriever.InvalidConfig, match=r"limits is \{.*Pass a Limits"):
            call(other, model=HashEncoder(), limits={"commit_documents": 1})
    with pytest.raises(retriever.InvalidConfig, match=r"limits is 5.*Pass a Limits"):
        Index.repair_path(path, limits=5)
    assert sorted(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("limits", [Limits(commit_documents=2)])
def test_a_delete_is_committed_in_parts(index: Index):
    index.add([{"id": f"{n}", "text": "x"} for n in range(7)])
    before = index.status().seq
    assert index.delete([f"{n}" for n in range(5)]) == 5
    assert index.status().seq == before + 3


def test_a_generator_keeps_the_prefix_before_a_bad_document(path: Path):
    def documents():
        yield from ("one", "two", "three")
        yield {"no": "text"}

    with Index.open(path, model=HashEncoder(), limits=Limits(commit_documents=2)) as index:
        with pytest.raises(retriever.InvalidDocument, match="unknown field 'no'") as caught:
            index.add(documents())
        assert caught.value.report.added == 2
        assert index.count() == 2


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3, "Document 1 is an int"),
        ({"id": "x"}, "has no 'text'"),
        ({"text": "x", "titel": "y"}, "Did you mean 'title'"),
        ({"text": None}, "The text of Document 1 is None. Pass a string"),
        ({"text": "broken \ud800"}, "lone surrogate.* at character 7"),
        ({"text": "x", "id": ""}, "has the id ''"),
        ({"text": "x", "metadata": {"n": float("nan")}}, "cannot be stored"),
        ({"text": "x", "metadata": {"n": 1 << 63}}, "cannot be stored"),
        ({"text": "x", "metadata": {"n": b"y"}}, "a bytes"),
        ({"text": "x", "metadata": {1: 2}}, "A key in the metadata"),
        ({"text": "x", "metadata": []}, "is a list"),
        ({"text": "x", "headings": "abc"}, "The headings of"),
        ({"text": "x", "headings": [[5, 1, "a"], [0, 1, "b"]]}, "The headings of"),
        ({"text": "x", "pages": 5}, "The pages of"),
        ({"text": "x", "pages": ["?"]}, "The pages of"),
        ({"text": "x", "embedding": [1.0, 2.0]}, r"has shape \(2,\)"),
        ({"text": "x", "embedding": [float("nan")] * 32}, "NaN or infinity"),
        ({"text": "x", "embedding": [0.0] * 32}, "all zeros"),
    ],
)
def test_an_unusable_document_is_refused_and_nothing_is_added(index: Index, value, message):
    with pytest.raises(retriever.InvalidDocument, match=message) as caught:
        index.add(["fine", value])
    assert caught.value.hint
    assert index.count() == 0


def test_metadata_nested_too_deep_is_refused_and_eight_is_not(index: Index):
    def nested(depth: int) -> dict:
        return {"a": nested(depth - 1)} if depth > 1 else {"a": 1}

    index.add({"text": "x", "id": "x", "metadata": nested(8)})
    assert index.get("x").metadata == nested(8)
    with pytest.raises(retriever.InvalidDocument, match="nested more than 8"):
        index.add({"text": "y", "metadata": nested(9)})


def test_metadata_comes_back_as_json_with_dates_in_utc(index: Index):
    moment = datetime(2024, 2, 29, 12, 30, tzinfo=UTC)
    given = {
        "year": 2024,
        "ok": True,
        "n": None,
        "tags": ["a", "ä"],
        "x": 0.1,
        "day": date(2024, 2, 29),
    }
    index.add({"text": "x", "id": "x", "metadata": {**given, "at": moment}})
    found = index.get("x").metadata
    assert found == {**given, "day": "2024-02-29", "at": "2024-02-29T12:30:00Z"}
    assert index.search("x")[0].metadata == found


def test_an_empty_document_is_kept_without_chunks_and_counted(index: Index):
    report = index.add([{"text": "", "id": "nothing"}, {"text": " \n\t", "id": "blank"}])
    assert (report.added, report.empty, report.chunks) == (2, 2, 0)
    assert index.get("nothing").text == ""
    assert index.get("blank").text == " \n\t"
    assert index.chunks("blank") == []
    assert index.status().empty_documents == 2
    assert len(index.search("anything")) == 0


def test_text_with_nul_emoji_and_mixed_line_ends_comes_back_exactly(index: Index):
    text = "a\x00b\r\nc\rd 👩‍👩‍👧 é\u202e end\n"
    index.add({"text": text, "id": "odd"})
    assert index.get("odd").text == text
    for chunk in index.chunks("odd"):
        assert text[slice(*chunk.span)] == chunk.text
        assert text.encode()[slice(*chunk.byte_span)].decode() == chunk.text


def test_a_supplied_embedding_is_searched_and_never_given_to_equal_text(path: Path):
    encoder = HashEncoder()
    vector = np.zeros(32, np.float32)
    vector[3] = 5.0
    with Index.open(path, model=encoder) as index:
        index.add(Document("the words", id="own", embedding=vector))
        index.add(Document("the words", id="encoded"))
        best = index.search(vector=vector, k=1)[0]
        assert (best.document_id, best.score) == ("own", 1.0)
        assert index.search("the words", k=1)[0].document_id == "encoded"
        assert index.rebuild().encoded == 0
        assert index.search(vector=vector, k=1)[0].document_id == "own"


def test_a_bad_encoder_is_refused_before_anything_is_stored(path: Path):
    class Broken(HashEncoder):
        def encode_documents(self, texts):
            vectors = super().encode_documents(texts)
            if "bad" in texts:
                vectors[0, 0] = np.nan
            return vectors

    with Index.open(path, model=Broken()) as index:
        with pytest.raises(retriever.ModelError, match="not finite"):
            index.add("bad")
        assert index.count() == 0


# --- searching -----------------------------------------------------------------------------------


def test_a_hit_carries_everything_that_a_citation_needs(index: Index):
    index.add(Document("# Pumps\n\nReset the pump.\n", id="p", source="docs/p.md", title="Pumps"))
    results = index.search("reset the pump", k=1)
    hit = results[0]
    assert (hit.rank, hit.document_id, hit.source) == (1, "p", "docs/p.md")
    assert hit.score == hit.scores["fused"]
    assert set(hit.scores) == {"dense", "lexical", "fused"}
    assert str(hit.citation) == f"docs/p.md:{hit.lines[0]}"
    assert hit.metadata == {"title": "Pumps"}
    assert results.exact
    assert results.timings.keys() == {"encode_s", "search_s", "fetch_s", "total_s"}
    assert set(hit.to_dict()) == {
        "rank", "score", "scores", "document_id", "chunk_id", "text", "metadata", "source",
        "span", "lines", "page", "heading", "citation", "duplicates", "also_in",
        "stale", "file_state",
    }  # fmt: skip


def test_search_returns_the_smaller_of_k_and_all_chunks(index: Index):
    assert list(index.search("x")) == []
    index.add(PUMPS)
    assert len(index.search("pump", k=2)) == 2
    assert len(index.search("pump", k=100_000)) == 3


@pytest.mark.parametrize("k", [0, -1, True, 2.5, "3"])
def test_an_unusable_k_is_an_invalid_query(index: Index, k):
    with pytest.raises(retriever.InvalidQuery, match="k is"):
        index.search("x", k=k)


def test_a_huge_k_is_over_the_limit(index: Index):
    with pytest.raises(retriever.LimitExceeded, match="1,000,000,000") as caught:
        index.search("x", k=10**9)
    assert (caught.value.limit, caught.value.option) == (100_000, "k")


@pytest.mark.parametrize("query", ["", " \n", "\ud800", None, 7])
def test_an_unusable_query_is_an_invalid_query(index: Index, query):
    with pytest.raises(retriever.InvalidQuery):
        index.search(query)


@pytest.mark.parametrize("vector", [[1.0], [np.nan] * 32, [0.0] * 32, "abc", [[1.0] * 32]])
def test_an_unusable_query_vector_is_an_invalid_query(index: Index, vector):
    with pytest.raises(retriever.InvalidQuery, match=r"query vector|exactly one"):
        index.search(vector=vector)


def test_a_query_or_a_vector_but_not_both(index: Index):
    with pytest.raises(retriever.InvalidQuery, match="exactly one"):
        index.search("x", vector=[1.0] * 32)
    with pytest.raises(retriever.InvalidQuery, match="group is 'file'"):
        index.search("x", group="file")


def test_search_many_and_search_give_the_same_hits_to_the_bit(index: Index):
    random = np.random.default_rng(5)
    vectors = random.standard_normal((300, 32)).astype(np.float32)
    index.add([Document(f"text {i}", id=f"{i:03}", embedding=v) for i, v in enumerate(vectors)])
    queries = random.standard_normal((70, 32)).astype(np.float32)
    many = index.search_many(vectors=queries, k=7)
    for query, results in zip(queries, many, strict=True):
        single = index.search(vector=query, k=7)
        assert [(h.chunk_id, h.score) for h in results] == [(h.chunk_id, h.score) for h in single]
    assert index.search_many([]) == []


@pytest.mark.parametrize("limits", [Limits(tail_rows=50)])
def test_exact_ties_at_the_edge_of_k_are_ordered_by_chunk_id(index: Index):
    tie = np.eye(32, dtype=np.float32)[0]
    index.add([Document("tie", id=f"{i:04}", embedding=tie) for i in range(400)])
    assert index.status().segments
    hits = index.search(vector=tie, k=10, fold=False)
    assert [hit.document_id for hit in hits] == [f"{i:04}" for i in range(10)]
    index.delete(["0000", "0003"])
    hits = index.search(vector=tie, k=3, fold=False)
    assert [hit.document_id for hit in hits] == ["0001", "0002", "0004"]


def test_group_by_document_gives_k_different_documents(path: Path):
    with Index.open(path, model=HashEncoder(max_tokens=16)) as index:
        index.add({"text": "pump " * 400, "id": "long"})
        index.add([{"text": f"pump and thing {i}", "id": f"short-{i}"} for i in range(5)])
        hits = index.search("pump", k=4, group="document")
        assert [hit.rank for hit in hits] == [1, 2, 3, 4]
        assert len({hit.document_id for hit in hits}) == 4
        assert hits[0].document_id == "long"
        assert len(index.search("pump", k=100, group="document")) == 6


def test_a_reader_in_another_index_sees_each_commit_at_its_next_search(index: Index, path: Path):
    with Index.open(path, model=HashEncoder(), read_only=True) as reader:
        assert len(reader.search("pump")) == 0
        index.add(PUMPS)
        assert reader.search("reset the pump", k=1)[0].document_id == "pump"
        index.delete("pump")
        assert all(hit.document_id != "pump" for hit in reader.search("reset the pump"))
        index.compact()
        assert len(reader.search("reset the pump")) == 2


def test_a_rebuild_by_another_process_is_noticed(path: Path):
    with Index.open(path, model=HashEncoder()) as index, Index.open(path) as reader:
        index.add(PUMPS)
        assert len(reader.search(vector=np.ones(32))) == 3
        index.rebuild(model=HashEncoder(dimension=48))
        vector = np.ones(48)
        assert len(reader.search(vector=vector)) == 3
        with pytest.raises(retriever.InvalidQuery, match="vectors of \\(48,\\)"):
            reader.search(vector=np.ones(32))
    with pytest.raises(retriever.ModelMismatch):
        Index.open(path, model=HashEncoder())


@pytest.mark.parametrize("limits", [Limits(tail_rows=40)])
def test_threads_search_while_one_writes(index: Index):
    index.add([{"text": f"pump number {i}", "id": f"base-{i}"} for i in range(60)])
    errors: list[BaseException] = []
    stop = threading.Event()

    def search() -> None:
        try:
            while not stop.is_set():
                hits = index.search("pump number", k=50)
                assert len({hit.chunk_id for hit in hits}) == 50
        except BaseException as exc:
            errors.append(exc)

    threads = [threading.Thread(target=search) for _ in range(4)]
    for thread in threads:
        thread.start()
    for i in range(30):
        index.add([{"text": f"pump more {i} {j}", "id": f"new-{i}-{j}"} for j in range(5)])
        if i % 10 == 9:
            index.compact()
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert index.count() == 210


# --- deleting and caring -------------------------------------------------------------------------


def test_delete_is_all_or_nothing_for_unknown_ids(index: Index):
    index.add(PUMPS)
    with pytest.raises(retriever.DocumentNotFound, match=r"'pumq'.*Did you mean 'pump'"):
        index.delete(["ferry", "pumq"])
    assert index.count() == 3
    assert index.delete(["ferry", "ferry", "nobody"], missing_ok=True) == 1
    assert index.delete("pump") == 1
    assert [document.id for document in index.documents()] == ["bread"]
    with pytest.raises(retriever.DocumentNotFound):
        index.chunks("pump")


def files_with(path: Path, needle: bytes) -> list[str]:
    return [p.name for p in path.rglob("*") if p.is_file() and needle in p.read_bytes()]


def test_purge_and_compact_leave_no_byte_of_text_or_vector(path: Path):
    random = np.random.default_rng(1)
    vectors = random.standard_normal((200, 32)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with Index.open(path, model=HashEncoder(), limits=Limits(tail_rows=30)) as index:
        index.add(
            [
                Document(f"secret-{i:03} " + "x" * (i * 37 % 900), id=f"d{i:03}", embedding=v)
                for i, v in enumerate(vectors)
            ]
        )
        stored = index._views and index.search(vector=vectors[7], k=1)[0]
        assert stored.document_id == "d007"
        index.delete([f"d{i:03}" for i in range(0, 100)], purge=True)
        index.delete([f"d{i:03}" for i in range(100, 150)])
        index.compact()
        assert index.count() == 50
    for i in range(150):
        assert files_with(path, f"secret-{i:03}".encode()) == []
        assert files_with(path, f"secret{i:03}".encode()) == []  # as it is indexed
        assert files_with(path, vectors[i].astype("<f4").tobytes()[:32]) == []
    assert files_with(path, b"secret-199") == ["store.db"]
    (words,) = path.glob("*.terms")
    assert files_with(path, b"secret199") == [words.name]


def test_writing_holds_the_lock_across_calls(index: Index, path: Path):
    other = Index.open(path, model=HashEncoder(), lock_timeout_s=0.05)
    with index.writing():
        index.add("one")
        with pytest.raises(retriever.IndexLocked, match="process") as caught:
            other.add("two")
        assert caught.value.pid is not None
        assert other.status().locked_by.pid == caught.value.pid
        index.add("three")
        assert other.count() == 2
    other.add("two")
    assert index.count() == 3
    assert other.status().locked_by is None
    other.close()


@pytest.mark.parametrize("limits", [Limits(tail_rows=2)])
def test_backup_is_an_index_that_opens_and_goes_its_own_way(index: Index, path: Path):
    index.add(PUMPS)
    index.add("and a tail")
    target = path.with_name("copy.index")
    report = index.backup(target)
    assert report.documents == 4
    index.delete("pump")
    with Index.open(target, model=HashEncoder()) as copy:
        assert copy.count() == 4
        assert copy.search("reset the pump", k=1)[0].document_id == "pump"
        copy.add("later")
        assert copy.verify(deep=True).ok
    with pytest.raises(retriever.IndexExists, match="not empty"):
        index.backup(target)
    (path.parent / "empty").mkdir()
    (path.parent / "link").symlink_to("empty")
    for other in (path.parent / "link", path / "HEAD"):
        with pytest.raises(retriever.IndexExists, match="no directory"):
            index.backup(other)


def test_status_counts_tokens_and_names_texts_the_encoder_does_not_know(index: Index):
    index.add(PUMPS)
    status = index.status()
    assert status.documents == status.chunks == 3
    assert status.tokens.corpus == status.tokens.encoded > 20
    assert status.tokens.truncated == 0
    assert status.model["dimension"] == 32
    assert status.losses == ()


def test_document_chunking_counts_the_tokens_cut(path: Path):
    with Index.open(path, model=HashEncoder(max_tokens=16), chunking="document") as index:
        report = index.add({"text": "word " * 100, "id": "long"})
        assert (report.chunks, report.tokens, report.truncated) == (1, 100, 84)
        assert index.status().tokens.truncated == 84
        assert index.search("word", k=1)[0].text == "word " * 100


def test_rebuild_changes_model_and_chunking_and_keeps_the_documents(path: Path):
    with Index.open(path, model=HashEncoder()) as index:
        index.add([{"text": "pump " * 50, "id": "a"}, {"text": "", "id": "empty"}, *PUMPS])
        before = {document.id: document for document in index.documents()}
        report = index.rebuild(model=HashEncoder(max_tokens=16), chunking={"tokens": 8})
        assert report.replaced == 5
        assert len(index.chunks("a")) > 6
        assert {document.id: document for document in index.documents()} == before
        assert index.verify(deep=True).ok
        with pytest.raises(retriever.InvalidConfig):
            index.rebuild(chunking={"tokens": 999})


def test_a_search_during_a_rebuild_is_encoded_by_the_model_of_its_vectors(path: Path):
    old, new = HashEncoder(), HashEncoder(salt="new")
    with Index.open(path, model=old) as index:
        index.add(PUMPS)
    with Index.open(path, model=old) as index:  # which has not searched before the rebuild
        found: list[float] = []

        def search_meanwhile(_: Progress) -> None:
            found.append(index.search(PUMPS[0].text, k=1)[0].scores["dense"])

        index.rebuild(model=new, progress=search_meanwhile)
        assert found
        assert min(found) == pytest.approx(1, abs=1e-6)
        assert index.search(PUMPS[0].text, k=1)[0].scores["dense"] == pytest.approx(1, abs=1e-6)


def test_a_rebuild_that_fails_leaves_the_index_with_its_model(path: Path):
    def stop(_: Progress) -> None:
        raise RuntimeError("enough")

    with Index.open(path, model=HashEncoder()) as index:
        index.add(PUMPS)
        with pytest.raises(RuntimeError, match="enough"):
            index.rebuild(model=HashEncoder(salt="new"), progress=stop)
        assert index.search(PUMPS[0].text, k=1)[0].scores["dense"] == pytest.approx(1, abs=1e-6)
        index.add(["The tide turns at noon."])
        assert index.verify(deep=True).ok


def test_a_rebuild_counts_what_is_encoded_after_what_came_meanwhile(path: Path):
    with Index.open(path, model=HashEncoder()) as index:
        index.add([f"document {n} " + "word " * 40 for n in range(20)])

        def add(progress) -> None:
            if progress.done == 20:
                index.add({"text": "one more", "id": "more"})

        report = index.rebuild(chunking={"tokens": 20}, progress=add)
        assert index.count() == 21
        assert index.search("one more", k=1)[0].document_id == "more"
        assert report.replaced == 21
        assert report.encoded >= 20 + 1


def test_a_rebuild_cut_short_goes_on_where_it_stopped(path: Path):
    with Index.open(path, model=HashEncoder(), limits=Limits(commit_documents=2)) as index:
        index.add([{"text": f"pump number {i}", "id": f"{i}"} for i in range(8)])

        def stop(progress):
            if progress.done >= 4:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt) as caught:
            index.rebuild(model=HashEncoder(max_tokens=32), progress=stop)
        assert caught.value.report.replaced == 4
        assert index.status().building
        assert len(index.search("pump", k=20)) == 8
        index.add({"text": "pump in between", "id": "new"})
        index.delete("0")
        report = index.rebuild(model=HashEncoder(max_tokens=32))
        assert report.replaced == 5
        assert index.status().building is None
        assert len(index.search("pump", k=20)) == 8
        assert index.verify(deep=True).ok


def test_searches_go_on_in_the_same_index_while_it_is_rebuilt_for_another_model(path: Path):
    with Index.open(path, model=HashEncoder()) as index:
        index.add([{"text": f"pump number {i}", "id": f"{i}"} for i in range(300)])
        errors: list[BaseException] = []
        stop = threading.Event()

        def search() -> None:
            try:
                while not stop.is_set():
                    assert len(index.search("pump number 7", k=20)) == 20
            except BaseException as exc:
                errors.append(exc)

        threads = [threading.Thread(target=search) for _ in range(2)]
        for thread in threads:
            thread.start()
        for salt in ("a", "b", "c"):
            index.rebuild(model=HashEncoder(salt=salt))
        stop.set()
        for thread in threads:
            thread.join()
        assert errors == []


def test_group_by_document_stops_when_every_document_is_found(path: Path):
    with Index.open(path, model=HashEncoder(max_tokens=16)) as index:
        index.add([{"text": f"pump {i} " * 600, "id": f"{i}"} for i in range(3)])
        hits = index.search("pump", k=10, group="document")
        assert sorted(hit.document_id for hit in hits) == ["0", "1", "2"]
        best = {h.document_id: h.score for h in reversed(index.search("pump", k=1000).hits)}
        assert {hit.document_id: hit.score for hit in hits} == best


def test_a_path_is_not_taken_for_documents_nor_complex_numbers_for_a_vector(index: Index):
    with pytest.raises(retriever.InvalidDocument, match="add_files"):
        index.add(Path("notes.md"))
    with pytest.raises(retriever.InvalidQuery, match="complex"):
        index.search(vector=np.ones(32) * 1j)


@pytest.mark.parametrize(
    "typed",
    [
        "manual/pump-04711.mx",
        "xanual/pump-04711.md",
        "manual/pmup-04711.md",
        "manual/pump04711.md",
        "MANUAL/Pump-04711.md",
    ],
)
def test_a_mistyped_id_is_recognised_among_many_without_looking_at_each(
    index: Index, typed: str, monkeypatch: pytest.MonkeyPatch
):
    index.add([Document("", id=f"manual/pump-{n:05}.md") for n in range(4700, 4720)])
    compared: list[str] = []
    matches = retriever.search.document_ids.get_close_matches
    monkeypatch.setattr(
        retriever.search.document_ids,
        "get_close_matches",
        lambda word, known, n: compared.extend(known) or matches(word, known, n),
    )
    others = [*range(2000), *range(5000, 5250)]
    index.add([Document("", id=f"manual/pump-{n:05}.md") for n in others])
    with pytest.raises(retriever.DocumentNotFound, match=r"Did you mean 'manual/pump-04711\.md'"):
        index.chunks(typed)
    assert len(compared) <= 20


def test_vectors_of_all_documents_leave_out_one_that_is_deleted_meanwhile(
    index: Index, monkeypatch: pytest.MonkeyPatch
):
    index.add([Document("the pump", id="a"), Document("the tide", id="b")])
    listed = list(index.documents(embeddings=False))
    index.delete("b")
    monkeypatch.setattr(index, "documents", lambda **_: iter(listed))
    assert list(index.vectors()) == ["a"]
    with pytest.raises(retriever.DocumentNotFound):
        index.vectors(["a", "b"])
