"""The indexes that are damaged, the states they went through, and all that they answer."""

from __future__ import annotations

import os
import pickle
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from retriever import Document, Index, Limits
from retriever.errors import DocumentNotFound, RetrieverError
from retriever.storage import catalog, files, layout, segments
from retriever.storage.records import FileRow
from retriever.testing import HashEncoder, unit_vectors

from .runner import require

DIMENSION = 16
QUERIES = unit_vectors(4, DIMENSION, 1)
SUPPLIED = unit_vectors(2, DIMENSION, 2)
ALL = 1_000
# Segments and rebuilt batches are small, so that a small index has several.
LIMITS = Limits(tail_rows=16, merge_segments=99, commit_documents=16)
# Killed: a log, as a kill leaves it. Closed: no log. Rebuilding: killed, and in the middle of one.
VARIANTS = {"killed": 4, "closed": 4, "rebuilding": 2}
COUNTS = ["seq", "documents", "chunks", "empty_documents", "unchunked_documents", "files"]
TOLD = ["problem_files", "model", "chunking", "tokens", "unfamiliar", "losses", "building"]

State: TypeAlias = "dict[str, Any]"


def encoder() -> HashEncoder:
    """Return the encoder of every index here."""
    return HashEncoder(DIMENSION, max_tokens=12)


def open_index(path: Path, **options: Any) -> Index:
    """Open an index as a caller does, with one thread: it is used in forked processes."""
    return Index.open(path, model=encoder(), threads=1, limits=LIMITS, **options)


# --- building --------------------------------------------------------------------------------


def _documents(numbers: Iterable[int], more: str = "") -> list[Document]:
    made = []
    for n in numbers:
        text = f"The pump number {n} stands in hall {n % 7}. " * (1 + n % 4) + f"Öl {n}{more}"
        made.append(Document(text, f"d{n:03d}", {"n": n, "more": more}, title=f"Pump {n}"))
    return made


def _begin(index: Index) -> None:
    folder = index.path.parent / "docs"
    folder.mkdir(exist_ok=True)
    (folder / "a.md").write_text("# Halls\n\nThe halls are cold.\n\n## Seven\n\nIts pump rests.\n")
    (folder / "b.pdf").write_bytes(b"%PDF-1.4")
    index.add_files(folder)
    with index._session() as writer, writer.transaction() as change:
        change.put_file(FileRow(b"docs/c.txt", "failed", "it could not be read", 7, 8, 9, 10))
        change.put_file(FileRow(b"docs/d.txt", "deleted", None, 7, 8, 9, 10, bytes(32)))
        change.put_file(FileRow(b"docs/e.txt", "partial", sha256=bytes(32)))
    index.add(_documents(range(12)))


def _add(index: Index) -> None:
    supplied = Document("Its embedding was made elsewhere.", "supplied", embedding=SUPPLIED[0])
    index.add([*_documents(range(12, 26)), Document("", "empty"), supplied])


def _delete(index: Index) -> None:
    index.delete(["d003", "d008", "d015"])


def _replace(index: Index) -> None:
    index.add(_documents(range(18, 21), " since yesterday"))


def _flush(index: Index) -> None:
    index.add(_documents(range(26, 38)))


def _cut_short(index: Index) -> None:
    index.rebuild(chunking="document", progress=lambda _: os._exit(0))


def _end(index: Index) -> None:
    index.add([*_documents(range(38, 41)), *_documents([5], " at last")])


STAGES = [_begin, _add, _delete, _replace, _flush, _end]


