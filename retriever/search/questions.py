"""The syntax of questions: `"a phrase"`, `word*`, `-word`. Everything else is text.

An operator stands at the beginning of a word, after white space or at the start of the question. So
`e-mail`, `print("x")`, `5" pipe`, `--flag` and `f(*args)` are text, and so is what other search
engines read as syntax: AND, OR, NOT, NEAR, parentheses, colons, `^` and `~`. A question without an
operator is returned unchanged, to the character.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from typing import NamedTuple

MOST_OPERATORS = 32
"""A question with more operators was not typed but pasted, and is read as text."""

# The content of straight quotes must touch them, or every second inch sign would end a phrase.
_QUOTED = r'"(?!\s)[^"]*(?<!\s)"|„[^„“”]*[“”]|“[^“”]*”|”[^”]*”|«[^«»]*»'
_LETTERS = r"[^\s!-/:-@\[-^`{-~…“”„«»‘’]"
_ENDS = r"(?=[.,;:!?…)\]}]*(?:\s|\Z))"
_OPERATOR = (
    rf"(?<!\S)(?:(?P<dash>-?)(?P<quoted>{_QUOTED})"
    rf"|-(?P<excluded>{_LETTERS}+(?:[.'’-]{_LETTERS}+)*)(?P<star>\*?)"
    rf"|(?P<prefix>{_LETTERS}+)\*){_ENDS}"
)  # `re` compiles it when the first question may have an operator
_MAY_OPERATE = re.compile(r'["„“”«*-]')
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\U00020000-\U0003ffff]"
)


class Pattern(NamedTuple):
    """Words that stand one after the other in a passage, or do not.

    Attributes:
        text: The words as written, without quotes, dash and star.
        is_prefix: Whether the last word may go on.
    """

    text: str
    is_prefix: bool = False

    def __str__(self) -> str:
        """Return it as a person would write it."""
        if self.is_prefix:
            return f"{self.text}*"
        return f'"{self.text}"' if re.search(r"\W", self.text) else self.text


@dataclass(frozen=True, slots=True)
class Question:
    """What a question asks for.

    Attributes:
        text: The question without operators, which is encoded and reranked by: the words of
            phrases and prefixes are in it, excluded ones are not.
        words: `text` without the words of prefixes, for a lexical search.
        phrases: Must stand in a passage, each of them.
        prefixes: Beginnings of words, as `("pump",)` for `pump*`.
        exclusions: May not stand in a passage, none of them.
        note: What people should know about how it was read; empty or beginning with "; ".
    """

    text: str
    words: str
    phrases: tuple[Pattern, ...] = ()
    prefixes: tuple[str, ...] = ()
    exclusions: tuple[Pattern, ...] = ()
    note: str = ""

    @property
    def restricts(self) -> bool:
        """Return whether there are passages that may not be found, however similar they are."""
        return bool(self.phrases or self.exclusions)


@dataclass(slots=True)
class _Reading:
    """The pieces of a question, while it is read from left to right."""

    text: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    phrases: list[Pattern] = field(default_factory=list)
    prefixes: list[str] = field(default_factory=list)
    exclusions: list[Pattern] = field(default_factory=list)

    def add_text(self, piece: str) -> None:
        self.text.append(piece)
        self.words.append(piece)


def as_text(question: str) -> Question:
    """Return a question in which nothing is an operator."""
    return Question(question, question)


def parse(question: str) -> Question:
    """Return what a question asks for; whatever is not an operator is text.

    | written | means |
    |---|---|
    | `"pump room"`, `„…“`, `“…”`, `«…»` | passages with these words one after the other |
    | `pump*` | any word that begins so (lexical and hybrid search); two characters or more |
    | `-pump`, `-"pump room"`, `-pump*` | no passage with it |

    An excluded word begins with a letter and has two characters or more, since `-v` is an option of
    a command. Where nothing is left to search for, as in `-pump` alone, nothing is excluded.

    Args:
        question: Any string.
    """
    if not _MAY_OPERATE.search(question):
        return as_text(question)
    reading = _Reading()
    operators = end = 0
    for match in re.finditer(_OPERATOR, question):
        reading.add_text(question[end : match.start()])
        end = match.end()
        if _take(reading, match):
            operators += 1
        else:
            reading.add_text(match[0])
    reading.add_text(question[end:])
    if not operators:
        return as_text(question)
    if operators > MOST_OPERATORS:
        note = f"; question read as text: over {MOST_OPERATORS} operators"
        return Question(question, question, note=note)
    text = _joined(reading.text)
    if not has_word(text):
        return as_text(question)
    return Question(
        text,
        _joined(reading.words),
        tuple(dict.fromkeys(reading.phrases)),
        tuple(dict.fromkeys(reading.prefixes)),
        tuple(dict.fromkeys(reading.exclusions)),
    )


def _take(reading: _Reading, match: re.Match[str]) -> bool:
    """Add what an operator says to a reading; return False if it is text after all."""
    if match["quoted"] is not None:
        content = match["quoted"][1:-1].strip()
        if not has_word(content):
            return False
        if match["dash"]:
            reading.exclusions.append(Pattern(content))
        else:
            reading.phrases.append(Pattern(content))
            reading.add_text(content)
        return True
    if match["excluded"] is not None:
        word = match["excluded"]
        is_word = word[0].isalpha() and _is_long(word, but_for=".'’-")
        if is_word:
            reading.exclusions.append(Pattern(word, is_prefix=bool(match["star"])))
        return is_word
    word = match["prefix"]
    # A script without spaces has no beginnings of words: the characters are searched for.
    if not _is_long(word) or _UNSPACED.search(word):
        return False
    reading.prefixes.append(word)
    reading.text.append(word)
    return True


def _is_long(word: str, but_for: str = "") -> bool:
    """Return whether it is a word, and of two characters or more where a character is a sound."""
    if not all(_is_part_of_word(character) or character in but_for for character in word):
        return False
    characters = sum(map(str.isalnum, word))
    return characters > 1 or bool(characters and _UNSPACED.search(word))


def _is_part_of_word(character: str) -> bool:
    is_letter = character.isalnum() or character == "_"
    return is_letter or unicodedata.category(character).startswith("M")


def has_word(text: str) -> bool:
    """Return whether a text has a letter or digit of any script."""
    return any(map(str.isalnum, text))


def _joined(pieces: list[str]) -> str:
    """Return pieces of a question, without the white space around what was left out."""
    return " ".join("".join(pieces).split())
