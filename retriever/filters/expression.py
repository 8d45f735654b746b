r"""Filters as text: `year >= 2020 and language in (en, de)`.

    filter    = and ("or" and)*
    and       = unary ("and" unary)*
    unary     = "not" unary | "(" filter ")" | condition
    condition = "exists" field | "missing" field
              | field ("=" | "==" | "!=" | "<" | "<=" | ">" | ">=") value
              | field ["not"] ("contains" | "startswith") value
              | field ["not"] "in" "(" [value ("," value)*] ")"
    field     = key ("." key)*          key = a word, or a string in quotes

A value is a number as in JSON, `true`, `false`, `null`, a word, or a string in single or double
quotes, in which `\` escapes as in JSON. Words of the grammar are recognised in any case.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import NoReturn

from retriever.arguments import shown
from retriever.errors import InvalidFilter, LimitExceeded
from retriever.filters.tree import (
    Budget,
    Condition,
    Filter,
    Node,
    Operator,
    all_of,
    any_of,
    comparison,
    negated,
    one_of,
    path_of_keys,
)
from retriever.filters.values import Value, checked_text, value_of

MAX_EXPRESSION = 1_000_000
"""The most characters of an expression."""
_CONSTANTS = {"true": True, "false": False, "null": None}
_WORD_OPERATORS = ("in", "contains", "startswith")
KEYWORDS = {"and", "or", "not", *_WORD_OPERATORS, "exists", "missing", *_CONSTANTS}
_COMPARISONS = {
    ">": Operator.GT,
    ">=": Operator.GTE,
    "<": Operator.LT,
    "<=": Operator.LTE,
    "contains": Operator.CONTAINS,
    "startswith": Operator.STARTSWITH,
}
_OPERATORS = ("=", "!=", "<", "<=", ">", ">=", *_WORD_OPERATORS, "not in")
_OTHERS_WORDS = {
    "&&": "and",
    "&": "and",
    "||": "or",
    "|": "or",
    "!": "not",
    "is": "=",
    "eq": "=",
    "ne": "!=",
    "<>": "!=",
    "=<": "<=",
    "=>": ">=",
    "like": "contains",
    "matches": "contains",
    "includes": "contains",
}

_SPACE = re.compile(r"\s*")
_SYMBOL = re.compile(r"==|!=|<=|>=|=|<|>")
_WORD = re.compile(r"""[^\s()\[\],=!<>"']+""")
_KEY = re.compile(r"""(?:\\.|[^\s()\[\],=!<>"'.\\])+""", re.DOTALL)
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"' + r"|'((?:[^'\\]|\\.)*)'", re.DOTALL)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"} | {c: c for c in "\\\"'/"}
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_LIKE_A_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_LONGEST_NUMBER = 1_000  # characters; Python refuses to read integers of over 4,300


def parse_expression(text: str) -> Filter:
    """Return the filter of an expression; the module's text has the grammar.

    Raises:
        InvalidFilter: It does not follow the grammar, or an operator is given what it cannot
            compare; the error says where.
        LimitExceeded: As for a mapping, or it is over 1,000,000 characters.
    """
    if len(text) > MAX_EXPRESSION:
        raise LimitExceeded(
            f"The filter has {len(text):,} characters; the limit is {MAX_EXPRESSION:,}.",
            limit=MAX_EXPRESSION,
            value=len(text),
            option="filter",
            hint="Split it.",
        )
    if not text.strip():
        raise InvalidFilter(
            "The filter is empty.", hint="Leave it out for everything, or write one: year >= 2020."
        )
    checked_text(text, "The filter")
    return Filter(_Parser(text).whole())


def is_plain_key(key: str) -> bool:
    """Return whether a key of a field needs no quotes."""
    found = _KEY.fullmatch(key)
    return found is not None and "\\" not in key


