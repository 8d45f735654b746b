"""Find spans that hold no language: hex dumps, base64, minified code, other endless words.

They are kept and chunked like any text, but never in one chunk with the sentences around them, and
such chunks are counted. Only long spans count: a checksum, a key or a link is part of its text.
"""

from __future__ import annotations

import re
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

from retriever.types import Span

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_MIN_WORD = 40
_MIN_RUN = 400
"""Length from which noise gets chunks of its own, in characters."""
_ENDLESS = 2_048
"""A run of this many characters without a space is no word; a link may be twice as long."""
_MAX_GAP = 8
"""Characters other than spaces, such as `>` or `", "`, that may lie between two runs of noise."""
_SAMPLE = 512

_LONG_WORD = re.compile(rf"\S{{{_MIN_WORD},}}")
# `0x7f, 0x45,`, `7f45 4c46`, and whole lines of hexdump and xxd.
# Possessive (`}+`), so that a line which does not match is not tried again in shorter ways.
_HEX_LINE = re.compile(
    r"^[^\S\n]*(?:[0-9a-fA-F]{6,16}[:h]?[^\S\n]+)?"
    r"(?:(?:0x|\\x)?[0-9a-fA-F]{2,8}[,;]?[^\S\n]+){7,}+[^\n]{0,200}$",
    re.MULTILINE,
)
_LABEL = re.compile(r"^[\w.-]{1,40}[=:]|^\W+|[\"'`,;:)\]}>\\]+$")
# The rest of the noise in its last line, and one more line that is shorter.
_LAST_LINE = re.compile(
    r"[^\s\w]{0,8}(?:\r?\n[>\s]{0,8}(?=[\w+/]*[0-9=])[A-Za-z0-9+/_-]{1,80}={0,2}(?=\s|$))?"
)
_CODE = re.compile(r"[A-Za-z0-9+/_-]+={0,2}")
_CLASSES = str.maketrans(
    {
        **{chr(code): "a" for code in range(ord("a"), ord("z") + 1)},
        **{chr(code): "A" for code in range(ord("A"), ord("Z") + 1)},
        **{chr(code): "0" for code in range(ord("0"), ord("9") + 1)},
    }
)
_MIN_CHANGES = 0.25
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u0f00-\u109f\u1780-\u17ff\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]"
)


def find_noise(text: str) -> list[Span]:
    """Return the spans of a text that hold no language, in order."""
    dumps = filter(partial(_is_hex, text), _runs(text, _hex_lines(text)))
    runs = _runs(text, sorted([*_noisy_words(text), *dumps]))
    long = (run for run in runs if run.end - run.start >= _MIN_RUN)
    # What was added to two runs may have brought them together.
    return _runs(text, (_with_rest(text, run) for run in long))


def _runs(text: str, spans: Iterable[Span]) -> list[Span]:
    """Join spans, given in order, if hardly anything lies between them."""
    runs: list[Span] = []
    for span in spans:
        if runs and _is_small(text, runs[-1].end, span.start):
            runs[-1] = Span(runs[-1].start, max(runs[-1].end, span.end))
        else:
            runs.append(span)
    return runs


def _with_rest(text: str, run: Span) -> Span:
    """Extend a run by the marks around it in its lines, and by a shorter last line."""
    start, end = run
    line_start = text.rfind("\n", 0, start) + 1
    if _is_small(text, line_start, start):
        start = line_start
    if (rest := _LAST_LINE.match(text, end)) is not None:
        end = rest.end()
    return Span(start, end)


def _is_small(text: str, start: int, end: int) -> bool:
    return end - start < 1_000 and len("".join(text[start:end].split())) <= _MAX_GAP


def _noisy_words(text: str) -> Iterator[Span]:
    for match in _LONG_WORD.finditer(text):
        if _is_noise(match[0]):
            yield Span(*match.span())


def _is_noise(word: str) -> bool:
    if len(word) >= _ENDLESS:
        is_link = "://" in word[:64] and len(word) < 2 * _ENDLESS
        return not is_link and not _is_unspaced(word)
    if not word.isascii() or "://" in word:
        return False
    core = word[:_SAMPLE]
    # Labels and marks may be nested, as in `key="sha256:…",`; the bound keeps the work small.
    for _ in range(4):
        core = _LABEL.sub("", core)
    if len(core) < _MIN_WORD or _CODE.fullmatch(core) is None:
        return False
    classes = core.translate(_CLASSES)
    changes = sum(one != other for one, other in pairwise(classes))
    return "0" in classes and changes >= _MIN_CHANGES * len(classes)


def _is_unspaced(word: str) -> bool:
    """Return whether a script is written without spaces, so that a sentence is one word."""
    middle = len(word) // 2
    sample = word[:_SAMPLE] + word[middle : middle + _SAMPLE]
    return 3 * len(_UNSPACED.findall(sample)) > len(sample)


def _hex_lines(text: str) -> Iterator[Span]:
    return (Span(*match.span()) for match in _HEX_LINE.finditer(text))


def _is_hex(text: str, run: Span) -> bool:
    """Return whether a run has digits, unlike a sentence, and letters, unlike numbers."""
    lines = text[slice(*run)]
    letters, digits = sum(map(lines.count, "abcdefABCDEF")), sum(map(lines.count, "0123456789"))
    return letters * 8 > digits and digits * 8 > letters
