"""Reading, encoding and committing at the same time: order, bounds, and every way to end early."""

from __future__ import annotations

import gc
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import retriever
from retriever import Document, Index
from retriever.canonical import unit_vector
from retriever.config import Chunking
from retriever.documents.chunking import Chunker
from retriever.encoders.worker import EncoderThread
from retriever.ingest.pipeline import EncodingPipeline
from retriever.limits import Limits
from retriever.storage import catalog
from retriever.storage.pending import PendingVectors
from retriever.testing import HashEncoder, exact_search
from retriever.types import Progress

WAIT_S = 10.0
"""What a working pipeline never waits for."""

MOMENT_S = 0.2
"""What a broken pipeline is given to do what it must not."""

SIZE = 50


class Watched(HashEncoder):
    """Calls `act` with the number of each call for documents of a test, from 1."""

    def __init__(self, act: Callable[[int], None] = lambda _: None) -> None:
        super().__init__()
        self.act = act
        self.calls: list[list[str]] = []
        self.threads: set[threading.Thread] = set()
        self.finished = 0

    def encode_documents(self, texts):
        if not any("text" in text for text in texts):
            return super().encode_documents(texts)  # canaries
        self.calls.append(list(texts))
        self.threads.add(threading.current_thread())
        self.act(len(self.calls))
        vectors = super().encode_documents(texts)
        self.finished += len(texts)
        return vectors