def is_plain_text(text: str) -> bool:
    """Return whether a string needs no quotes as a value."""
    is_word = _WORD.fullmatch(text) is not None
    return is_word and text.lower() not in KEYWORDS and not _LIKE_A_NUMBER.fullmatch(text)


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._budget = Budget()
        self._skip()

    def whole(self) -> Node:
        found = self._or(1)
        if self._at < len(self._text):
            self._fail("'and' or 'or'")
        return found

    def _or(self, depth: int) -> Node:
        parts = [self._and(depth)]
        while self._take_word("or"):
            self._budget.node(depth)
            parts.append(self._and(depth))
        return any_of(parts) if len(parts) > 1 else parts[0]

    def _and(self, depth: int) -> Node:
        parts = [self._unary(depth)]
        while self._take_word("and"):
            parts.append(self._unary(depth))
        return all_of(parts) if len(parts) > 1 else parts[0]

    def _unary(self, depth: int) -> Node:
        self._budget.node(depth)  # before it goes deeper: nesting is bounded here
        if self._take_word("not"):
            return negated(self._unary(depth + 1))
        if self._take("("):
            found = self._or(depth + 1)
            self._require(")")
            return found
        for word in ("exists", "missing"):
            if self._take_word(word):
                there = Condition(self._field(), Operator.EXISTS)
                return there if word == "exists" else negated(there)
        return self._condition()

    def _condition(self) -> Node:
        path = self._field()
        is_negated = self._take_word("not")
        operator = self._operator(is_negated=is_negated)
        where = f"Field {shown(path)}"
        found: Node
        if operator == "in":
            values = self._list(where)
            self._budget.values(len(values))
            found = one_of(path, values)
        else:
            self._budget.values(1)
            value = self._value(where)
            if operator in ("=", "==", "!="):
                found = one_of(path, [value])
            else:
                found = comparison(path, _COMPARISONS[operator], value)
        return negated(found) if is_negated or operator == "!=" else found

    # --- the parts of a condition ------------------------------------------------------------

    def _field(self) -> str:
        keys: list[str] = []
        while True:
            if (quoted := self._string()) is not None:
                keys.append(quoted)
            elif found := _KEY.match(self._text, self._at):
                word = re.sub(r"\\(.)", r"\1", found[0], flags=re.DOTALL)
                if (
                    not keys
                    and word.lower() in KEYWORDS
                    and not self._text.startswith(".", found.end())
                ):
                    self._fail(
                        "a field", f"Put quotes around a field of that name: {shown(word, 40)}."
                    )
                keys.append(word)
                self._at = found.end()
            else:
                self._fail("a field")
            if not self._text.startswith(".", self._at):
                self._skip()
                return path_of_keys(keys)
            self._at += 1

    def _operator(self, *, is_negated: bool) -> str:
        if not is_negated and (found := _SYMBOL.match(self._text, self._at)):
            following = self._text[found.end() : found.end() + 1]
            if following not in ("=", ">", "<"):
                self._at = found.end()
                self._skip()
                return found[0]
        for word in _WORD_OPERATORS:
            if self._take_word(word):
                return word
        known = _WORD_OPERATORS if is_negated else _OPERATORS
        return self._fail(f"an operator ({' '.join(known)})")

    def _list(self, where: str) -> list[Value]:
        end = ")" if self._take("(") else "]"
        if end == "]":
            self._require("[", "a list of values in brackets, such as (en, de)")
        values: list[Value] = []
        if self._take(end):
            return values
        while True:
            values.append(self._value(where))
            if self._take(end):
                return values
            self._require(",", f"',' or '{end}'")

    def _value(self, where: str) -> Value:
        if (quoted := self._string()) is not None:
            self._skip()
            return value_of(quoted, where)
        found = _WORD.match(self._text, self._at)
        if not found:
            self._fail("a value")
        word = found[0]
        if word.lower() in _CONSTANTS:
            value = value_of(_CONSTANTS[word.lower()], where)
        elif word.lower() in KEYWORDS:
            self._fail("a value", f"Put quotes around a value of that name: {shown(word, 40)}.")
        elif _LIKE_A_NUMBER.fullmatch(word):
            value = self._number(word, where)
        else:
            value = value_of(word, where)
        self._at = found.end()
        self._skip()
        return value

    def _number(self, word: str, where: str) -> Value:
        if len(word) > _LONGEST_NUMBER or not _NUMBER.fullmatch(word):
            self._fail(
                "a number as in JSON",
                f"If it is a string, put quotes around it: {shown(word, 40)}.",
            )
        is_whole = word.lstrip("-").isdigit()
        return value_of(int(word) if is_whole else float(word), where)

    # --- reading -----------------------------------------------------------------------------

    def _skip(self) -> None:
        space = _SPACE.match(self._text, self._at)
        self._at = self._at if space is None else space.end()

    def _take(self, symbol: str) -> bool:
        if not self._text.startswith(symbol, self._at):
            return False
        self._at += len(symbol)
        self._skip()
        return True

    def _require(self, symbol: str, expected: str = "") -> None:
        if not self._take(symbol):
            self._fail(expected or f"'{symbol}'")

    def _take_word(self, word: str) -> bool:
        found = _WORD.match(self._text, self._at)
        if found is None or found[0].lower() != word:
            return False
        self._at = found.end()
        self._skip()
        return True

    def _string(self) -> str | None:
        if not self._text.startswith(('"', "'"), self._at):
            return None
        found = _STRING.match(self._text, self._at)
        if found is None:
            self._fail("a closing quote", "Write a quote inside of quotes as \\' or \\\".")
        inner = found[1] if found[1] is not None else found[2]
        text = _ESCAPE.sub(self._unescaped, inner) if "\\" in inner else inner
        self._at = found.end()
        if "\\u" in inner:
            # Two escapes may be the two halves of one character.
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
        return checked_text(text, "A string of the filter")

    def _unescaped(self, found: re.Match[str]) -> str:
        if len(found[1]) == 5:
            return chr(int(found[1][1:], 16))
        if found[1] not in _ESCAPES:
            self._fail("an escape of JSON", f"Write a backslash as two; {found[0]!r} is unknown.")
        return _ESCAPES[found[1]]

    def _fail(self, expected: str, hint: str = "") -> NoReturn:
        end = re.compile(r"""[^\s()\[\],"']*""").match(self._text, self._at)
        word = (
            self._text[self._at : end.end() if end else self._at]
            or self._text[self._at : self._at + 1]
        )
        found = shown(word, 40) if word else "the end"
        if not hint:
            known = [*KEYWORDS, *_OPERATORS] if "operator" in expected else ["and", "or"]
            meant = _OTHERS_WORDS.get(word.lower()) or next(
                iter(get_close_matches(word.lower(), known, 1)), ""
            )
            hint = (
                f"Did you mean {meant!r}?"
                if meant
                else "Example: year >= 2020 and not draft = true."
            )
        raise InvalidFilter(
            f"The filter {shown(self._text)} has {found} at character {self._at + 1}, where "
            f"{expected} is expected.",
            hint=hint,
        )
