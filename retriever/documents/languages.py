"""Which language a text is in: the only module that imports py3langid.

The model of py3langid takes half a second to load: 139 languages, naive Bayes over sequences of
bytes (Lui and Baldwin, "langid.py: An Off-the-shelf Language Identification Tool", ACL 2012). It
is asked only where neither the script of a text says its language nor its function words do.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from functools import cache
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any

from retriever.documents.words.stop_words import stop_words_as_written
from retriever.errors import WriteFailed

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

    from retriever.types import Document

_PLACES = 4  # a sample is taken from so many places of a text
_SAMPLE = 300  # characters of each
_FEWEST = 24  # letters in a sample, or characters of an unspaced script times 4
_CONFIDENCE = 0.4
_SYMBOLS = 0.15  # share of programming's signs from which a text is mostly code
# Scripts that one language, or by far most text of them, is written in. Where Han stands beside
# kana the language is Japanese.
_SCRIPTS = (
    ("ja", (("\u3041", "\u30ff"),)),
    ("ko", (("\uac00", "\ud7a3"), ("\u1100", "\u11ff"))),
    ("zh", (("\u4e00", "\u9fff"), ("\u3400", "\u4dbf"))),
    ("th", (("\u0e01", "\u0e4e"),)),
    ("lo", (("\u0e81", "\u0edf"),)),
    ("my", (("\u1000", "\u109f"),)),
    ("km", (("\u1780", "\u17dd"),)),
    ("el", (("\u0370", "\u03ff"), ("\u1f00", "\u1fff"))),
    ("hy", (("\u0531", "\u058f"),)),
    ("ka", (("\u10a0", "\u10ff"), ("\u1c90", "\u1cbf"))),
    ("pa", (("\u0a00", "\u0a7f"),)),
    ("gu", (("\u0a80", "\u0aff"),)),
    ("or", (("\u0b00", "\u0b7f"),)),
    ("ta", (("\u0b80", "\u0bff"),)),
    ("te", (("\u0c00", "\u0c7f"),)),
    ("kn", (("\u0c80", "\u0cff"),)),
    ("ml", (("\u0d00", "\u0d7f"),)),
    ("si", (("\u0d80", "\u0dff"),)),
)
# A character of these says as much as several letters.
_DENSE = frozenset(("ja", "ko", "zh"))
# Languages whose function words no other language of the model shares in such numbers.
_BY_FUNCTION_WORDS = ("en", "de", "fr")
_FUNCTION_WORDS = 6  # of one language, at least
_SHARE = 0.2  # of all words that these are
# Labels of the model under the language whose words they share; others of three letters, and
# "no language" (zxx), are None.
_SAME = {"nn": "no", "wuu": "zh", "yue": "zh", "ary": "ar", "arz": "ar", "grc": "el", "hbo": "he"}
_CODE = frozenset("{}[]()<>=;_$#&|*\\")
# Addresses, tags, entities and the marks of CDATA say nothing of the language.
_MARKUP = re.compile(r"://\S+|<!\[CDATA\[|<[^<>]{1,200}>|&#?\w{1,8};|@[\w.]+")
_NONE: tuple[str, ...] = ()
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")


def language_of(document: Document) -> str | None:
    """Return the language of a document, as `detect` or the document's metadata say it.

    Source code has none: its words are not stemmed.
    """
    metadata: Mapping[str, Any] = document.metadata
    if metadata.get("code"):
        return None
    if isinstance(said := metadata.get("language"), str):
        code = said.replace("_", "-").partition("-")[0].strip().lower()
        if len(code) == 2 and code.isascii() and code.isalpha():
            return "no" if code in ("nb", "nn") else code
    return detect(document.text)


def detect(text: str) -> str | None:
    """Return the ISO 639-1 code of the language that most of a text is in.

    Deterministic. A bounded sample from several places of the text is looked at.

    Returns:
        None if the text is short, mostly code or in no language that is known.

    Raises:
        WriteFailed: There is no room for temporary files.
    """
    sample = _MARKUP.sub(" ", _sample(text))
    words = _WORD.findall(sample)
    letters = sum(map(len, words))
    script = _script_of(sample, letters)
    if script is not None:
        return script
    if letters < _FEWEST or _is_code(sample, letters):
        return None
    return _by_function_words(words) or _by_model(" ".join(words))


def _sample(text: str) -> str:
    if len(text) <= _PLACES * _SAMPLE:
        return text
    step = (len(text) - _SAMPLE) // (_PLACES - 1)
    return " ".join(text[n * step : n * step + _SAMPLE] for n in range(_PLACES))


@cache
def _language_of_character(character: str) -> str | None:
    for language, ranges in _SCRIPTS:
        if any(first <= character <= last for first, last in ranges):
            return language
    return None


def _script_of(sample: str, letters: int) -> str | None:
    """Return the language that the script of most letters is of."""
    if sample.isascii():
        return None
    counts: Counter[str | None] = Counter()
    for character, count in Counter(sample).items():
        if character > "\u02ff":
            counts[_language_of_character(character)] += count
    if counts["ja"] * 10 >= counts["ja"] + counts["zh"]:
        counts["ja"] += counts["zh"]
    del counts[None]
    if not counts:
        return None
    code, count = max(counts.items(), key=lambda item: item[1])
    said = count * (3 if code in _DENSE else 1)
    return code if count > 1 and said >= max(_FEWEST // 2, letters - count) else None


def _is_code(sample: str, letters: int) -> bool:
    return sum(map(sample.count, _CODE)) > _SYMBOLS * letters


@cache
def _languages_of() -> dict[str, tuple[str, ...]]:
    """Return the languages of which each function word is one."""
    found: dict[str, tuple[str, ...]] = {}
    for language in (*_BY_FUNCTION_WORDS, "es", "it", "nl", "pt", "sv", "da", "no"):
        for word in stop_words_as_written(language):
            found[word] = (*found.get(word, ()), language)
    return found


def _by_function_words(words: list[str]) -> str | None:
    """Return the language that by far most function words are of, if it is a common one."""
    known = _languages_of()
    lowered = map(str.lower, words)
    counts = Counter(chain.from_iterable(map(known.get, lowered, repeat(_NONE))))
    (first, most), (_, second) = (*counts.most_common(2), ("", 0), ("", 0))[:2]
    plain = most >= max(_FUNCTION_WORDS, _SHARE * len(words)) and most >= 2 * second
    return first if plain and first in _BY_FUNCTION_WORDS else None


@cache
def _model() -> LanguageIdentifier:
    from py3langid import langid

    try:
        return langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
    except OSError as exc:  # it unpacks the model into a temporary file
        raise WriteFailed(
            f"The model that tells the language of a text could not be loaded: {exc}.",
            hint="It needs 20 MB in the directory for temporary files: free some there, or name "
            "another directory in TMPDIR.",
            durable=False,
        ) from exc


def _by_model(text: str) -> str | None:
    label, confidence = _model().classify(text)
    code = _SAME.get(label, label)
    return str(code) if len(code) == 2 and confidence >= _CONFIDENCE else None
