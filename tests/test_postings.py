"""Files of postings that are damaged or crafted: a typed error or the texts instead, never more."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from retriever import Index, Limits
from retriever.documents.words import Term
from retriever.errors import IndexCorrupt
from retriever.search import lexical, postings
from retriever.search.inversion import inverted
from retriever.search.lexical_segment import LEXICAL
from retriever.storage import catalog, segments
from retriever.storage.catalog import ChunkText
from retriever.storage.files import hash_file
from retriever.storage.series import Series
from retriever.testing import HashEncoder

WORDS = ["pump", "valve", "oil", "leak", "rotor"]
N_ROWS = 40


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    rng = random.Random(5)
    rows = [
        ChunkText(n + 1, " ".join(rng.choices(WORDS, k=9)), f"Title {n}", (), ["en", None][n % 2])
        for n in range(N_ROWS)
    ]
    path = tmp_path_factory.mktemp("postings") / "whole.terms"
    with path.open("wb") as file:
        postings.write(inverted(rows), file.write)
    return path.read_bytes()


def use(path: Path) -> None:
    """Read all that a search may read; anything but an answer or IndexCorrupt fails the test."""
    with suppress(IndexCorrupt):
        opened = postings.read(path)
        for word in [*WORDS, "title", "17", "absent", ""]:
            found = opened.find(word.encode())
            assert len(found.positions) == len(found.frequencies)
            assert found.positions.max(initial=0) < max(len(opened), 1)
        list(opened.beginning_with(b"1"))
        opened.problems()


def test_any_byte_may_be_wrong(written: bytes, tmp_path: Path):
    path = tmp_path / "harmed.terms"
    for place in range(len(written)):
        harmed = bytearray(written)
        harmed[place] ^= 1 << place % 8
        path.unlink(missing_ok=True)
        path.write_bytes(harmed)
        use(path)


@pytest.mark.parametrize("field", range(4, 10))
@pytest.mark.parametrize("value", [0, 1, 3, 255, 1 << 31, (1 << 32) - 1, 1 << 61, (1 << 64) - 1])
def test_any_count_may_be_wrong(written: bytes, tmp_path: Path, field: int, value: int):
    head = struct.Struct("<8sII16sQQQQII")
    values = list(head.unpack(written[: head.size]))
    values[field] = value if field < 8 else value % (1 << 32)
    path = tmp_path / "crafted.terms"
    path.write_bytes(head.pack(*values) + written[head.size :])
    use(path)


def test_a_file_cut_anywhere_or_longer_is_refused(written: bytes, tmp_path: Path):
    path = tmp_path / "cut.terms"
    for size in [0, 1, 79, 80, 81, *range(88, len(written), 41), len(written) - 1]:
        path.unlink(missing_ok=True)
        path.write_bytes(written[:size])
        with pytest.raises(IndexCorrupt, match=r"cut\.terms cannot be searched"):
            postings.read(path)
    path.write_bytes(written + b"\0")
    with pytest.raises(IndexCorrupt, match="head speaks of"):
        postings.read(path)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(IndexCorrupt):
        postings.read(path)


def test_a_file_of_another_form_is_refused_by_its_number(written: bytes, tmp_path: Path):
    path = tmp_path / "later.terms"
    path.write_bytes(written[:8] + b"\x02" + written[9:])
    with pytest.raises(IndexCorrupt, match="form is number 2"):
        postings.read(path)


# --- in an index ---------------------------------------------------------------------------------


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with Index.open(
        tmp_path / "x.index", model=HashEncoder(), limits=Limits(tail_texts=5)
    ) as opened:
        opened.add([{"id": f"d{n}", "text": f"{WORDS[n % 5]} number{n}"} for n in range(N_ROWS)])
        yield opened


def forge(index: Index, change: bytes, place: int) -> Path:
    """Change the bytes of the lexical segment and let the catalog say that they were published."""
    index._views.forget()
    with index._sessions.session() as writer:
        space = catalog.active_space(writer.connection)
        (segment,) = Series(LEXICAL, space).segments(writer.connection)
        path = index.path / segment.files[0].name
        data = bytearray(path.read_bytes())
        data[place : place + len(change)] = change
        path.write_bytes(data)
        size, sha256 = hash_file(path)
        stamp = segments.Stamp.of(path)
        published = segments.Published(path.name, size, sha256, stamp)
        with writer.maintenance() as connection:
            segments.describe_again(connection, replace(segment, files=(published,)))
    return path


def found(index: Index, *words: str) -> dict[int, float]:
    """Return the scores of rows, asked again where the segment was given up meanwhile."""
    for _ in range(2):
        with index._pool.transaction() as connection:
            view = index._views.at(connection)
            try:
                answer = lexical.matches(
                    view, connection, [Term((word,)) for word in words], view.live
                )
            except lexical.StaleView:
                continue
            return dict(zip(answer.ids.tolist(), answer.scores.tolist(), strict=True))
    raise AssertionError("it never answered")


def test_words_of_another_analysis_are_cut_again_and_the_next_write_replaces_them(
    index: Index, caplog: pytest.LogCaptureFixture
):
    before = found(index, "pump", "number7")
    path = forge(index, struct.pack("<I", 999), 12)
    assert index.verify(deep=True).ok  # that is no damage
    assert found(index, "pump", "number7") == before
    assert "words of another version" in caplog.text
    index.add({"id": "new", "text": "something"})
    assert not path.exists()
    assert not (index.path / "quarantine").exists()
    with index._pool.transaction() as connection:
        assert catalog.tombstones(connection, -1).tolist() == []
    assert index.verify(deep=True).ok


def test_postings_that_point_outside_are_given_up_and_the_texts_answer(
    index: Index, caplog: pytest.LogCaptureFixture
):
    before = found(index, "pump", "number7")
    data = next(index.path.glob("*.terms")).read_bytes()
    opened = postings.read(next(index.path.glob("*.terms")))
    place = data.index(opened.positions.tobytes())
    forge(index, b"\xff" * opened.positions.nbytes, place)
    assert [problem.check for problem in index.verify().problems] == ["segments"]
    assert found(index, "pump", "number7") == before
    assert "is damaged; using the texts instead" in caplog.text
    index.add({"id": "new", "text": "something"})  # the writer has been told, and builds it again
    assert index.verify(deep=True).ok


def test_a_deep_verification_finds_terms_that_the_texts_do_not_have(index: Index):
    data = next(index.path.glob("*.terms")).read_bytes()
    forge(index, b"pumq", data.rindex(b"pump"))
    assert index.verify().ok
    (problem,) = index.verify(deep=True).problems
    assert "its terms are not those of the texts" in problem.detail


def test_rot_that_left_the_stamp_alone_is_not_merged_into_another_segment(index: Index):
    expected = found(index, "pump", "number7")
    with index._sessions.session() as writer:
        space = catalog.active_space(writer.connection)
        series = Series(LEXICAL, space)
        (segment,) = series.segments(writer.connection)
        path = index.path / segment.files[0].name
        data = bytearray(path.read_bytes())
        place = data.rindex(b"pump")
        data[place : place + 4] = b"pumq"
        with path.open("r+b") as file:
            file.write(data)
        stamped = segment.files[0]._replace(stamp=segments.Stamp.of(path))
        with writer.maintenance() as connection:
            segments.describe_again(connection, replace(segment, files=(stamped,)))
        segments.publish(writer, series, [(0, segment.last_id)])
    assert found(index, "pump", "number7") == expected
    assert index.verify(deep=True).ok


def test_merged_segments_have_the_bytes_that_the_texts_give(index: Index):
    index.delete(["d3", "d17"])
    index.add([{"id": f"e{n}", "text": f"{WORDS[n % 5]} other{n}"} for n in range(9)])
    index.compact()
    (path,) = index.path.glob("*.terms")
    with index._pool.transaction() as connection:
        space = catalog.active_space(connection)
        fresh = inverted(catalog.chunk_texts(connection, space.chunking.id, 0, 1 << 40))
    again = path.with_name("fresh")
    with again.open("wb") as file:
        postings.write(fresh, file.write)
    assert again.read_bytes() == path.read_bytes()
    assert np.array_equal(fresh.ids, postings.read(path).ids)
    again.unlink()
