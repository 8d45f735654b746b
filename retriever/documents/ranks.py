"""Rank the places between tokens: where a sentence, an item, a paragraph or a statement begins.

A whole text is ranked at once with NumPy; Python code looks only at the few places that are in
doubt, such as a full stop after a short word.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from retriever.documents.character_classes import (
    CLOSER,
    FULL_STOP,
    IDEOGRAPH,
    ITEM,
    LEANS_BACK,
    LOWER,
    NEWLINE,
    OPENER,
    OTHER_CLOSER,
    OTHER_LOWER,
    OTHER_STOP,
    SPACE,
    STATEMENT,
    STOP,
    UNSPACED,
    WIDE_STOP,
    Gaps,
)
from retriever.documents.sentences import goes_on, has_ordinals, is_doubtful

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

FORBIDDEN, TOKEN, WORD, LINE, SENTENCE, BLANK, PARAGRAPH = range(-1, 6)
"""How good a cut is, best last. A line that ends a statement or begins an item of a list counts
as a sentence; a line break within hard-wrapped prose is no better than a comma. BLANK is a blank
line that a paragraph goes on after: below a line that introduces what follows, before an indented
line, within a block of code."""

_WRAPPED = 120
"""Characters beyond which no line is hard-wrapped: it is a paragraph of its own."""
_TITLE = 80
"""Characters of a line that may be the title of what follows, if no mark ends it."""
_CODE_SHARE = 0.3
"""A text in which more lines than this share are indented is taken for code."""
_LOWERS, _CLOSERS = LOWER | OTHER_LOWER, CLOSER | OTHER_CLOSER

_FENCE = re.compile(r"(?:\n|\A)[ >]{0,4}(```+|~~~+)")
_CITED = re.compile(r"[.!?][\"”’']?[ ]?((?:\[\d{1,3}(?:[,–-] ?\d{1,3})*\])+)(?=\s)")


def ranks_of(text: str, points: NDArray[np.uint32], gaps: Gaps) -> NDArray[np.int8]:
    """Return how good a cut is in each gap between two tokens, int8 `(n + 1,)`.

    Args:
        text: The text.
        points: Its code points, uint32.
        gaps: The gaps between its tokens.
    """
    classes, line_ends, previous, positions = gaps
    # Characters of no class at the end: at the start of a text the offsets -1, -2 and -3, which
    # mean the characters before a gap, wrap around to them.
    padded = np.append(classes, np.zeros(3, np.uint16))
    breaks = line_ends[positions] - line_ends[previous]
    last, first = padded[previous - 1], padded[positions]
    is_word = (padded[positions - 1] & SPACE) != 0

    ranks = np.full(len(positions), TOKEN, np.int8)
    ranks[is_word] = WORD
    _rank_sentences(ranks, text, points, gaps, padded, last, first, is_word)
    lines = np.flatnonzero(breaks)
    _rank_lines(ranks, lines, points, gaps, padded, breaks)
    _rank_blocks(ranks, text, gaps, lines)
    return ranks


def _rank_sentences(
    ranks: NDArray[np.int8],
    text: str,
    points: NDArray[np.uint32],
    gaps: Gaps,
    padded: NDArray[np.uint16],
    last: NDArray[np.uint16],
    first: NDArray[np.uint16],
    is_word: NDArray[np.bool_],
) -> None:
    """Rank the gaps after a sentence."""
    # A closing mark after a full stop belongs to the sentence that it closes, and so does one more.
    _, _, previous, positions = gaps
    # `“` closes in German and opens in others; it closes only where a space follows.
    closed = np.flatnonzero(((last & CLOSER) != 0) | (((last & OTHER_CLOSER) != 0) & is_word))
    ends = last.copy()
    ends[closed] = padded[previous[closed] - 2]
    twice = closed[(ends[closed] & _CLOSERS) != 0]
    ends[twice] = padded[previous[twice] - 3]
    found = np.flatnonzero(ends & (STOP | WIDE_STOP | OTHER_STOP))
    mark, begins, spaced = ends[found], first[found], is_word[found]
    opened = (begins & OPENER) != 0
    after = np.where(opened, padded[positions[found] + 1], begins)
    # A dash that begins what a speaker goes on with, or who it was.
    dashed = np.flatnonzero(opened & ((after & SPACE) != 0))
    after[dashed] = padded[positions[found[dashed]] + 2]
    # Chinese and Japanese have no space after a full stop, and quote without one.
    is_end = (spaced & ((mark & (STOP | OTHER_STOP)) != 0)) & ((after & (_LOWERS | STOP)) == 0)
    is_end |= ((mark & (WIDE_STOP | OTHER_STOP)) != 0) | (
        ~spaced & ((begins & IDEOGRAPH) != 0) & ((mark & FULL_STOP) == 0)
    )
    is_end &= ((begins & (WIDE_STOP | OTHER_STOP)) == 0) & (
        ((begins & LEANS_BACK) == 0) | (spaced & ((mark & WIDE_STOP) == 0))
    )
    is_end[is_end & ((begins & CLOSER) != 0) & ~opened] = False
    found = found[is_end]
    ranks[found] = SENTENCE
    full_stops = found[(last[found] & FULL_STOP) != 0]
    doubtful = full_stops[is_doubtful(points, padded, previous[full_stops])]
    ordinals = len(doubtful) > 0 and has_ordinals(text)
    for gap in doubtful.tolist():
        if goes_on(text, int(previous[gap]), int(positions[gap]), ordinals=ordinals):
            ranks[gap] = WORD
    # In Thai, Lao, Burmese and Khmer a space parts clauses, not words.
    ranks[is_word & ((last & first & UNSPACED) != 0) & (ranks < LINE)] = LINE
    if ".[" in text or ". [" in text:
        for cited in _CITED.finditer(text):
            begin, end = np.searchsorted(positions, (cited.start(1), cited.end(1) + 1))
            ranks[begin] = min(ranks[begin], TOKEN)
            if not first[end] & _LOWERS:
                ranks[end] = max(ranks[end], SENTENCE)


def _rank_lines(
    ranks: NDArray[np.int8],
    lines: NDArray[np.int64],
    points: NDArray[np.uint32],
    gaps: Gaps,
    padded: NDArray[np.uint16],
    breaks: NDArray[np.int64],
) -> None:
    """Rank the gaps in which a line ends, given which these are and how many lines end in each."""
    _, _, previous, positions = gaps
    lines = lines[positions[lines] < len(points)]  # not the white space at the end
    if not len(lines):
        return
    begin, end, breaks = positions[lines], previous[lines], breaks[lines]
    last, first = padded[end - 1], padded[begin]
    is_blank = breaks > 1
    before = padded[begin - 1]
    is_indented = ((before & SPACE) != 0) & ((before & NEWLINE) == 0)
    is_listed, is_marked = _begins_item(points, begin, first, padded)
    following = points[np.minimum(begin + 1, len(points) - 1)]
    is_item = is_listed | is_marked
    ranks[lines] = np.maximum(ranks[lines], LINE)
    is_code = is_indented.mean() > _CODE_SHARE
    is_statement = is_item | ((last & STATEMENT) != 0) | (is_indented & ((first & _LOWERS) == 0))
    if is_code:
        is_statement = is_item | ~is_indented
    ranks[lines[is_statement]] = SENTENCE
    is_closing = ((first & CLOSER) != 0) & ((first & OPENER) == 0)
    is_closing |= (points[begin] == ord("<")) & (following == ord("/"))
    ranks[lines[is_closing]] = WORD

    # The text between two line ends, by characters; the first line begins with the text.
    length = end - np.append(0, begin[:-1])
    ended = (last & (STOP | WIDE_STOP | OTHER_STOP | CLOSER)) != 0
    if not is_code:
        ranks[lines[ended & (length > _WRAPPED)]] = PARAGRAPH
    ranks[lines[is_blank]] = PARAGRAPH
    # A list or a table goes with the text that introduces it, and so do the items of a loose list.
    ranks[lines[is_blank & (is_indented | is_listed | is_closing)]] = BLANK
    # A short line without a mark at its end, between blank lines, is a title of what follows.
    after_blank = np.append(True, is_blank[:-1])
    has_mark = ended | ((last & (STATEMENT | ITEM)) != 0)
    is_title = (
        is_blank & after_blank & (length <= _TITLE) & ~has_mark & ~np.append(False, is_item[:-1])
    )
    ranks[lines[is_title & ~is_indented]] = BLANK
    is_row = points[begin] == ord("|")
    if is_row.any():
        _rank_rows(ranks, lines, is_row, is_row & _is_rule(points, begin), gaps)
    is_introduction = (points[end - 1] == ord(":")) | (points[end - 1] == ord("："))
    ranks[lines[is_introduction]] = LINE


def _begins_item(
    points: NDArray[np.uint32],
    begin: NDArray[np.int64],
    first: NDArray[np.uint16],
    padded: NDArray[np.uint16],
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which lines begin with a bullet, number or `|`, and which as a title or quotation."""
    text = np.append(points, np.zeros(3, np.uint32))
    marks = [text[begin + i] for i in range(3)]
    is_digit = [(mark >= ord("0")) & (mark <= ord("9")) for mark in marks]
    is_point = [(mark == ord(".")) | (mark == ord(")")) for mark in marks]
    space = [(padded[begin + i] & SPACE) != 0 for i in (1, 2)]
    numbered = (marks[0] == ord("(")) & (marks[2] == ord(")"))
    numbered |= is_digit[0] & ((is_point[1] & space[1]) | (is_digit[1] & is_point[2]))
    is_marked = (marks[0] == ord("#")) | (marks[0] == ord(">"))
    is_bullet = ((first & ITEM) != 0) & (space[0] | (marks[0] == ord("|")))
    return (is_bullet & ~is_marked) | numbered, is_marked


