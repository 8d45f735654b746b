"""Whole systems, from texts to hits, each behind the same few calls and driven as documented.

All get the same weights and the same texts, which those that do not chunk cut at the model's
window. Packages are imported when a system is loaded.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from . import runtimes

COLLECTION = "corpus"

Entry = tuple[str, str]


class Store:
    """A system that indexes texts and finds them.

    Attributes:
        needs: Modules that must be importable.
    """

    needs: tuple[str, ...] = ()

    def load(self, model: str, forms: str, folder: str, threads: int) -> dict[str, Any]:
        """Import what is needed and load the model; return the seconds that takes."""
        began = time.perf_counter()
        self.folder, self.threads = Path(folder), threads
        self.prepare(model, forms)
        return {"seconds": time.perf_counter() - began}

    def fill(self, path: str) -> dict[str, Any]:
        """Index the entries of a file, durably; return the seconds that takes."""
        entries = [(name, text) for name, text in json.loads(Path(path).read_text())]
        began, cpu = time.perf_counter(), time.process_time()
        self.index(entries)
        return {"seconds": time.perf_counter() - began, "cpu_s": time.process_time() - cpu}

    def reopen(self) -> None:
        """Open what was indexed before."""
        self.open()

    def ask(self, path: str, first: int, count: int, k: int) -> dict[str, Any]:
        """Search for some questions of a file, one by one; return seconds and ids of each."""
        seconds, ids = [], []
        for question in json.loads(Path(path).read_text())[first : first + count]:
            began = time.perf_counter()
            ids.append(self.search(question, k))
            seconds.append(time.perf_counter() - began)
        return {"seconds": seconds, "ids": ids}

    def prepare(self, model: str, forms: str) -> None:
        """Import what is needed and load the model."""
        raise NotImplementedError

    def index(self, entries: Sequence[Entry]) -> None:
        """Index entries and save the index."""
        raise NotImplementedError

    def open(self) -> None:
        """Open the index that was saved."""
        raise NotImplementedError

    def search(self, question: str, k: int) -> list[str]:
        """Return the ids of the best hits, best first."""
        raise NotImplementedError


class _Retriever(Store):
    """This project; without a precision, as it comes."""

    needs = ("retriever",)

    def __init__(self, unit: str = "document", precision: str | None = None) -> None:
        self._options: dict[str, Any] = {"chunking": unit}
        if precision is not None:
            self._options["precision"] = precision

    def prepare(self, model: str, forms: str) -> None:
        from retriever import Index

        # Encodes the canaries, so the model is loaded.
        path = self.folder / "retriever.index"
        self._index = Index.open(path, model=model, threads=self.threads, **self._options)
        self._path, self._model = path, model

    def index(self, entries: Sequence[Entry]) -> None:
        from retriever import Document

        self._index.add([Document(text, id=name) for name, text in entries])

    def open(self) -> None:
        """Nothing: it is open, and an index of the same path and options is taken up again."""

    def search(self, question: str, k: int) -> list[str]:
        found = self._index.search(question, k=k, mode="dense")
        return [hit.document_id for hit in found]


class _EncodingAlone(Store):
    """The floor: this project's encoder at a precision, nothing stored and nothing searched."""

    needs = ("retriever",)

    def __init__(self, precision: str = "auto") -> None:
        self._precision = precision

    def prepare(self, model: str, forms: str) -> None:
        self._encoder = runtimes.load_ours(model, self.threads, self._precision)
        self._encoder.encode_documents(["a text"])

    def index(self, entries: Sequence[Entry]) -> None:
        self._encoder.encode_documents([text for _, text in entries])

    def open(self) -> None:
        """Nothing."""

    def search(self, question: str, k: int) -> list[str]:
        self._encoder.encode_queries([question])
        return []


class _Txtai(Store):
    needs = ("txtai",)

    def prepare(self, model: str, forms: str) -> None:
        from txtai import Embeddings

        self._embeddings = Embeddings(path=model, content=True)

    def index(self, entries: Sequence[Entry]) -> None:
        self._embeddings.index([(name, text, None) for name, text in entries])
        self._embeddings.save(str(self.folder / "txtai"))

    def open(self) -> None:
        self._embeddings.load(str(self.folder / "txtai"))

    def search(self, question: str, k: int) -> list[str]:
        return [hit["id"] for hit in self._embeddings.search(question, k)]


class _Chroma(Store):
    needs = ("chromadb", "sentence_transformers")
    most = 1000

    def prepare(self, model: str, forms: str) -> None:
        import chromadb
        from chromadb.utils.embedding_functions import SentenceTransformerEmbeddingFunction

        client = chromadb.PersistentClient(str(self.folder / "chroma"))
        self._collection = client.get_or_create_collection(
            COLLECTION,
            embedding_function=SentenceTransformerEmbeddingFunction(model),
            metadata={"hnsw:space": "cosine"},
        )

    def index(self, entries: Sequence[Entry]) -> None:
        for first in range(0, len(entries), self.most):
            names, texts = zip(*entries[first : first + self.most], strict=True)
            self._collection.add(ids=list(names), documents=list(texts))

    def open(self) -> None:
        """Nothing: the collection is the one on disk."""

    def search(self, question: str, k: int) -> list[str]:
        return self._collection.query(query_texts=[question], n_results=k)["ids"][0]


