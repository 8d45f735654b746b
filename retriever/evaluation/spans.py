"""How much of the marked answers is among the first characters or tokens of a ranking.

A reader, such as a language model, is handed the ranked passages best first until a budget is used
up; the last one is cut there. The measures are those of Smith and Troynikov, "Evaluating Chunking
Strategies for Retrieval" (Chroma, 2024), in characters instead of tokens: R are the characters of
the reference, P those handed over, repeated ones as often as they are, and C the characters of R
that are among P, each counted once.

    recall     |C| / |R|
    precision  |C| / |P|
    IoU        |C| / (|R| + |P| - |C|)

Where this differs from the paper: P is bounded by a budget, not by a number of passages, so that
chunkings into small and large passages are compared at equal cost; R may be one of several
alternatives; and white space of R between two parts that were read counts for recall as read,
because many splitters remove it at the ends of passages.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from retriever import arguments
from retriever.errors import InvalidEvaluation

if TYPE_CHECKING:
    from numpy.typing import NDArray

DEFAULT_BUDGETS = (1_000, 2_000, 4_000, 8_000)
MOST_BUDGET = 10**15
_NEVER = np.iinfo(np.int64).max


class Passage(NamedTuple):
    """A retrieved part of a document: the characters `[start, end)` of its text."""

    document: str
    start: int
    end: int


class Reference(NamedTuple):
    """A marked part of a document: `text` is its text from the character `start` on."""

    document: str
    start: int
    text: str

    @property
    def end(self) -> int:
        """Return the offset of the character after the last one."""
        return self.start + len(self.text)


@dataclass(frozen=True, slots=True)
class SpanQuestion:
    """A question and the parts of documents that answer it.

    White space at the ends of a reference is removed, and references of one alternative that
    overlap are joined.

    Attributes:
        id: Unique among the questions.
        text: The question.
        alternatives: The answers, each of which is enough. An answer is one reference or several
            that belong together, of one document or of several.

    Raises:
        InvalidEvaluation: There is no alternative, or one without a character to find.
    """

    id: str
    text: str
    alternatives: tuple[tuple[Reference, ...], ...]

    def __post_init__(self) -> None:
        try:
            alternatives = tuple(_joined(references) for references in self.alternatives)
        except (TypeError, ValueError, AttributeError) as exc:
            raise InvalidEvaluation(
                f"The alternatives of question {arguments.shown(self.id)} are "
                f"{arguments.shown(self.alternatives)}.",
                hint='Pass tuples of references, such as ((Reference("manual.md", 120, "…"),),).',
            ) from exc
        if not alternatives or not all(alternatives):
            raise InvalidEvaluation(
                f"Question {arguments.shown(self.id)} has an answer without any text.",
                hint="Mark at least one character that is not white space.",
            )
        object.__setattr__(self, "alternatives", alternatives)

    @property
    def document(self) -> str:
        """Return the id of the document of the first reference."""
        return self.alternatives[0][0].document


class SpanScores(NamedTuple):
    """What a question scores within one budget; every value is between 0 and 1.

    All values are of the alternative with the greatest recall, among equal ones of the one with the
    greatest IoU, except the last two, which ask for any alternative.

    Attributes:
        recall: The share of the reference that was read.
        precision: The share of what was read that is reference; repeated characters count once.
        iou: Intersection over union of the reference and what was read.
        answer: 1 if some alternative was read whole, white space aside.
        answer_in_passage: 1 if some alternative was read whole in one passage.
    """

    recall: float
    precision: float
    iou: float
    answer: float
    answer_in_passage: float


def span_scores(
    ranked: Sequence[Passage],
    question: SpanQuestion,
    budgets: Sequence[int],
    *,
    costs: Iterable[int] | None = None,
) -> tuple[SpanScores, ...]:
    """Return what a ranking scores for a question, for each budget.

    Args:
        ranked: The passages, best first. Passages of any document use up the budget, and
            characters that two passages share are paid for twice. A ranking shorter than the
            budget is read whole.
        question: The question with its references.
        budgets: What the reader may be handed, in the unit of `costs`.
        costs: What each passage costs, such as its number of tokens, at least 1 each. The cost is
            spread evenly over the characters of a passage where the budget ends inside it. The
            default is the number of characters.

    Raises:
        InvalidEvaluation: A budget is not a whole number from 1 to 10^15.
    """
    check_budgets(budgets)
    read = _read(ranked, costs, max(budgets))
    characters = [read.characters(budget) for budget in budgets]
    limits = np.asarray(budgets, np.int64)
    best = [SpanScores(0.0, 0.0, 0.0, 0.0, 0.0)] * len(budgets)
    for references in question.alternatives:
        found = _found(references, read)
        if found is None:
            continue
        length = len(found.read_at)
        covered = np.searchsorted(np.sort(found.read_at), limits, "right").tolist()
        recalled = np.searchsorted(np.sort(found.recalled_at), limits, "right").tolist()
        for n, budget in enumerate(budgets):
            recall = recalled[n] / length
            union = length + characters[n] - covered[n]
            in_passage = float(found.in_passage_at <= budget)
            before = best[n]
            scores = (
                recall,
                covered[n] / characters[n] if covered[n] else 0.0,
                covered[n] / union,
            )
            if (recall, scores[2]) < (before.recall, before.iou):
                scores = before[:3]
            best[n] = SpanScores(
                *scores,
                answer=max(before.answer, float(recalled[n] == length)),
                answer_in_passage=max(before.answer_in_passage, in_passage),
            )
    return tuple(best)


def check_budgets(budgets: Sequence[int]) -> None:
    """Check that there are budgets and that each is a whole number from 1 to 10^15.

    Raises:
        InvalidEvaluation: There is no budget, or one is invalid.
    """
    wrong = [one for one in budgets if not 1 <= (arguments.as_whole(one) or 0) <= MOST_BUDGET]
    if wrong or len(budgets) == 0:
        said = f"A budget is {arguments.shown(wrong[0])}." if wrong else "There is no budget."
        raise InvalidEvaluation(said, hint="Give whole numbers from 1 to 10^15, such as 4000.")


class _Part(NamedTuple):
    """A passage that the reader begins to read after `paid`, which costs `cost` as a whole."""

    passage: Passage
    paid: int
    cost: int

    def read_at(self, first: int, end: int) -> NDArray[np.int64]:
        """Return the least budget that covers each character `[first, end)` of the document."""
        length = self.passage.end - self.passage.start
        ordinals = np.arange(first, end, dtype=np.int64) - (self.passage.start - 1)
        return self.paid - (-self.cost * ordinals // length)

    def characters(self, budget: int) -> int:
        """Return how many of its characters a budget covers."""
        length = self.passage.end - self.passage.start
        return min(length, max(0, budget - self.paid) * length // self.cost)


class _Reading(NamedTuple):
    parts: list[_Part]

    def characters(self, budget: int) -> int:
        return sum(part.characters(budget) for part in self.parts)


class _Found(NamedTuple):
    """The least budgets with which the characters of an alternative have been read.

    Attributes:
        read_at: Of each character, int64 `(length,)`.
        recalled_at: The same, where white space counts as read with the characters around it.
        in_passage_at: Of the whole alternative, within one passage.
    """

    read_at: NDArray[np.int64]
    recalled_at: NDArray[np.int64]
    in_passage_at: int


def _read(ranked: Sequence[Passage], costs: Iterable[int] | None, budget: int) -> _Reading:
    """Return what a reader with that budget reads, in order."""
    if costs is None:
        costs = (passage.end - passage.start for passage in ranked)
    parts = []
    paid = 0
    for passage, cost in zip(ranked, costs, strict=True):
        if passage.end > passage.start:
            cost = max(1, cost)
            parts.append(_Part(passage, paid, cost))
            paid += cost
            if paid >= budget:
                break
    return _Reading(parts)


def _found(references: tuple[Reference, ...], read: _Reading) -> _Found | None:
    """Return where an alternative was read, None if nothing of it was."""
    documents = {reference.document for reference in references}
    parts = [part for part in read.parts if part.passage.document in documents]
    if not parts:
        return None
    read_at = [_read_at(reference, parts) for reference in references]
    recalled_at = [
        _with_white_space(reference.text, at)
        for reference, at in zip(references, read_at, strict=True)
    ]
    in_passage_at = [
        int(max(part.read_at(r.end - 1, r.end)[0] for r in references))
        for part in parts
        if all(
            part.passage.document == r.document
            and part.passage.start <= r.start
            and r.end <= part.passage.end
            for r in references
        )
    ]
    return _Found(
        np.concatenate(read_at), np.concatenate(recalled_at), min(in_passage_at, default=_NEVER)
    )


def _read_at(reference: Reference, parts: Sequence[_Part]) -> NDArray[np.int64]:
    read_at = np.full(len(reference.text), _NEVER)
    for part in parts:
        document, start, end = part.passage
        first, last = max(start, reference.start), min(end, reference.end)
        if document == reference.document and first < last:
            here = read_at[first - reference.start : last - reference.start]
            np.minimum(here, part.read_at(first, last), out=here)
    return read_at


def _with_white_space(text: str, read_at: NDArray[np.int64]) -> NDArray[np.int64]:
    """Let white space count as read as soon as the characters before and after it are."""
    white = np.fromiter(map(str.isspace, text), bool, len(text))
    if not white.any():
        return read_at
    positions = np.arange(len(text))
    before = np.maximum.accumulate(np.where(white, 0, positions))
    after = np.minimum.accumulate(np.where(white, len(text), positions)[::-1])[::-1]
    return np.minimum(read_at, np.maximum(read_at[before], read_at[after]))


def _joined(references: Iterable[Reference]) -> tuple[Reference, ...]:
    """Return references in order, without white space at their ends, overlapping ones joined."""
    joined: list[Reference] = []
    for document, start, text in sorted(references):
        bare = text.strip()
        if not bare:
            continue
        start += len(text) - len(text.lstrip())
        last = joined[-1] if joined else None
        if last is not None and last.document == document and start < last.end:
            joined[-1] = last._replace(text=last.text + bare[last.end - start :])
        else:
            joined.append(Reference(document, start, bare))
    return tuple(joined)