def _is_rule(points: NDArray[np.uint32], begin: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which lines may be the row of dashes below the header of a table."""
    marks = [points[np.minimum(begin + i, len(points) - 1)] for i in (1, 2)]
    is_dash = [(mark == ord("-")) | (mark == ord(":")) for mark in marks]
    is_rule: NDArray[np.bool_] = is_dash[0] | ((marks[0] == ord(" ")) & is_dash[1])
    return is_rule


def _rank_rows(
    ranks: NDArray[np.int8],
    lines: NDArray[np.int64],
    is_row: NDArray[np.bool_],
    is_rule: NDArray[np.bool_],
    gaps: Gaps,
) -> None:
    """Lower the ranks within the rows of tables, and around the row of dashes."""
    line_of_gap = gaps.line_ends[gaps.positions]
    holds_row = np.zeros(int(gaps.line_ends[-1]) + 1, np.bool_)
    holds_row[line_of_gap[lines[is_row]]] = True
    inside = holds_row[line_of_gap]
    inside[lines] = False
    ranks[inside] = np.minimum(ranks[inside], WORD)
    ranks[lines[is_rule]] = TOKEN
    ranks[lines[1:][is_rule[:-1]]] = WORD


def _rank_blocks(ranks: NDArray[np.int8], text: str, gaps: Gaps, lines: NDArray[np.int64]) -> None:
    """Lower the ranks within fenced code."""
    positions = gaps.positions
    for start, end in fenced(text):
        first, last = np.searchsorted(positions, (start, end))
        inside = ranks[first + 1 : last]
        inside[inside == SENTENCE] = LINE
        inside[inside > SENTENCE] = SENTENCE
        ranks[first] = min(ranks[first], BLANK)  # code goes with the text above it
        # Neither fence is parted from the code.
        edges = lines[slice(*np.searchsorted(lines, (first + 1, last)))]
        ranks[edges[:1]] = ranks[edges[-1:]] = WORD


def fenced(text: str) -> Iterator[tuple[int, int]]:
    """Yield where each block of fenced code begins and ends, as CommonMark (0.31, 4.5) has it."""
    if "```" not in text and "~~~" not in text:
        return
    opening = None
    for fence in _FENCE.finditer(text):
        line_end = text.find("\n", fence.end())
        line_end = len(text) if line_end < 0 else line_end
        info = text[fence.end() : line_end].strip()
        if "`" in info and fence[1][0] == "`":
            continue  # code within a line
        is_long_enough = opening is not None and fence[1].startswith(opening[1])
        if opening is not None and not info and is_long_enough:
            yield opening.start(1), line_end
            opening = None
        # A fence that names a language opens a block, so one that was open before was none: it
        # closed a block that another piece of the document holds, or stands there by mistake.
        elif opening is None or is_long_enough:
            opening = fence