@dataclass
class Healthy:
    """An index, the older copies of it, and what it said at each commit.

    Attributes:
        name: Which of `VARIANTS`.
        path: The index; trials copy it.
        older: Copies from before the last commits, oldest first.
        states: What `ask` returned, by commit.
        written: Every version of a document that ever was in it, by id.
        shown: Every chunk, and every hit of a search for all, that it ever showed.
        contents: Texts, metadata, titles, vectors and fields as the database has them.
        last: The newest commit.
    """

    name: str
    path: Path
    older: list[Path] = field(default_factory=list)
    states: dict[int, State] = field(default_factory=dict)
    written: dict[str, list[Document]] = field(default_factory=dict)
    shown: set[Any] = field(default_factory=set)
    contents: list[bytes] = field(default_factory=list)
    last: int = 0

    @property
    def newest(self) -> State:
        """Return what the index says undamaged."""
        return self.states[self.last]

    @property
    def ids(self) -> list[str]:
        """Return the document ids that were asked for."""
        return [name[4:] for name in self.newest if name.startswith("get ")]


def build(name: str, folder: Path) -> Healthy:
    """Build an index of a variant, each stage in a process of its own that closes it or dies."""
    folder = folder / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    healthy = Healthy(name, folder / "healthy.index")
    stages = [*STAGES[:-1], _cut_short, STAGES[-1]] if name == "rebuilding" else STAGES
    for number, stage in enumerate(stages):
        is_closed = name == "closed" or stage is _begin
        in_a_child(lambda stage=stage, is_closed=is_closed: _run(healthy.path, stage, is_closed))
        copy = folder / f"after-{number}.index"
        shutil.copytree(healthy.path, copy)
        _record(healthy, folder, copy)
        healthy.older.append(copy)
    shutil.rmtree(healthy.older.pop())
    return healthy


def _run(path: Path, stage: Callable[[Index], None], is_closed: bool) -> None:
    index = open_index(path)
    stage(index)
    if is_closed:
        index.close()


def _record(healthy: Healthy, folder: Path, copy: Path) -> None:
    """Note what the index says now; asking leaves traces, so a second copy is asked."""
    asked = folder / "asked.index"
    shutil.copytree(copy, asked)
    ids = [*healthy.written, *(document.id or "" for document in _all_documents())]
    state, raised = in_a_child(lambda: ask(asked, dict.fromkeys(ids)))
    healthy.contents = in_a_child(lambda: _contents(asked))
    shutil.rmtree(asked)
    require(not raised, f"the healthy index says {raised}")
    healthy.last = state["status"]["seq"]
    healthy.states[healthy.last] = state
    healthy.shown |= {fingerprint(hit) for hit in state["search all"]}
    for name, answer in state.items():
        if name.startswith("chunks "):
            healthy.shown |= set(answer or ())
    for name, document in state["documents"].items():
        versions = healthy.written.setdefault(name, [])
        if document not in versions:
            versions.append(document)


def _contents(path: Path) -> list[bytes]:
    connection = sqlite3.connect(path / layout.DATABASE)
    found = connection.execute(
        "SELECT utf8 FROM texts UNION ALL SELECT metadata FROM documents"
        " UNION ALL SELECT title FROM documents UNION ALL SELECT data FROM vectors_1"
        " UNION ALL SELECT path FROM fields UNION ALL SELECT value FROM field_values WHERE type = 2"
    )
    return [value.encode() if isinstance(value, str) else value for (value,) in found if value]


def _all_documents() -> list[Document]:
    others = [Document("", name) for name in ("docs/a.md", "empty", "supplied", "never")]
    return [*_documents(range(41)), *others]


