"""Rank the places between tokens by the rules of version 1, with which older indexes go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from retriever.documents.character_classes import (
    CLOSER,
    ITEM,
    LOWER,
    NEWLINE,
    SPACE,
    STATEMENT,
    STOP,
    WIDE_STOP,
    Gaps,
)
from retriever.documents.ranks import LINE, PARAGRAPH, SENTENCE, TOKEN, WORD

if TYPE_CHECKING:
    from numpy.typing import NDArray


def first_ranks(gaps: Gaps) -> NDArray[np.int8]:
    """Return how good a cut is in each gap between two tokens, int8 `(n + 1,)`."""
    # Two characters of no class at the end: at the start of a text the offsets -1 and -2, which
    # mean the characters before a gap, wrap around to them.
    classes, line_ends, previous, positions = gaps
    padded = np.append(classes, np.zeros(2, np.uint16))
    breaks = line_ends[positions] - line_ends[previous]
    last, second_last = padded[previous - 1], padded[previous - 2]
    gap, first = padded[positions - 1], padded[positions]

    # Each flag is an array over the gaps. Ranks are assigned in ascending order below, so that the
    # best that holds for a gap wins.
    is_word = (gap & SPACE).astype(bool)
    is_line = breaks > 0
    # A quotation mark or bracket after a full stop belongs to the sentence that it closes.
    closes = np.where(last & CLOSER, second_last, last)
    is_sentence = is_word & (closes & STOP).astype(bool) & ((first & LOWER) == 0)
    # Chinese and Japanese have no space after a full stop, but may have more closing marks.
    is_sentence |= (closes & WIDE_STOP).astype(bool) & ((first & (CLOSER | WIDE_STOP)) == 0)
    # A new line that is indented, begins an item of a list, or follows `;` or `}` is a statement or
    # a paragraph; any other one may be hard-wrapped prose.
    is_indented = is_word & ((gap & NEWLINE) == 0)
    is_sentence |= is_line & (is_indented | ((first & ITEM) | (last & STATEMENT)).astype(bool))

    ranks = np.full(len(positions), TOKEN, np.int8)
    ranks[is_word] = WORD
    ranks[is_line] = LINE
    ranks[is_sentence] = SENTENCE
    ranks[breaks > 1] = PARAGRAPH
    return ranks