class _LangChain(Store):
    needs = ("langchain_community", "langchain_huggingface", "faiss")

    def prepare(self, model: str, forms: str) -> None:
        from langchain_huggingface import HuggingFaceEmbeddings

        self._embeddings = HuggingFaceEmbeddings(
            model_name=model, encode_kwargs={"normalize_embeddings": True}
        )

    def index(self, entries: Sequence[Entry]) -> None:
        from langchain_community.vectorstores import FAISS

        names, texts = zip(*entries, strict=True)
        self._store = FAISS.from_texts(
            list(texts), self._embeddings, metadatas=[{"id": name} for name in names]
        )
        self._store.save_local(str(self.folder / "langchain"))

    def open(self) -> None:
        from langchain_community.vectorstores import FAISS

        self._store = FAISS.load_local(
            str(self.folder / "langchain"), self._embeddings, allow_dangerous_deserialization=True
        )

    def search(self, question: str, k: int) -> list[str]:
        return [hit.metadata["id"] for hit in self._store.similarity_search(question, k)]


class _LlamaIndex(Store):
    needs = (
        "llama_index.core",
        "llama_index.embeddings.huggingface",
        "llama_index.vector_stores.faiss",
    )

    def prepare(self, model: str, forms: str) -> None:
        from llama_index.embeddings.huggingface import HuggingFaceEmbedding

        self._embedding = HuggingFaceEmbedding(model_name=model, device="cpu", embed_batch_size=32)

    def index(self, entries: Sequence[Entry]) -> None:
        import faiss
        from llama_index.core import StorageContext, VectorStoreIndex
        from llama_index.core.schema import TextNode
        from llama_index.vector_stores.faiss import FaissVectorStore

        store = FaissVectorStore(faiss.IndexFlatIP(384))
        context = StorageContext.from_defaults(vector_store=store)
        self._index = VectorStoreIndex(
            [TextNode(text=text, id_=name) for name, text in entries],
            storage_context=context,
            embed_model=self._embedding,
        )
        context.persist(str(self.folder / "llama"))

    def open(self) -> None:
        from llama_index.core import StorageContext, load_index_from_storage
        from llama_index.vector_stores.faiss import FaissVectorStore

        path = str(self.folder / "llama")
        store = FaissVectorStore.from_persist_dir(path)
        context = StorageContext.from_defaults(vector_store=store, persist_dir=path)
        self._index = load_index_from_storage(context, embed_model=self._embedding)

    def search(self, question: str, k: int) -> list[str]:
        retriever = self._index.as_retriever(similarity_top_k=k)
        return [hit.node.node_id for hit in retriever.retrieve(question)]


class _QdrantFastembed(Store):
    needs = ("qdrant_client", "fastembed")

    def prepare(self, model: str, forms: str) -> None:
        from qdrant_client import QdrantClient

        self._model = runtimes.open_fastembed(forms, self.threads)
        self._client = QdrantClient(path=str(self.folder / "qdrant"))

    def index(self, entries: Sequence[Entry]) -> None:
        from qdrant_client import models

        size = models.VectorParams(size=384, distance=models.Distance.COSINE)
        self._client.create_collection(COLLECTION, vectors_config=size)
        self._client.upload_collection(
            COLLECTION,
            vectors=list(self._model.embed([text for _, text in entries])),
            payload=[{"id": name, "text": text} for name, text in entries],
            ids=range(len(entries)),
        )

    def open(self) -> None:
        """Nothing: the collection is the one on disk."""

    def search(self, question: str, k: int) -> list[str]:
        vector = next(iter(self._model.query_embed(question)))
        points = self._client.query_points(COLLECTION, query=vector.tolist(), limit=k).points
        return [point.payload["id"] for point in points]


OURS, OURS_EXACT = "retriever", "retriever, float32"
OURS_CHUNKED, FLOOR = "retriever, default chunking", "retriever, encoding alone"
SYSTEMS: dict[str, Any] = {
    OURS: _Retriever,
    OURS_EXACT: partial(_Retriever, precision="float32"),
    OURS_CHUNKED: partial(_Retriever, "window"),
    FLOOR: _EncodingAlone,
    "txtai": _Txtai,
    "Chroma": _Chroma,
    "LangChain + FAISS": _LangChain,
    "LlamaIndex + FAISS": _LlamaIndex,
    "Qdrant + fastembed": _QdrantFastembed,
}
PEERS = tuple(name for name in SYSTEMS if not name.startswith(OURS))
