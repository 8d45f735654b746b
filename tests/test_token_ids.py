"""Token ids that the chunker hands to the encoder are those that the encoder would find itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from test_chunking import FAMILIES, tokenizer_of

from retriever import Index
from retriever.config import Chunking
from retriever.documents.chunking import Chunker
from retriever.documents.parsers import parse
from retriever.encoders.bi_encoder import BiEncoder, load_encoder
from retriever.encoders.checked import Tokenized
from retriever.encoders.computing import Computing
from retriever.encoders.model_options import ModelOptions
from retriever.encoders.tokenization import HuggingFaceTokenizer
from retriever.types import Document

MINILM = "all-MiniLM-L6-v2"
FLOAT32 = Computing(precision="float32")
HANDBOOK = Path(__file__).parent.parent / "data" / "handbook"
ODD = [
    "",
    " \n\t ",
    "x" * 9_000,
    "a\u0301" * 300 + " [MASK] ㌔㍍ 東京タワー",
    "| pump | date |\n|---|---|\n" + "| the second pump | 3 May |\n" * 300,
    "word " * 2_000,
]


def documents() -> list[Document]:
    files = sorted(path for path in HANDBOOK.rglob("*") if path.is_file())
    return [
        *(document for path in files for document in parse(path.read_bytes(), path.name)),
        *map(Document, ODD),
    ]


def tokenized(chunker: Chunker, chunking: Chunking, given: Sequence[Document]) -> list[Tokenized]:
    """Return what the encoder is given for the chunks of documents."""
    return [
        Tokenized(chunking.encoded_text(chunk), ids)
        for one in chunker.chunk_with_ids(given)
        for chunk, ids in zip(one.chunks, one.ids, strict=True)
    ]


@pytest.mark.parametrize(
    "chunking",
    [
        Chunking(),
        Chunking(tokens=40, overlap=10),
        Chunking(prefix_headings=True),
        Chunking("document"),
    ],
    ids=["window", "short", "headings", "document"],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_ids_are_those_of_the_text_that_is_encoded(family: str, chunking: Chunking):
    tokenizer = tokenizer_of(family)
    found = tokenized(Chunker(tokenizer, 254, chunking), chunking, documents())
    assert len(found) > 50
    known = [one.ids for one in found if one.ids is not None]
    assert len(known) == len(found)
    texts = [one.text for one in found]
    for one, expected in zip(known, tokenizer.bare_ids(texts), strict=True):
        assert one.dtype == np.int32
        assert one.tolist() == expected.tolist()
    for window in (256, 12):
        whole = tokenizer.with_special(known, window)
        assert all(map(np.array_equal, whole, tokenizer.ids(texts, window)))


class Counting(HuggingFaceTokenizer):
    """Notes each text that it is asked to tokenise."""

    seen: list[str]

    def _encode(self, texts, *, offsets):
        self.seen += texts
        return super()._encode(texts, offsets=offsets)


@pytest.fixture
def counting() -> Iterator[tuple[BiEncoder, list[str]]]:
    encoder = load_encoder(MINILM, FLOAT32)
    tokenizer = Counting(encoder.tokenizer._backend)
    seen = tokenizer.seen = []
    encoder.__dict__["tokenizer"] = tokenizer  # where the cached property keeps it
    return encoder, seen


def test_vectors_are_the_same_to_the_last_bit():
    encoder = load_encoder(MINILM, FLOAT32)
    encoder.end_warm_up()
    for chunking in (Chunking(), Chunking("document"), Chunking(tokens=64)):
        chunker = Chunker(encoder.tokenizer, encoder.max_tokens, chunking)
        found = tokenized(chunker, chunking, documents()[::6])
        given = encoder.encode_tokenized(found)
        np.testing.assert_array_equal(given, encoder.encode_documents([one.text for one in found]))


def test_a_text_of_one_chunk_is_tokenised_once_and_others_twice(counting, tmp_path: Path):
    encoder, seen = counting
    with Index.open(tmp_path / "x.index", model=encoder) as index:
        index.add("to load the model, and to see that it is the one of the index")
        seen.clear()
        short = [f"The harbour has {number} berths." for number in range(20)]
        index.add(short)
        assert sorted(seen) == sorted(short)
        seen.clear()
        long = "The ferry leaves at noon. " * 200
        index.add(Document(long, id="long"))
        chunks = [chunk.text for chunk in index.chunks("long")]
        assert len(chunks) > 3
        assert seen[0] == long.strip()
        assert sorted(seen[1:]) == sorted(chunks)


def test_a_prompt_before_each_document_is_tokenised_with_it(tmp_path: Path):
    options = ModelOptions.given({"document": "passage:"}, None)
    encoder = load_encoder(MINILM, FLOAT32, options=options)
    texts = ["reset the pump", "noon"]
    expected = encoder.encode_documents(texts)
    ids = encoder.tokenizer.bare_ids(texts)
    given = encoder.encode_tokenized(list(map(Tokenized, texts, ids)))
    np.testing.assert_array_equal(given, expected)
    bare = load_encoder(MINILM, FLOAT32).encode_documents(texts)
    assert (np.sum(bare * expected, axis=1) < 0.999).all()


def test_texts_without_ids_are_tokenised_by_the_encoder():
    encoder = load_encoder(MINILM, FLOAT32)
    texts = ["reset the pump", "noon"]
    [ids, _] = encoder.tokenizer.bare_ids(texts)
    given = encoder.encode_tokenized([Tokenized(texts[0], ids), Tokenized(texts[1])])
    np.testing.assert_array_equal(given, encoder.encode_documents(texts))
