"""`Index`, the public class. It delegates to the packages below it and holds no algorithm."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from retriever import arguments, opening, pickling
from retriever.config import ChunkingLike
from retriever.encoders.computing import Computing
from retriever.encoders.loading import Encoders, EncoderSource, Model
from retriever.encoders.model_options import ModelOptions
from retriever.errors import InvalidConfig
from retriever.index.maintaining import Maintaining
from retriever.index.reading import Reading
from retriever.index.searching import Searching
from retriever.index.state import PathLike
from retriever.index.writing import Writing
from retriever.limits import Limits
from retriever.search.reranker_source import RerankerSource
from retriever.search.segment_kinds import KINDS
from retriever.storage import base_folder, catalog
from retriever.types import ProgressCallback

# Modules that only writing and maintenance need are imported where they are called, so that a
# search on the command line does not wait for them.
if TYPE_CHECKING:
    from retriever.reports import IngestReport


class Index(Searching, Reading, Writing, Maintaining):
    """An index of documents in a directory, searched by meaning.

    Created by `Index.open`. It is safe to use from any thread. After a fork every call raises
    `IndexClosed`: open the index in the worker, and do not fork inside `writing()`. It pickles as
    its path, model and options, so that a spawned worker opens it again. Reading takes no lock
    and never blocks writing; one process writes at a time.

    Examples:
        >>> with Index.open("water.index", model="all-MiniLM-L6-v2") as index:
        ...     report = index.add_files("data/handbook/water")
        ...     for hit in index.search("The pump trips twice, may I press again?", k=1):
        ...         print(f"{hit.score:.2f}", hit.citation)
        0.60 data/handbook/water/tarn-lift-pump.md:18
    """

    @classmethod
    def open(
        cls,
        path: PathLike,
        *,
        model: Model | None = None,
        dimension: int | None = None,
        prompt: str | Mapping[str, str] | None = None,
        dimensions: int | None = None,
        chunking: ChunkingLike = None,
        base: PathLike | None = None,
        read_only: bool = False,
        allow_download: bool = False,
        threads: int | None = None,
        lock_timeout_s: float | None = 10.0,
        precision: str = "auto",
        device: str | None = None,
        check: Literal["quick", "full"] = "quick",
        limits: Limits | None = None,
    ) -> Index:
        """Open an index; create it if nothing is at `path` and `model` is given.

        Opening an existing index takes no lock, writes nothing and loads no model.

        Args:
            path: The index directory. In every path a leading `~` is the home folder.
            model: A name (`all-MiniLM-L6-v2`), a path, a `SentenceTransformer` object, or an
                `Encoder`. Required to create an index; for an existing one it must be the model
                that the index was built with.
            dimension: Create an index without a model, for embeddings of this length that come
                with the documents: each needs an `embedding`, and searches a `vector`. Not needed
                for an existing index.
            prompt: The text to put before each question, or a dict with the text to put before a
                `query` and a `document`, replacing the model's own prompts.
            dimensions: Keep only the first N dimensions of each vector of `model`, scaled to unit
                length again, for models trained for it (Matryoshka). Prompts and dimensions are
                recorded in the index and not needed for an existing one.
            chunking: How documents are split: a `Chunking`, its fields as a dict, `"document"` for
                one vector per document, or None for windows of the encoder. Fixed at creation.
            base: The folder that file names and citations are relative to. It is recorded in the
                index at creation, by default as the index's parent, and found again if index and
                folder move together or only the index moves. Another base is recorded by the next
                `add_files`; see there.
            read_only: Refuse every call that writes.
            allow_download: Download a missing model from the hub; by default nothing is.
            threads: Maximum number of threads of faiss, of the encoder, and of NumPy while it works
                for this index, from 1 to 1,024.
            lock_timeout_s: Seconds a writing call waits for another writer; 0 does not wait, None
                and infinity wait for ever. A long call that lets others write between its commits
                waits for at least ten minutes to continue.
            precision: The precision of a model given by name or path. `auto` is, for documents,
                the fastest precision of this machine that keeps the quality (bfloat16 on
                processors that support it, else float32), and float32 for questions, so that
                scores are the same in every process; on a GPU it is float16 for both. `float32` is
                exact to 1e-5. `int8` is faster still on a CPU, loses some quality, and is never
                chosen by `auto`. A precision other than `auto` is used for questions too. It is
                not part of the model's identity: an index built in one opens in another.
            device: The device for a model given by name or path: `cpu`, or a torch device such as
                `cuda:1`. None is a GPU if torch can see one, else the CPU; with `int8` the CPU.
            check: `full` verifies every stored byte first.
            limits: How much is read, encoded, committed, merged and kept open at a time; None for
                the defaults. They apply to this object only and are not recorded.

        Raises:
            IndexNotFound: There is no index and no model was given, or the directory holds
                something else.
            InvalidConfig: An option is invalid, `chunking` is not what the index was created with,
                `base` is not a folder, or `device` or `precision` is not available.
            MissingDependency: `device` is a GPU, and torch is not installed.
            ModelMismatch: `model` is not the one that the index was built with; names the field.
            ModelUnavailable: The model is not on this machine.
            FormatMismatch: The index was written in another format.
            IndexCorrupt: Stored bytes are not what was written.
            DataLoss: Acknowledged commits are missing.
            IndexClosed: This process was forked while its parent was using the index.
        """
        base = None if base is None else base_folder.given(base)
        # The options that open the index again in a worker. Taken from all parameters, so that a
        # new parameter cannot be forgotten here.
        # `locals()` is read before any other variable is set, or it would pass for an option.
        once = ("cls", "path", "model", "dimension", "prompt", "dimensions", "chunking", "check")
        options = {name: given for name, given in locals().items() if name not in (*once, "once")}
        for name in ("read_only", "allow_download"):
            arguments.flag(options[name], name)
        arguments.choice(check, "check", ("quick", "full"))
        lock_timeout_s = arguments.seconds(lock_timeout_s, "lock_timeout_s")
        limits = arguments.instance(limits, "limits", Limits) or Limits()
        directory = arguments.path(path, "path").absolute()
        computing = Computing(threads=threads, device=device, precision=precision)
        asked = ModelOptions.given(prompt, dimensions)
        source = EncoderSource(
            model, allow_download=allow_download, computing=computing, options=asked
        )
        pool = opening.open_or_create(
            directory,
            source,
            chunking,
            base=base,
            dimension=opening.check_dimension(
                dimension, names_model=model is not None or bool(asked)
            ),
            may_create=(model is not None or dimension is not None) and not read_only,
            lock_timeout_s=lock_timeout_s,
            limits=limits,
        )
        index = cls(
            directory,
            pool,
            Encoders(source),
            RerankerSource(allow_download=allow_download, computing=computing),
            read_only=read_only,
            threads=computing.threads,
            lock_timeout_s=lock_timeout_s,
            base=base,
            limits=limits,
            options=options,
        )
        if check == "full":
            _require_intact(index)
        return index

    @classmethod
    def adopt(
        cls,
        stranger: PathLike,
        target: PathLike,
        *,
        model: Model | None = None,
        prompt: str | Mapping[str, str] | None = None,
        dimensions: int | None = None,
        chunking: ChunkingLike = None,
        allow_download: bool = False,
        threads: int | None = None,
        precision: str = "auto",
        device: str | None = None,
        limits: Limits | None = None,
        discard_embeddings: bool = False,
        progress: ProgressCallback | None = None,
    ) -> IngestReport:
        """Copy the documents of an index from an untrusted source into a new index.

        `open` is for indexes whose author you trust: it uses their vectors and loads the model
        that they name. This call reads text, ids, metadata, sources, titles, headings and pages,
        checks each document as `add` does, and encodes the texts with your model. The stored
        vectors are not used, since only encoding again could show whether they are right. Segments
        and records of files are not read either: documents that came from files become added
        documents, which `add_files` does not update.

        The new index is written beside `target` and renamed; if the call fails, there is none.

        Args:
            stranger: The index to read. It is not changed.
            target: The directory to create.
            model: As for `open`. It is needed unless the index was made without a model
                (`dimension=`); then its documents are adopted with their embeddings.
            prompt: As for `open`; the recorded prompts and dimensions are not used.
            dimensions: As for `open`.
            chunking: As for `open`; options that are not given are those of the untrusted index.
            allow_download: As for `open`.
            threads: As for `open`.
            precision: As for `open`.
            device: As for `open`.
            limits: As for `open`.
            discard_embeddings: Encode the texts of documents that were added with an embedding.
                Otherwise such embeddings are kept if they are recorded as those of your model,
                and are an error if they are of another.
            progress: Called with a `Progress` from time to time.

        Returns:
            What was written, counted as by `add`. A document whose text your encoder cannot
            encode, while it encodes others, is left out and listed under `failed`.

        Raises:
            IndexNotFound: There is no index at `stranger`.
            IndexExists: Something is at `target` already.
            IndexCorrupt: A page, a row or a document of the untrusted index is invalid.
            DataLoss, FormatMismatch: As for `open`.
            ModelUnavailable: No model was given and one is needed, or it is not on this machine.
            InvalidConfig: As for `open`; or there are embeddings of another model.
            WriteFailed: The new index cannot be written.
        """
        from retriever import adopting
        from retriever.storage.backup import directory_when_complete

        source = arguments.path(stranger, "stranger").absolute()
        own = arguments.path(target, "target").absolute()
        arguments.flag(discard_embeddings, "discard_embeddings")
        arguments.callback(progress, "progress")
        with (
            # Outermost, so that both indexes are closed before the directory is renamed.
            directory_when_complete(own) as aside,
            adopting.open_foreign(source) as foreign,
            cls.open(
                aside,
                model=model,
                dimension=foreign.dimension_without(model, discard=discard_embeddings),
                prompt=prompt,
                dimensions=dimensions,
                chunking=foreign.chunking(chunking),
                allow_download=allow_download,
                threads=threads,
                precision=precision,
                device=device,
                limits=limits,
            ) as index,
        ):
            with index._pool.transaction() as connection:
                space = catalog.active_space(connection)
            keeps = foreign.keeps_embeddings(space, discard=discard_embeddings)
            try:
                return index.add(
                    foreign.documents(embeddings=keeps),
                    on_invalid=foreign.refuse,
                    progress=foreign.counted(progress),
                )
            except BaseException as exc:
                exc.report = None  # type: ignore[attr-defined]  # what was committed is removed
                raise

    def close(self) -> None:
        """Close the index; does nothing if it is closed already, or in a forked child."""
        if self._pool.is_inherited:
            return
        self._views.forget()
        self._pool.close()
        # Only a writer takes the lock when it closes; reading takes none.
        if self._sessions.has_written:
            self._sessions.has_written = False
            opening.tidy(self.path)

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Index({os.fspath(self.path)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Support pickling as path, model and options, with which another process opens the index.

        Raises:
            InvalidConfig: The encoder cannot be pickled; or this thread is inside `writing()`,
                where the other process would wait for the lock of this one.
        """
        if self._sessions.is_of_this_thread:
            raise InvalidConfig(
                f"{self.path} cannot be pickled inside writing(): the process that opens it would "
                "wait for this block to end.",
                hint="Leave the block first.",
            )
        return pickling.as_arguments(
            type(self), self.path, self._encoders.source.model, self._options
        )


def _require_intact(index: Index) -> None:
    """Verify every stored byte of an index, and close it if it is damaged."""
    from retriever.storage import integrity

    try:
        integrity.require_intact(index.path, KINDS)
    except BaseException:
        index.close()
        raise