def make(number: int, size: int = SIZE) -> Document:
    """Return a document whose chunks differ from all others; of SIZE it has one."""
    text = " ".join(f"text {number}.{part}" for part in range(size // 7 + 1))
    return Document(text[: size - 1] + ".", id=f"{number:04}")


def make_all(count: int) -> Iterator[Document]:
    return (make(number) for number in range(count))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.index"


@pytest.fixture
def pairs() -> Limits:
    """Two documents of `make` are a group, and a commit."""
    return Limits(group_characters=2 * SIZE, commit_documents=2, commit_seconds=600.0)


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


# --- what comes out ------------------------------------------------------------------------------


def test_what_is_stored_is_what_one_step_after_the_other_gives(path: Path, pairs):
    limits = replace(pairs, encode_tokens=40, commit_documents=7)
    documents = [make(number, size=30 + 211 * number % 900) for number in range(60)]
    documents[7::9] = [Document("", id=f"empty-{number}") for number in range(6)]
    encoder = Watched()
    with Index.open(path, model=encoder, limits=limits) as index:
        report = index.add(iter(documents))
        chunker = Chunker(encoder.tokenizer, encoder.max_tokens, Chunking())
        expected = [
            (document.id, chunk.text)
            for document in documents
            for chunk in chunker.chunk([document])[0][0]
        ]
        vectors = encoder.encode_queries([text for _, text in expected]).astype(np.float64)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        query = unit_vector(np.arange(1, 33), 32)
        hits = index.search(vector=query, k=1000)
        ranking = exact_search(vectors.astype(np.float32), query, len(expected))
        assert [(hit.document_id, hit.text) for hit in hits] == [expected[p] for p, _ in ranking]
        assert [hit.score for hit in hits] == [score for _, score in ranking]
        by_id = [hit.document_id for hit in sorted(hits, key=lambda hit: hit.chunk_id)]
        assert by_id == [document_id for document_id, _ in expected]
    assert (report.added, report.empty, report.chunks) == (60, 6, len(expected))
    assert report.commits == 9
    assert len(encoder.calls) > 30
    assert all(len(call) == 1 or len(set(call)) == len(call) for call in encoder.calls)


def test_no_text_is_encoded_twice_wherever_it_was_met_before(path: Path, pairs):
    limits = replace(pairs, commit_documents=6)
    random = np.random.default_rng(3)
    picked = [int(number) for number in random.integers(0, 25, 120)]
    encoder = Watched()
    with Index.open(path, model=encoder, limits=limits) as index:
        report = index.add(
            {"text": make(number).text, "id": f"{position}"}
            for position, number in enumerate(picked)
        )
        texts = [text for call in encoder.calls for text in call]
        assert sorted(texts) == sorted({make(number).text for number in picked})
        assert report.encoded == len(texts) == 25
        assert report.commits > 15
        assert index.add(make(1)).encoded == 0
        encoder.calls.clear()
        assert index.rebuild(model=Watched()).encoded == 0
        other = Watched()
        other.salt = "other"
        assert index.rebuild(model=other).encoded == 25
        assert sorted(text for call in other.calls for text in call) == sorted(texts)


def test_a_text_on_its_way_is_not_sent_again(path: Path, pairs):
    """All groups hold one text, and the encoder has not finished it when the others are read."""
    read = threading.Event()
    encoder = Watched(lambda _: require(read))
    others = iter(range(100, 200))

    def documents() -> Iterator[dict]:
        for number in range(6):
            if number == 5:
                read.set()
            text = make(1).text if number % 2 else make(next(others)).text
            yield {"text": text, "id": f"{number}"}

    with Index.open(path, model=encoder, limits=pairs) as index:
        assert index.add(documents()).encoded == 4
        hits = index.search(make(1).text, k=3, fold=False)
        assert [hit.document_id for hit in hits] == ["1", "3", "5"]
        assert len({hit.score for hit in hits}) == 1


def test_committed_vectors_are_not_kept(path: Path, pairs):
    kept = []

    def documents() -> Iterator[Document]:
        gc.collect()
        (pipeline,) = [o for o in gc.get_objects() if type(o) is EncodingPipeline]
        for document in make_all(40):
            kept.append(len(pipeline._recent))
            yield document

    with Index.open(path, model=Watched(), limits=pairs) as index:
        assert index.add(documents()).added == 40
    assert 2 <= max(kept) <= 6


def test_an_id_that_a_generator_repeats_is_found_though_it_is_committed(path: Path, pairs):
    other = replace(make(3), text="Something else.")

    def documents() -> Iterator[Document]:
        yield from make_all(9)
        yield make(3)
        yield other

    with Index.open(path, model=Watched(), limits=pairs) as index:
        index.add([make(3), make(5)])
        with pytest.raises(
            retriever.InvalidDocument, match=r"Document 10 and an earlier .* '0003'"
        ) as caught:
            index.add(documents())
        assert caught.value.report.unchanged == 3
        index.delete([f"{n:04}" for n in range(9)], missing_ok=True)
        with pytest.raises(retriever.InvalidDocument, match=r"Documents 3 and 10 .* '0003'"):
            index.add(documents())
        with pytest.raises(retriever.InvalidDocument, match=r"Documents 1 and 2 .* '0001'"):
            index.add(iter([make(20), replace(other, id="0001"), make(1)]))


# --- at the same time ----------------------------------------------------------------------------


def require(event: threading.Event) -> None:
    assert event.wait(WAIT_S)


def test_the_next_group_is_read_while_the_encoder_works(path: Path, pairs):
    read = threading.Event()
    encoder = Watched(lambda _: require(read))

    def documents() -> Iterator[Document]:
        for number, document in enumerate(make_all(6)):
            assert threading.current_thread() is threading.main_thread()
            if number == 2:
                read.set()
            yield document

    with Index.open(path, model=encoder, limits=pairs) as index:
        assert index.add(documents()).added == 6
    assert [len(call) for call in encoder.calls] == [2, 2, 2]
    assert len(encoder.threads) == 1
    assert threading.main_thread() not in encoder.threads


def test_a_batch_is_committed_while_the_encoder_works_on_the_next(path: Path, pairs):
    seen = threading.Event()
    encoder = Watched(lambda call: require(seen) if call == 2 else None)
    counts = []
    with (
        Index.open(path, model=encoder, limits=pairs) as index,
        Index.open(path, read_only=True) as reader,
    ):

        def documents() -> Iterator[Document]:
            for number, document in enumerate(make_all(8)):
                if number == 6:
                    counts.append(reader.count())
                    seen.set()
                yield document

        assert index.add(documents()).commits == 4
    assert counts == [2]


def test_a_rebuild_goes_on_in_the_catalog_while_the_encoder_works(path: Path, pairs):
    seen = threading.Event()
    other = Watched(lambda call: require(seen) if call == 2 else None)
    other.salt = "other"

    def see(progress: Progress) -> None:
        assert threading.current_thread() is threading.main_thread()
        if progress.done == 2:
            seen.set()

    with Index.open(path, model=Watched(), limits=pairs) as index:
        index.add(list(make_all(8)))
        assert index.rebuild(model=other, progress=see).replaced == 8
    assert len(other.calls) == 4


def test_progress_is_told_between_the_calls_that_one_document_takes(path: Path, pairs):
    limits = replace(pairs, encode_tokens=100)
    told: list[Progress] = []

    def tell(progress: Progress) -> None:
        assert threading.current_thread() is threading.main_thread()
        told.append(progress)

    encoder = Watched()
    with Index.open(path, model=encoder, limits=limits) as index:
        report = index.add([make(0), make(1, size=4000), make(2)], progress=tell)
    tokens = [progress.tokens for progress in told]
    assert tokens == sorted(tokens)
    assert len({progress.tokens for progress in told if progress.done == 0}) > 5
    assert tokens[-1] >= report.tokens
    assert [progress.done for progress in told][-1] == 3
    assert [progress.done for progress in told] == sorted(progress.done for progress in told)
    sizes = [sum(map(len, call)) for call in encoder.calls]
    *full, _rest_of_the_first_group, _rest_of_the_second = sizes
    assert max(full) < 2 * min(full)


# --- bounds --------------------------------------------------------------------------------------


def test_the_reader_is_three_groups_ahead_at_most(path: Path, pairs):
    three, four = threading.Event(), threading.Event()

    def act(call: int) -> None:
        if call == 1:
            require(three)
            assert not four.wait(MOMENT_S)

    encoder = Watched(act)
    outstanding = []

    def documents() -> Iterator[Document]:
        for number, document in enumerate(make_all(40)):
            outstanding.append(number + 1 - encoder.finished)
            if number == 5:
                three.set()
            if number == 6 and not encoder.finished:
                four.set()
            yield document

    with Index.open(path, model=encoder, limits=pairs) as index:
        assert index.add(documents()).added == 40
    assert max(outstanding) == 6


def test_a_huge_document_is_in_the_works_alone(path: Path, pairs):
    limits = replace(pairs, queued_characters=10 * SIZE, encode_tokens=200)
    read = []
    read_on = threading.Event()
    places = []

    def act(_: int) -> None:
        if len(encoder.calls[-1][-1]) > SIZE:
            places.append((len(read), encoder.finished))
            assert not read_on.wait(MOMENT_S if len(places) == 1 else 0)

    encoder = Watched(act)

    def documents() -> Iterator[Document]:
        for number in range(8):
            read.append(number)
            if places and len(places) < 5:
                read_on.set()
            yield make(number, size=5000 if number == 5 else SIZE)

    with Index.open(path, model=encoder, limits=limits) as index:
        assert index.add(documents()).added == 8
    assert len(places) > 4
    assert {count for count, _ in places} == {6}
    assert min(finished for _, finished in places) == 4


def test_what_comes_slowly_is_committed_when_its_time_is_up(path: Path):
    limits = Limits(commit_seconds=0.0)
    counts = []
    with (
        Index.open(path, model=Watched(), limits=limits) as index,
        Index.open(path, read_only=True) as reader,
    ):

        def documents() -> Iterator[Document]:
            for document in make_all(12):
                counts.append(reader.count())
                yield document

        assert index.add(documents()).added == 12
    assert all(count >= number - 3 for number, count in enumerate(counts))


def test_what_is_encoded_is_committed_before_the_next_group_is_full(path: Path, pairs):
    limits = replace(pairs, commit_documents=1000, commit_chunks=2)
    counts = [0]
    with (
        Index.open(path, model=Watched(), limits=limits) as index,
        Index.open(path, read_only=True) as reader,
    ):

        def documents() -> Iterator[Document]:
            yield from make_all(2)
            while len(counts) < 900 and not counts[-1]:
                time.sleep(0.01)
                yield Document("", id=f"empty-{len(counts)}")
                counts.append(reader.count())

        index.add(documents())
    assert counts[-1] == 2


def test_a_commit_never_holds_more_documents_than_it_may(path: Path, pairs):
    limits = replace(pairs, commit_documents=5)
    with Index.open(path, model=Watched(), limits=limits) as index:
        assert index.add(make_all(10)).commits == 3  # 4, 4 and 2


def test_texts_of_like_length_are_encoded_together(path: Path, pairs):
    limits = replace(pairs, group_characters=100_000, encode_tokens=100, commit_documents=1000)
    encoder = Watched()
    with Index.open(path, model=encoder, limits=limits) as index:
        index.add([make(number, size=20 + number * 37 % 100) for number in range(60)])
    tokens = [len(t) for call in encoder.calls for t in encoder.tokenizer.tokenize(call)]
    assert tokens == sorted(tokens, reverse=True)
    assert 5 < len(encoder.calls) < 20


def test_short_documents_are_encoded_hundreds_at_a_time(path: Path):
    encoder = Watched()
    with Index.open(path, model=encoder) as index:
        report = index.add({"text": f"Is text {number} short?"} for number in range(1200))
    assert (report.added, report.commits) == (1200, 2)
    assert [len(call) for call in encoder.calls] == [1000, 200]


def test_documents_that_bring_their_vectors_start_no_thread(path: Path):
    encoder = Watched()
    with Index.open(path, model=encoder) as index:
        encoder.encoded.clear()
        before = threading.active_count()
        during = []

        def documents() -> Iterator[Document]:
            for number in range(5):
                during.append(threading.active_count())
                yield Document("text", id=f"{number}", embedding=np.eye(32)[number])

        assert index.add(documents(), progress=lambda _: during.append(threading.active_count()))
    assert set(during) == {before}
    assert encoder.encoded == []


# --- ending early --------------------------------------------------------------------------------


def test_an_error_of_the_encoder_keeps_what_was_encoded_before(path: Path, pairs):
    reading = threading.Event()
    error = retriever.ModelError("The weights have melted.", hint="Cool them.")

    class Melting(Watched):
        is_molten = False

        def encode_documents(self, texts):
            if self.is_molten:
                raise error
            return super().encode_documents(texts)

    def act(call: int) -> None:
        if call == 3:
            require(reading)
            encoder.is_molten = True
            raise error

    encoder = Melting(act)

    def documents() -> Iterator[Document]:
        for number, document in enumerate(make_all(40)):
            if number == 6:
                reading.set()
                raise ValueError("later, so never told")
            yield document

    with Index.open(path, model=encoder, limits=pairs) as index:
        with pytest.raises(retriever.ModelError) as caught:
            index.add(documents())
        assert caught.value is error
        assert (caught.value.report.added, caught.value.report.encoded) == (4, 4)
        assert [document.id for document in index.documents()] == ["0000", "0001", "0002", "0003"]
        encoder.is_molten = False
        index.add(make_all(9))
        assert index.count() == 9


def test_an_error_of_the_documents_keeps_the_groups_before_it(path: Path, pairs):
    failing = threading.Event()
    encoder = Watched(lambda _: require(failing))

    def documents() -> Iterator[Document]:
        yield from make_all(5)
        failing.set()
        raise LookupError("no more")

    with Index.open(path, model=encoder, limits=pairs) as index:
        with pytest.raises(LookupError, match="no more") as caught:
            index.add(documents())
        assert caught.value.report.added == 4
        assert index.count() == 4


def test_an_error_of_the_tokenizer_keeps_the_groups_before_it(path: Path, pairs):
    encoder = Watched()
    tokenize = encoder.tokenizer.tokenize

    def refuse(texts):
        if any("text 5." in text for text in texts):
            raise retriever.InvalidDocument("No.", hint="Never.")
        return tokenize(texts)

    encoder.tokenizer.tokenize = refuse
    with Index.open(path, model=encoder, limits=pairs) as index:
        with pytest.raises(retriever.InvalidDocument, match=r"No\.") as caught:
            index.add(make_all(20))
        assert caught.value.report.added == index.count() == 4


def is_in(thread: threading.Thread, function: Callable) -> bool:
    """Return whether a thread is in a function, at any depth."""
    frame = sys._current_frames()[thread.ident or 0]
    while frame is not None:
        if frame.f_code is function.__code__:
            return True
        frame = frame.f_back
    return False


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def is_ending() -> bool:
    """Return whether the main thread waits for the encoder's to end."""
    return is_in(threading.main_thread(), threading.Thread.join)


def test_an_interrupt_of_the_documents_keeps_what_is_committed(path: Path, pairs):
    begun = threading.Event()

    def act(call: int) -> None:
        if call == 3:
            begun.set()
            until(is_ending)

    def documents() -> Iterator[Document]:
        yield from make_all(9)
        require(begun)
        raise KeyboardInterrupt

    encoder = Watched(act)
    with Index.open(path, model=encoder, limits=pairs) as index:
        with pytest.raises(KeyboardInterrupt) as caught:
            index.add(documents())
        assert len(encoder.calls) == 3
        assert caught.value.report.added == index.count() == 4
        encoder.act = lambda _: None
        assert index.add(make_all(9)).added == 5


def test_an_interrupt_in_progress_ends_the_encoder_after_the_call_it_is_in(path: Path, pairs):
    limits = replace(pairs, encode_tokens=40)
    begun = threading.Event()

    def act(call: int) -> None:
        if call == 2:
            begun.set()
            until(is_ending)

    def interrupt(progress: Progress) -> None:
        if progress.tokens:
            require(begun)
            raise KeyboardInterrupt

    encoder = Watched(act)
    with Index.open(path, model=encoder, limits=limits) as index:
        with pytest.raises(KeyboardInterrupt) as caught:
            index.add(make(1, size=20_000), progress=interrupt)
        assert len(encoder.calls) == 2
        assert caught.value.report.added == index.count() == 0
        encoder.act = lambda _: None
        assert index.add(make(1, size=20_000)).added == 1
        assert len(encoder.calls) > 50


@pytest.fixture
def ctrl_c_interrupts() -> Iterator[None]:
    """Have SIGINT interrupt, also where the tests are run with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_does_not_wait_for_a_long_call_and_the_next_does(path: Path, pairs):
    limits = replace(pairs, interrupt_seconds=0.1)
    may_end, working = threading.Event(), []

    def act(call: int) -> None:
        assert not working
        working.append(call)
        if call == 1:
            require(may_end)
        working.clear()

    def documents() -> Iterator[Document]:
        yield from make_all(2)
        until(lambda: working)
        raise KeyboardInterrupt

    encoder = Watched(act)
    with Index.open(path, model=encoder, limits=limits) as index:
        with pytest.raises(KeyboardInterrupt):
            index.add(documents())
        assert working == [1]
        threading.Timer(0.5, may_end.set).start()
        assert index.add(make_all(6)).added == 6
    assert len(encoder.threads) == 2


@pytest.mark.usefixtures("ctrl_c_interrupts")
def test_ctrl_c_is_heeded_while_the_encoder_is_waited_for(path: Path, pairs):
    main = threading.main_thread()

    def act(call: int) -> None:
        if call == 5:
            until(lambda: index.count() == 8 and is_in(main, EncoderThread.wait))
            time.sleep(MOMENT_S)  # a signal just before the wait itself would be seen after it
            signal.pthread_kill(main.ident, signal.SIGINT)
            until(is_ending)

    encoder = Watched(act)
    with Index.open(path, model=encoder, limits=pairs) as index:
        with pytest.raises(KeyboardInterrupt) as caught:
            index.add(list(make_all(60)))
        assert len(encoder.calls) == 5
        assert caught.value.report.added == index.count() == 8


def test_a_commit_that_fails_ends_the_encoder_too(path: Path, pairs, monkeypatch):
    encoder = Watched()

    def refuse(*_: object, **__: object) -> None:
        raise retriever.WriteFailed("No space is left.", hint="Make some.", durable=False)

    with Index.open(path, model=encoder, limits=pairs) as index:
        with monkeypatch.context() as patch:
            patch.setattr("retriever.storage.transaction.Transaction.add_document", refuse)
            with pytest.raises(retriever.WriteFailed) as caught:
                index.add(make_all(40))
        assert caught.value.report.added == index.count() == 0
        assert len(encoder.calls) <= 3


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_forked_while_the_encoder_works_does_not_wait_for_it(path: Path, pairs):
    forked = threading.Event()
    parent, children = os.getpid(), []

    def documents() -> Iterator[Document]:
        for number, document in enumerate(make_all(8)):
            if number == 3:
                if child := os.fork():
                    children.append(child)
                else:
                    signal.signal(signal.SIGALRM, signal.SIG_DFL)
                    signal.alarm(int(WAIT_S))
                forked.set()
            yield document

    with Index.open(path, model=Watched(lambda _: require(forked))) as index:
        try:
            index.add(documents())
        except retriever.IndexClosed:
            os._exit(0 if os.getpid() != parent else 1)
        finally:
            if os.getpid() != parent:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 0
        assert index.count() == 8


def test_a_thread_that_outlives_the_main_one_goes_on_adding(path: Path):
    code = (
        "import sys, threading\n"
        "from retriever import Index; from retriever.testing import HashEncoder\n"
        "def add():\n"
        "    threading.main_thread().join()\n"
        "    with Index.open(sys.argv[1], model=HashEncoder()) as index:\n"
        "        print(index.add(f'text {n}' for n in range(50)).added)\n"
        "threading.Thread(target=add).start()\n"
    )
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=WAIT_S * 2)
    assert done.stdout.strip() == "50"
    assert done.stderr == ""


# --- what an interrupt keeps -----------------------------------------------------------------


def interrupt_after(tokens: int) -> Callable[[Progress], None]:
    def interrupt(progress: Progress) -> None:
        if progress.tokens > tokens:
            raise KeyboardInterrupt

    return interrupt


def pending(path: Path) -> list[Path]:
    return list(path.glob("pending-*"))


@pytest.fixture
def half_encoded(path: Path, pairs) -> Iterator[tuple[Index, Watched, Document]]:
    """An index in which the encoding of a large document was cut short."""
    limits = replace(pairs, encode_tokens=400)
    large = make(1, size=20_000)
    encoder = Watched()
    with Index.open(path, model=encoder, limits=limits) as index:
        with pytest.raises(KeyboardInterrupt):
            index.add(large, progress=interrupt_after(6_000))
        assert index.count() == 0
        assert pending(path)
        yield index, encoder, large


def again(index: Index, encoder: Watched, document: Document) -> tuple[int, int]:
    """Return how many chunks a document has, and how many of them were encoded."""
    encoder.calls.clear()
    report = index.add(document)
    assert sum(map(len, encoder.calls)) == report.encoded
    return report.chunks, report.encoded


def test_a_large_document_goes_on_where_it_was_interrupted(path: Path, half_encoded):
    index, encoder, large = half_encoded
    index.add(make(2))
    assert pending(path)
    chunks, encoded = again(index, encoder, large)
    assert 0 < encoded < 0.7 * chunks
    assert not pending(path)
    found = [chunk.text for chunk in index.chunks("0001")]
    stored = index.vectors(["0001"])["0001"]
    expected = encoder.encode_queries(found).astype(np.float64)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.allclose(stored, expected, atol=1e-6)


@pytest.mark.parametrize("how", ["cut", "flipped", "gone", "a link"])
def test_damage_to_what_is_kept_ahead_costs_only_time(path: Path, half_encoded, how: str):
    index, encoder, large = half_encoded
    (file,) = pending(path)
    data = bytearray(file.read_bytes())
    if how == "flipped":
        for position in range(0, len(data), 50):
            data[position] ^= 1
        file.write_bytes(data)
    elif how == "cut":
        file.write_bytes(data[: len(data) // 2 + 5])
    else:
        file.unlink()
        if how == "a link":
            file.symlink_to(path / "HEAD")
    chunks, encoded = again(index, encoder, large)
    assert encoded == chunks or how == "cut"
    assert index.search(vector=index.vectors(["0001"])["0001"][3], k=1)[0].score > 0.9999


def test_compact_leaves_nothing_of_a_document_that_was_never_committed(path: Path, half_encoded):
    index, _, _ = half_encoded
    index.compact()
    assert not pending(path)


def test_what_is_kept_of_a_document_that_was_given_up_does_not_grow(path: Path, half_encoded):
    index, _, _ = half_encoded
    (file,) = pending(path)
    size = file.stat().st_size
    for number in range(2, 5):
        index.add(make(number, size=20_000))
        assert file.stat().st_size == size


def test_what_is_kept_ahead_is_of_one_encoder_and_its_canaries(path: Path, half_encoded):
    index, _, _ = half_encoded
    with index._pool.transaction() as connection:
        space = catalog.active_space(connection)
    other = replace(space, canaries=bytes(len(space.canaries)))
    (file,) = pending(path)
    assert PendingVectors(path, space)._path == file
    assert PendingVectors(path, other)._path != file


def test_what_is_kept_ahead_makes_room_for_the_commit(path: Path, half_encoded):
    index, _, _ = half_encoded
    (file,) = pending(path)
    with index._pool.transaction() as connection:
        space = catalog.active_space(connection)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + 10, before[1]))
    try:
        PendingVectors(path, space).keep([b"x" * 16], np.ones((1, space.dimension), np.float32))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not pending(path)


def test_progress_counts_what_is_committed(path: Path, pairs):
    said = []
    with Index.open(path, model=Watched(), limits=pairs) as index:
        index.add(make_all(21), progress=lambda p: said.append((p.done, index.count())))
    assert said[-1] == (21, 21)
    assert all(done <= count for done, count in said)
    assert len({done for done, _ in said}) > 5
