"""A text that an encoder cannot do is its document's failure; one that fails is the call's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import folder, index, run, small_models  # noqa: F401

from retriever import Document, Index, InvalidDocument, ModelError, Tokens
from retriever.ingest.refusals import ENOUGH
from retriever.testing import HashEncoder, WordTokenizer


class Picky(HashEncoder):
    """A service with a content filter: a batch with a text that it refuses is refused whole."""

    def __init__(self, refused: str = "bad", way: str = "raises") -> None:
        super().__init__()
        self.refused, self.way = refused, way
        self.calls = 0
        self.is_down = False

    def encode_documents(self, texts: Sequence[str]) -> np.ndarray:
        self.calls += 1
        if self.is_down:
            raise ConnectionError("503 Service Unavailable")
        vectors = super().encode_documents(texts)
        for row, text in enumerate(texts):
            if self.refused and self.refused in text:
                if self.way == "raises":
                    raise ValueError("400: content filter")
                if self.way == "says so":
                    raise InvalidDocument("It has no direction.", hint="Leave it out.")
                vectors[row] = np.nan if self.way == "NaN" else 0
        return vectors


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.index"


@pytest.mark.parametrize("way", ["raises", "NaN", "zeros", "says so"])
def test_one_text_is_left_out_and_the_rest_is_committed(path: Path, way: str, caplog):
    encoder = Picky(way=way)
    texts = [f"text number {n} is {'bad' if n in (7, 400) else 'good'}" for n in range(700)]
    with Index.open(path, model=encoder) as opened:
        report = opened.add([Document(text, id=f"d{n}") for n, text in enumerate(texts)])
        assert report.added == opened.count() == 698
        assert [(one.path, one.state) for one in report.failed] == [
            ("d7", "failed"),
            ("d400", "failed"),
        ]
        assert all(one.reason for one in report.failed)
        assert "d7 is left out" in caplog.text
        assert opened.get("d7") is None
        assert opened.search(texts[6], k=1)[0].document_id == "d6"
        encoder.refused = ""
        assert opened.add([Document(texts[7], id="d7")]).added == 1


def test_an_encoder_without_a_fault_is_not_called_more_often(path: Path):
    encoder = Picky(refused="")
    with Index.open(path, model=encoder) as opened:
        before = encoder.calls
        opened.add([f"text {n}" for n in range(200)])
        assert encoder.calls == before + 2  # the canaries, and all texts


def test_an_encoder_that_is_down_ends_the_call_at_once(path: Path):
    encoder = Picky()
    with Index.open(path, model=encoder) as opened:
        opened.add(["one", "two"])
        encoder.is_down = True
        before = encoder.calls
        with pytest.raises(ModelError, match="failed: ConnectionError: 503") as caught:
            opened.add([f"text {n}" for n in range(200)])
        assert encoder.calls <= before + 2
        assert isinstance(caught.value.__cause__, ConnectionError)
        assert (caught.value.report.added, opened.count()) == (0, 2)
        encoder.is_down = False
        assert opened.add([f"text {n}" for n in range(200)]).added == 200


def test_an_encoder_that_goes_down_meanwhile_blames_no_document(path: Path):
    class Failing(Picky):
        def encode_documents(self, texts: Sequence[str]) -> np.ndarray:
            self.is_down = self.is_down or self.calls > 6
            return super().encode_documents(texts)

    with Index.open(path, model=Failing()) as opened:
        with pytest.raises(ModelError, match="503"):
            opened.add(
                [f"text {n}" for n in range(60)] + ["bad"] + [f"more {n}" for n in range(60)]
            )
        assert opened.count() == 0


def test_documents_that_are_all_refused_end_the_call_with_an_error(path: Path):
    with Index.open(path, model=Picky()) as opened:
        with pytest.raises(ModelError, match="content filter"):
            opened.add("bad")
        with pytest.raises(ModelError, match="content filter") as caught:
            opened.add(["bad 1", "bad 2"])
        assert [one.path for one in caught.value.report.failed]
        assert opened.count() == 0
        encoder = Picky(refused="text")  # all but what the index was made with
        with Index.open(path, model=encoder) as other:
            before = encoder.calls
            with pytest.raises(ModelError, match="content filter"):
                other.add([f"text {n}" for n in range(10 * ENOUGH)])
            assert encoder.calls < before + 4 * ENOUGH


def test_a_version_indexed_before_is_kept(path: Path):
    with Index.open(path, model=Picky()) as opened:
        opened.add([Document("good", id="a"), Document("fine", id="b")])
        report = opened.add([Document("bad", id="a"), Document("finer", id="b")])
        assert (report.replaced, len(report.failed)) == (1, 1)
        assert "is kept" in report.failed[0].reason
        assert opened.get("a").text == "good"


def test_a_document_of_many_chunks_is_there_whole_or_not_at_all(path: Path):
    long = "word " * 500
    with Index.open(path, model=Picky()) as opened:
        report = opened.add([Document(f"{long} bad {long}", id="a"), Document(long, id="b")])
        assert (report.added, [one.path for one in report.failed]) == (1, ["a"])
        assert opened.verify(deep=True).ok


def test_equal_texts_are_refused_for_each_document(path: Path):
    with Index.open(path, model=Picky()) as opened:
        texts = ["bad", *(f"text {n}" for n in range(3000)), "bad"]
        report = opened.add([Document(text, id=f"d{n}") for n, text in enumerate(texts)])
        assert [one.path for one in report.failed] == ["d0", "d3001"]
        assert report.added == 3000


def test_a_refused_file_is_tried_again(path: Path):
    docs = path.parent / "docs"
    docs.mkdir()
    for name in ("a", "bad", "c"):
        (docs / f"{name}.txt").write_text(f"this is {name}", encoding="utf-8")
    encoder = Picky()
    with Index.open(path, model=encoder) as opened:
        report = opened.add_files(docs)
        assert (report.added, [one.path for one in report.failed]) == (2, ["docs/bad.txt"])
        report = opened.add_files(docs)
        assert (report.unchanged, len(report.failed)) == (2, 1)
        (docs / "a.txt").write_text("this is bad now", encoding="utf-8")
        report = opened.add_files(docs)
        assert (report.replaced, len(report.failed)) == (0, 2)
        assert opened.get("docs/a.txt").text == "this is a"
        encoder.refused = ""
        report = opened.add_files(docs)
        assert (report.added, report.replaced, report.failed) == (1, 1, ())
        assert opened.get("docs/a.txt").text == "this is bad now"


class PickyTokenizer(WordTokenizer):
    def tokenize(self, texts: Sequence[str]) -> list[Tokens]:
        if any("bad" in text for text in texts):
            raise RuntimeError("no tokens")
        return super().tokenize(texts)


def test_a_text_that_the_tokenizer_refuses_is_left_out(path: Path):
    encoder = HashEncoder()
    encoder.tokenizer = PickyTokenizer()
    with Index.open(path, model=encoder) as opened:
        report = opened.add([Document(text, id=text) for text in ("one", "bad", "two", "three")])
        assert (report.added, [one.path for one in report.failed]) == (3, ["bad"])
        assert "tokenize" in report.failed[0].reason
        with pytest.raises(ModelError, match="no tokens"):
            opened.add("bad")


def test_a_rebuild_drops_no_document(path: Path):
    with Index.open(path, model=HashEncoder()) as opened:
        opened.add([Document("good", id="a"), Document("bad", id="b")])
        other = Picky()
        other.salt = "other"
        with pytest.raises(ModelError, match="Document 'b' cannot be encoded"):
            opened.rebuild(model=other)
        assert opened.search("bad", k=1)[0].document_id == "b"
        other.refused = ""
        assert opened.rebuild(model=other).replaced == 2


@pytest.mark.usefixtures("small_models")
def test_the_command_line_counts_what_was_refused(monkeypatch: pytest.MonkeyPatch):
    def picky(*_: Any, **__: Any) -> Picky:
        return Picky()

    for place in ("bi_encoder.load_encoder", "checkpoint.resolve.resolve_model"):
        monkeypatch.setattr(f"retriever.encoders.{place}", picky)
    lines = "\n".join(json.dumps({"text": text, "id": text}) for text in ("good", "bad", "fine"))
    done = run("index", "-", "--jsonl", "--json", stdin=lines)
    assert done.exit_code == 0
    answer = json.loads(done.stdout)
    assert (answer["added"], [one["path"] for one in answer["failed"]]) == (2, ["bad"])
