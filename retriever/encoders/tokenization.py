"""Text to tokens, with the character range of each.

Owns the Hugging Face `tokenizers` library: no other module imports it. Must not know models,
windows or chunks.

What the offsets are, by kind of tokenizer (characters of the text as given, always ascending by
start within one text of WordPiece, and never outside it):

- **WordPiece** (BERT, MPNet): the characters of the token; accents and control characters that the
  normaliser drops lie inside the range of a neighbour or in none. Whitespace lies in none.
- **Byte-level BPE** (RoBERTa): a character of several bytes may be several tokens, each with the
  range of the whole character; a token across two characters has both. A token that is only the
  space before a word is empty (`start == end`) where the post-processor trims offsets.
- **Unigram** (XLM-R, T5): the space before a word is part of its token or a token of its own; a
  leading one that the tokenizer adds has the range of the first character. A character that
  normalises to several (`㌔` to `キロ`) gives each token its own range.

Added tokens such as `[MASK]` in a text are one token. So ranges can overlap, repeat and be empty:
take the minimum of starts and the maximum of ends over a run of tokens, not the ends of the run.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Tokenizer as Backend
from tokenizers import normalizers

from retriever.encoders.protocol import Tokens
from retriever.errors import InvalidDocument, ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PROBE = "a"


class HuggingFaceTokenizer:
    """A tokenizer of the `tokenizers` library, which neither truncates nor pads here.

    Safe to use from several threads: the tokenizer is not changed after construction.

    >>> from retriever.encoders.checkpoint.resolve import resolve_model
    >>> tokenizer = resolve_model("all-MiniLM-L6-v2").load_tokenizer()
    >>> [tokens] = tokenizer.tokenize(["the seawater pump"])
    >>> tokens.starts.tolist(), tokens.ends.tolist()
    ([0, 4, 7, 13], [3, 7, 12, 17])
    """

    def __init__(self, backend: Backend) -> None:
        """Take over a tokenizer; truncation and padding are switched off on it."""
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self._unknown_id = _unknown_id(backend)

    @classmethod
    def from_file(cls, path: Path | str, *, lowercase: bool = False) -> HuggingFaceTokenizer:
        """Load a `tokenizer.json`.

        Args:
            path: The file.
            lowercase: Whether to lowercase first, unless the tokenizer does so itself: the setting
                `do_lower_case` of sentence-transformers.

        Raises:
            ModelError: The file is missing or not a tokenizer.
        """
        with _LoadErrors(path):
            backend = Backend.from_file(str(path))
        steps = _normalizer_steps(backend)
        # First of all steps, because sentence-transformers lowercases a text before its tokenizer
        # sees it.
        if lowercase and not any(isinstance(step, normalizers.Lowercase) for step in steps):
            backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *steps])
        return cls(backend)

    @classmethod
    def from_json(cls, text: str) -> HuggingFaceTokenizer:
        """Load a tokenizer from what `to_str()` of another one returned; that one is not changed.

        Raises:
            ModelError: The text is not that of a tokenizer.
        """
        with _LoadErrors("The tokenizer of a model"):
            return cls(Backend.from_str(text))

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the tokenizer's whole definition."""
        return hashlib.sha256(self._backend.to_str().encode()).hexdigest()

    def tokenize(self, texts: Sequence[str]) -> list[Tokens]:
        """Return the tokens of each text, in order, without special tokens.

        Raises:
            InvalidDocument: A text is not a string that has a UTF-8 form.
        """
        return [self._tokens(encoding) for encoding in self._encode(texts, offsets=True)]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text; faster than `tokenize`.

        Raises:
            InvalidDocument: A text is not a string that has a UTF-8 form.
        """
        return [len(encoding) for encoding in self._encode(texts, offsets=False)]

    def count(self, text: str) -> int:
        """Return the number of tokens of one text, without special tokens."""
        return self.count_tokens([text])[0]

    def count_special(self) -> int:
        """Return the number of special tokens that the model adds to one text."""
        return int(self._backend.num_special_tokens_to_add(False))

    def token_ids(self, text: str) -> list[int]:
        """Return the token ids of one text as the model gets them, special tokens included."""
        return list(self._backend.encode(text, add_special_tokens=True).ids)

    def bare_ids(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Return the token ids of each text, int32 `(tokens,)`, without special tokens.

        Raises:
            InvalidDocument: A text is not a string that has a UTF-8 form.
        """
        return [_ids(encoding) for encoding in self._encode(texts, offsets=False)]

    def with_special(
        self, bare: Sequence[NDArray[np.int32]], window: int
    ) -> list[NDArray[np.int32]]:
        """Return what `ids` gives for texts whose token ids, without special ones, are known.

        Args:
            bare: What `bare_ids` or `tokenize` found in each text.
            window: The most tokens, special tokens included.
        """
        before, after = (np.array(affix, np.int32) for affix in self._affixes)
        kept = window - len(before) - len(after)
        return [np.concatenate((before, ids[:kept], after)) for ids in bare]

    def compose_pair(self, first: str, second: str) -> list[tuple[int, int, int | None]]:
        """Return the tokens of a pair as the model gets them, special tokens included.

        Returns:
            For each token its id, its type, and which of the two texts it is from, 0 or 1, or None
            for a special token.
        """
        pair = self._backend.encode(first, second, add_special_tokens=True)
        return list(zip(pair.ids, pair.type_ids, pair.sequence_ids, strict=True))

    def ids(self, texts: Sequence[str], window: int) -> list[NDArray[np.int32]]:
        """Return the token ids of each text as the model gets them, cut at its window.

        Args:
            texts: Any number.
            window: The most tokens, special tokens included.

        Returns:
            An int32 array `(tokens,)` for each text: special tokens are kept where it is cut.

        Raises:
            InvalidDocument: A text is not a string that has a UTF-8 form.
        """
        return self.with_special(self.bare_ids(texts), window)

    @cached_property
    def knows_ascii(self) -> bool:
        """Return whether no word of up to 100 ASCII characters is unknown, or of many tokens.

        Many are more than two tokens for each character, the space before the word included.
        """
        # Each character is tried within a word too: WordPiece has other pieces for the rest of a
        # word than for its beginning, and may have only one of the two.
        characters = [chr(point) for point in range(33, 127)]
        probes = [*characters, *(f"a{character}" for character in characters)]
        return all(
            len(tokens) <= 2 * len(probe) and not tokens.unknown.any()
            for probe, tokens in zip(probes, self.tokenize(probes), strict=True)
        )

    @cached_property
    def _affixes(self) -> tuple[list[int], list[int]]:
        """Return the special tokens before and after a text."""
        whole = self._backend.encode(_PROBE, add_special_tokens=True).ids
        bare = self._backend.encode(_PROBE, add_special_tokens=False).ids
        # The library tells how many special tokens it adds, but not which of them precede the text.
        for start in range(len(whole) - len(bare) + 1):
            if bare and whole[start : start + len(bare)] == bare:
                return whole[:start], whole[start + len(bare) :]
        raise ModelError(
            f"The tokenizer turns {_PROBE!r} into {whole}, special tokens included, but into "
            f"{bare} without them.",
            hint="Write it again: `AutoTokenizer.from_pretrained(path).save_pretrained(path)`.",
        )

    def _encode(self, texts: Sequence[str], *, offsets: bool) -> list[Any]:
        # `encode_batch_fast` is faster because it computes no offsets.
        encode = self._backend.encode_batch if offsets else self._backend.encode_batch_fast
        try:
            return list(encode(list(texts), add_special_tokens=False))
        except TypeError as error:  # the library's error for a lone surrogate, and for None
            for position, text in enumerate(texts):
                check_text(text, f"Text {position}")
            raise InvalidDocument(
                f"The tokenizer refuses the texts: {error}.", hint="Pass a sequence of strings."
            ) from error

    def _tokens(self, encoding: Any) -> Tokens:
        offsets = encoding.offsets
        # fromiter over the flattened pairs: 190 ns a token, against 320 for np.array(offsets).
        flat = np.fromiter(chain.from_iterable(offsets), np.int32, 2 * len(offsets))
        ids = _ids(encoding)
        if self._unknown_id is None:
            unknown = np.zeros(len(offsets), np.bool_)
        else:
            unknown = ids == self._unknown_id
        # Copied, because a view of every other number would keep all of `flat` and is not
        # contiguous.
        return Tokens(flat[0::2].copy(), flat[1::2].copy(), unknown, ids)


