"""The form in which a word is indexed in a language: case-folded, stemmed, without accents."""

from __future__ import annotations

import re
import unicodedata
from functools import cache

from retriever.documents.words.characters import normalised
from retriever.documents.words.stemming import STEMMED, stem

MAX_LENGTH = 128  # characters of a term: longer ones are cut
_REMEMBERED = 1 << 16  # forms kept for each language
# A word with one of these is an identifier, and identifiers are not stemmed.
_UNSTEMMED = re.compile(r"[\d_.\-/\\:@&+#]")
# Letters that have no decomposition, and those that keyboards have in two versions.
_LETTERS = {
    "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ħ": "h", "ı": "i",
    "ё": "е", "ی": "ي", "ى": "ي", "ک": "ك", "أ": "ا", "إ": "ا", "آ": "ا", "ٱ": "ا", "ة": "ه",
}  # fmt: skip
_ACCENTED = (range(0xC0, 0x250), range(0x370, 0x400), range(0x1E00, 0x2000))


@cache
def _without_accents() -> dict[int, str]:
    """Return a table for `str.translate` that takes Latin and Greek accents away."""
    table = {ord(letter): plain for letter, plain in _LETTERS.items()}
    for code in (code for accented in _ACCENTED for code in accented):
        base = unicodedata.normalize("NFD", chr(code))
        plain = "".join(c for c in base if not "\u0300" <= c <= "\u036f")
        if plain and plain != base:
            table[code] = plain
    # What is left over of letters that have no composed form.
    table.update(dict.fromkeys(range(0x300, 0x370), ""))
    return table


class _Forms(dict[str, str]):
    """The forms of the words met in one language."""

    def __init__(self, language: str | None) -> None:
        self.language = language

    def __missing__(self, word: str) -> str:
        found = _form(word[:MAX_LENGTH], self.language)
        if len(self) >= _REMEMBERED:
            self.clear()
        self[word] = found
        return found


def _form(word: str, language: str | None) -> str:
    if language == "tr":
        word = word.replace("İ", "i").replace("I", "ı")
    word = word.casefold()
    if not word.isascii():
        word = unicodedata.normalize("NFKC", word)
    if language in STEMMED and not _UNSTEMMED.search(word):
        word = stem(word, language) or word
    # In Vietnamese the accents are tones: without them most syllables mean several things.
    if not word.isascii() and language != "vi":
        word = word.translate(_without_accents()) or word
    return word


def fold(text: str) -> str:
    """Return a text as its unstemmed words are compared: normalised, case-folded, no accents."""
    return _form(normalised(text), None)


_forms: dict[str | None, _Forms] = {}


def analysed_as(language: str | None) -> str | None:
    """Return the language as which words of a language are treated: None without a stemmer."""
    if language in ("nb", "nn"):
        return "no"
    return language if language in STEMMED or language == "vi" else None


def forms_in(language: str | None) -> _Forms:
    """Return the forms of words in a language, as a mapping that finds them when asked.

    Args:
        language: As `analysed_as` gives it.
    """
    found = _forms.get(language)
    if found is None:
        found = _forms.setdefault(language, _Forms(language))
    return found