def in_a_child(work: Callable[[], Any]) -> Any:
    """Return what a function returns in a forked process, which then ends as if killed."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(ours)
        try:
            answer = (True, work())
        except BaseException as exc:
            answer = (False, f"{type(exc).__name__}: {exc}")
        with os.fdopen(theirs, "wb") as pipe:
            pipe.write(pickle.dumps(answer))
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        data = pipe.read()
    os.waitpid(pid, 0)
    if not data:
        return None
    ok, result = pickle.loads(data)
    require(ok, f"a stage of the healthy index failed: {result}")
    return result


# --- asking ----------------------------------------------------------------------------------


def ask(path: Path, ids: Iterable[str]) -> tuple[State, list[str]]:
    """Return all that an index says when it is asked everything, and the errors it raised.

    Errors of this package are noted; any other ends the trial.
    """
    said: State = {}
    raised: list[str] = []

    def note(name: str, question: Callable[[], Any]) -> None:
        try:
            said[name] = question()
        except RetrieverError as error:
            raised.append(f"{name}: {type(error).__name__}: {error}")

    try:
        index = open_index(path, read_only=True)
    except RetrieverError as error:
        return said, [f"open: {type(error).__name__}: {error}"]
    with index:
        note("documents", lambda: {document.id: document for document in index.documents()})
        note("count", index.count)
        note("status", lambda: {name: getattr(index.status(), name) for name in (*COUNTS, *TOLD)})
        for name in ids:
            note(f"get {name}", lambda name=name: index.get(name))
            note(f"chunks {name}", lambda name=name: _chunks(index, name))
        for name, question in _searches(index).items():
            note(f"search {name}", question)
    return said, raised


def _chunks(index: Index, name: str) -> Any:
    try:
        return index.chunks(name)
    except DocumentNotFound:
        return None


def _searches(index: Index) -> dict[str, Callable[[], Any]]:
    """Return searches of every form; each gives a list of hits."""

    def many(**options: Any) -> list[Any]:
        return [hit for results in index.search_many(**options) for hit in results]

    return {
        "few": lambda: list(index.search(vector=QUERIES[0], k=5)),
        "some": lambda: list(index.search(vector=QUERIES[1], k=30)),
        "text": lambda: list(index.search("pump in hall 3", k=7)),
        "all": lambda: list(
            index.search("the cold hall of pump 12", k=ALL, fold=False, mode="dense")
        ),
        "documents": lambda: list(index.search(vector=QUERIES[2], k=9, group="document")),
        "many": lambda: many(vectors=QUERIES, k=4),
        "texts": lambda: many(queries=["Öl 7", "since yesterday"], k=6, group="document"),
        "supplied": lambda: list(index.search(vector=SUPPLIED[0], k=1)),
    }


def fingerprint(hit: Any) -> tuple[Any, ...]:
    """Return all that a hit shows but its rank."""
    metadata = tuple(sorted(hit.metadata.items()))
    where = (hit.document_id, hit.chunk_id, hit.source, hit.span, hit.lines, hit.page, hit.heading)
    return (*where, hit.text, hit.score, metadata)


def ranking(hits: Iterable[Any]) -> set[tuple[str, tuple[int, int], float]]:
    """Return hits as a set without chunk ids, which a repair may have given anew."""
    return {(hit.document_id, tuple(hit.span), hit.score) for hit in hits}


# --- stamps ----------------------------------------------------------------------------------


def stamp_again(path: Path) -> None:
    """Have the catalog hold the stamps of the segments as they are now; a log stays a log."""
    uri = f"{(path / layout.DATABASE).absolute().as_uri()}"
    has_log = (path / f"{layout.DATABASE}-wal").exists()
    # The last connection to close empties the log, unless it cannot write.
    last = sqlite3.connect(f"{uri}?mode=ro", uri=True)
    if has_log:
        last.execute("SELECT count(*) FROM segments").fetchone()
    connection = sqlite3.connect(f"{uri}?mode=rw", uri=True, isolation_level=None)
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute("BEGIN IMMEDIATE")
    for segment in catalog.all_segments(connection):
        now = [file._replace(stamp=files.Stamp.of(path / file.name)) for file in segment.files]
        segments.describe_again(connection, replace(segment, files=tuple(now)))
    connection.execute("COMMIT")
    connection.close()
    last.close()


def some_ids(healthy: Healthy, rng: random.Random, count: int) -> list[str]:
    """Return document ids to ask for: some there, some deleted, one that never was."""
    return [*rng.sample(sorted(healthy.written), count), "d003", "never"]


def fresh_document() -> Document:
    """Return a document that no healthy index holds."""
    return _documents([99], " after the damage")[0]