def _ids(encoding: Any) -> NDArray[np.int32]:
    ids = encoding.ids
    return np.fromiter(ids, np.int32, len(ids))


def check_text(text: object, what: str) -> None:
    """Raise `InvalidDocument`, naming `what`, unless `text` is a string with a UTF-8 form."""
    if not isinstance(text, str):
        raise InvalidDocument(
            f"{what} is {type(text).__name__}, not str.", hint="Pass a sequence of strings."
        )
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidDocument(
            f"{what} has half of a surrogate pair at character {error.start}, which has no UTF-8 "
            "form.",
            hint='Decode it with errors="replace", or drop the character.',
        ) from error


def _unknown_id(backend: Backend) -> int | None:
    """Return the id of the unknown token; None for byte-level BPE, which has none."""
    model = backend.model
    if hasattr(model, "unk_token"):
        return None if model.unk_token is None else backend.token_to_id(model.unk_token)
    # Unigram has only a number for it, and shows that only in its JSON. The pattern cannot match
    # inside the vocabulary: a quote in a token is escaped there, and the field comes first.
    found = re.search(r'"unk_id":\s*(\d+)', backend.to_str())
    return int(found[1]) if found else None


def _normalizer_steps(backend: Backend) -> list[Any]:
    normalizer: Any = backend.normalizer
    if type(normalizer).__name__ == "Sequence":
        return list(normalizer)
    return [] if normalizer is None else [normalizer]


class _LoadErrors:
    """Turns what the library raises for a bad file, a bare `Exception`, into a ModelError."""

    def __init__(self, path: Path | str) -> None:
        self.path = path

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is Exception:
            raise ModelError(
                f"{self.path} is not a readable tokenizer: {error}.",
                hint="Write it again: `AutoTokenizer.from_pretrained(path).save_pretrained(path)`.",
            ) from error
