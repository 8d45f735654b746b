from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers

from retriever.encoders.checkpoint.resolve import resolve_model
from retriever.encoders.protocol import Tokenizer, Tokens
from retriever.encoders.tokenization import HuggingFaceTokenizer
from retriever.errors import InvalidDocument, ModelError

SENTENCES = [
    "Reset the pump after a power failure and wait thirty seconds.",
    "Die Größe der Straße überraschte den Läufer.",
    "東京タワーの夜景 is bright; naïve façades are not.",
    "def area(radius): return 3.14 * radius ** 2",
]


def byte_level() -> Backend:
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(SENTENCES, trainer)
    return backend


def unigram() -> Backend:
    backend = Backend(models.Unigram())
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=200,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        unk_token="<unk>",
        show_progress=False,
    )
    backend.train_from_iterator(SENTENCES, trainer)
    return backend


def word_piece() -> Backend:
    backend = Backend(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=300, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]"], show_progress=False
    )
    backend.train_from_iterator(SENTENCES, trainer)
    return backend


FAMILIES = [
    pytest.param(word_piece, id="wordpiece"),
    pytest.param(byte_level, id="byte-level"),
    pytest.param(unigram, id="unigram"),
]


@pytest.fixture(autouse=True)
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def minilm() -> HuggingFaceTokenizer:
    return resolve_model("all-MiniLM-L6-v2").load_tokenizer()


def spans(tokens: Tokens) -> list[tuple[int, int]]:
    return list(zip(tokens.starts.tolist(), tokens.ends.tolist(), strict=True))


@pytest.mark.model
def test_offsets_are_characters_of_the_text_as_given(minilm: HuggingFaceTokenizer) -> None:
    text = "Ünïcödé  🚀 worldly"
    [tokens] = minilm.tokenize([text])
    pieces = [text[start:end] for start, end in spans(tokens)]
    assert pieces == ["Ünïcödé", "🚀", "world", "ly"]
    assert tokens.unknown.tolist() == [False, True, False, False]
    assert (tokens.starts.dtype, tokens.ends.dtype) == (np.int32, np.int32)
    assert tokens.starts.flags.c_contiguous
    assert len(tokens) == 4


@pytest.mark.model
def test_the_truncation_and_padding_of_the_file_are_off(minilm: HuggingFaceTokenizer) -> None:
    short, long = minilm.tokenize(["pump", "pump " * 1000])
    assert (len(short), len(long)) == (1, 1000)
    assert minilm.count("pump " * 1000) == 1000
    assert len(minilm.token_ids("pump " * 1000)) == 1002
    assert minilm.count_special() == 2


@pytest.mark.model
def test_a_word_of_over_a_hundred_characters_is_unknown(minilm: HuggingFaceTokenizer) -> None:
    [tokens] = minilm.tokenize(["x" * 101])
    assert spans(tokens) == [(0, 101)]
    assert tokens.unknown.tolist() == [True]


@pytest.mark.parametrize("family", FAMILIES)
def test_offsets_stay_inside_the_text_and_counts_agree(family: Callable[[], Backend]) -> None:
    tokenizer = HuggingFaceTokenizer(family())
    texts = [*SENTENCES, "", " ", "\n\n", "👩‍🚀 Ⅷ ㌔ ﬁn e\u0301", "a\x00b", " leading", "trailing "]
    tokenized = tokenizer.tokenize(texts)
    assert isinstance(tokenizer, Tokenizer)
    assert tokenizer.count_tokens(texts) == [len(tokens) for tokens in tokenized]
    assert [tokenizer.count(text) for text in texts] == tokenizer.count_tokens(texts)
    for text, tokens in zip(texts, tokenized, strict=True):
        assert (tokens.starts >= 0).all()
        assert (tokens.starts <= tokens.ends).all()
        assert (tokens.ends <= len(text)).all()
        assert len(tokens.unknown) == len(tokens)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_letter_lies_in_a_token(family: Callable[[], Backend]) -> None:
    tokenizer = HuggingFaceTokenizer(family())
    for text, tokens in zip(SENTENCES, tokenizer.tokenize(SENTENCES), strict=True):
        covered = {at for start, end in spans(tokens) for at in range(start, end)}
        assert {at for at, character in enumerate(text) if not character.isspace()} <= covered


def test_several_byte_tokens_share_the_range_of_their_character() -> None:
    [tokens] = HuggingFaceTokenizer(byte_level()).tokenize(["🛟"])
    assert spans(tokens) == [(0, 1)] * 4
    assert not tokens.unknown.any()


def test_unigram_names_what_it_does_not_know() -> None:
    [known, unknown] = HuggingFaceTokenizer(unigram()).tokenize(["pump", "ꙮ"])
    assert not known.unknown.any()
    assert unknown.unknown.any()


def test_no_texts_and_no_tokens() -> None:
    tokenizer = HuggingFaceTokenizer(word_piece())
    assert tokenizer.tokenize([]) == []
    [empty] = tokenizer.tokenize([""])
    assert (len(empty), empty.starts.dtype, empty.unknown.dtype) == (0, np.int32, np.bool_)


@pytest.mark.parametrize("text", ["a\ud800b", None, 3])
def test_what_is_not_text_is_named(text: object) -> None:
    tokenizer = HuggingFaceTokenizer(word_piece())
    with pytest.raises(InvalidDocument, match="Text 1") as caught:
        tokenizer.tokenize(["fine", text])  # type: ignore[list-item]
    assert caught.value.hint
    with pytest.raises(InvalidDocument, match="Text 0"):
        tokenizer.count_tokens([text])  # type: ignore[list-item]


def test_lowercase_is_added_only_where_it_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    backend = unigram()
    backend.save(str(path))
    plain = HuggingFaceTokenizer.from_file(path)
    lowered = HuggingFaceTokenizer.from_file(path, lowercase=True)
    assert lowered.token_ids("PUMP ㌔") == plain.token_ids("pump ㌔") != plain.token_ids("PUMP ㌔")
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    backend.save(str(path))
    again = HuggingFaceTokenizer.from_file(path, lowercase=True)
    assert again.token_ids("PUMP ㌔") == plain.token_ids("pump ㌔")


@pytest.mark.parametrize("content", ["", "{}", "[1]", json.dumps({"model": {"type": "Nope"}})])
def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(ModelError, match="not a readable tokenizer") as caught:
        HuggingFaceTokenizer.from_file(path)
    assert str(path) in caught.value.message
    assert "save_pretrained" in caught.value.hint


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="No such file"):
        HuggingFaceTokenizer.from_file(tmp_path / "tokenizer.json")


def test_threads_tokenize_the_same() -> None:
    tokenizer = HuggingFaceTokenizer(byte_level())
    expected = [spans(tokens) for tokens in tokenizer.tokenize(SENTENCES)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: tokenizer.tokenize(SENTENCES), range(50)))
    assert len(results) == 50
    assert all([spans(tokens) for tokens in result] == expected for result in results)
