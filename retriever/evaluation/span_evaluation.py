"""Evaluate an index by questions with marked answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from retriever import __version__, arguments
from retriever.config import MAX_K, SearchOptions
from retriever.errors import InvalidConfig, InvalidEvaluation
from retriever.evaluation.evaluating import described_index, ranking_of, reranker_name
from retriever.evaluation.read_only import ReadOnlyMappings, plain, read_only
from retriever.evaluation.spans import (
    DEFAULT_BUDGETS,
    Passage,
    Reference,
    SpanQuestion,
    SpanScores,
    check_budgets,
    span_scores,
)
from retriever.evaluation.statistics import intervals
from retriever.index import Index
from retriever.types import Progress, ProgressCallback, Results

if TYPE_CHECKING:
    from numpy.typing import NDArray

Unit: TypeAlias = Literal["characters", "tokens"]
UNITS: tuple[Unit, ...] = ("characters", "tokens")
MEASURES = SpanScores._fields
_BATCH = 64
_FIRST_K = 16


@dataclass(frozen=True)
class SpanEvaluation(ReadOnlyMappings):
    """What an index scores for questions with marked answers.

    Attributes:
        unit: What budgets are counted in, `characters` or `tokens`.
        budgets: The budgets, in the order given.
        questions: The questions, in the order given.
        measures: The mean over the questions of each measure, by budget. The measures are the
            fields of `SpanScores`.
        intervals: The 95 % bootstrap interval of each mean, by budget. Documents are drawn, each
            with its questions, because questions about one document are not independent.
        per_question: The scores for each budget, in the order of `budgets`, by question id.
        missing: Ids of documents with marked answers that are not in the index. Their questions
            count: what is only there cannot be found.
        settings: What was evaluated: the index, its size, model and chunking, and the search.
    """

    unit: Unit
    budgets: tuple[int, ...]
    questions: tuple[SpanQuestion, ...]
    measures: Mapping[int, Mapping[str, float]]
    intervals: Mapping[int, Mapping[str, tuple[float, float]]]
    per_question: Mapping[str, tuple[SpanScores, ...]]
    missing: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=lambda: read_only({}))

    def to_dict(self) -> dict[str, Any]:
        """Return the means and intervals as a JSON object, without the single questions."""
        return {
            "unit": self.unit,
            "questions": len(self.questions),
            "documents": len({question.document for question in self.questions}),
            "missing_documents": list(self.missing),
            "budgets": [
                {
                    "budget": budget,
                    **self.measures[budget],
                    "intervals": {
                        name: list(ends) for name, ends in self.intervals[budget].items()
                    },
                }
                for budget in self.budgets
            ],
            "settings": plain(self.settings),
        }

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield what each question scores, as a JSON object."""
        for question in self.questions:
            scores = zip(self.budgets, self.per_question[question.id], strict=True)
            yield {
                "id": question.id,
                "text": question.text,
                "document": question.document,
                "budgets": [{"budget": budget, **one._asdict()} for budget, one in scores],
            }


def evaluate_spans(
    index: Index,
    questions: Iterable[SpanQuestion],
    options: SearchOptions | None = None,
    *,
    budgets: Sequence[int] = DEFAULT_BUDGETS,
    unit: Unit = "characters",
    fill: bool | None = None,
    progress: ProgressCallback | None = None,
) -> SpanEvaluation:
    """Search an index for questions and measure how much of their marked answers is read.

    The passages are read best first, up to each budget; see `span_scores`. Identical passages count
    separately, and questions are text: the search has `fold=False` and `operators=False`, whatever
    `options` says.

    Args:
        index: The index, of the documents that the answers are marked in.
        questions: The questions, with the texts of their answers as the index has them.
        options: How to search. None reads as many passages as fill the largest budget.
        budgets: What may be read for a question, in `unit`.
        unit: What a passage costs: its characters, or its tokens as `index.count_tokens` counts
            them.
        fill: Whether to read more than `options.k` passages for a question where they do not fill
            the largest budget. None does so if there are no options.
        progress: Called with a `Progress` after each batch of questions.

    Raises:
        InvalidEvaluation: There is no question, two have one id, a budget is invalid, none of the
            documents is in the index, or an answer is not where it is said to be.
        InvalidConfig: `index` is not an `Index`, or an option is invalid.
        InvalidQuery, LimitExceeded, ModelError, ModelMismatch, ModelUnavailable: As
            `Index.search_many`.
    """
    if not isinstance(index, Index):
        raise InvalidConfig(f"index is {arguments.described(index)}.", hint="Pass an open Index.")
    arguments.instance(options, "options", SearchOptions)
    arguments.choice(unit, "unit", UNITS)
    arguments.callback(progress, "progress")
    check_budgets(budgets)
    asked = _asked(questions)
    missing = _missing(index, asked)
    budgets = tuple(dict.fromkeys(int(budget) for budget in budgets))
    fill = options is None if fill is None else arguments.flag(fill, "fill")
    reading = _Reading(index, options or SearchOptions(k=_FIRST_K), max(budgets), unit, fill=fill)
    scores: list[tuple[SpanScores, ...]] = []
    for start in range(0, len(asked), _BATCH):
        batch = asked[start : start + _BATCH]
        ranked = reading.ranked([question.text for question in batch])
        scores += [
            span_scores(passages, question, budgets, costs=costs)
            for question, (passages, costs) in zip(batch, ranked, strict=True)
        ]
        if progress is not None:
            progress(Progress("search", len(scores), len(asked), "questions", item=batch[-1].id))
    settings = {
        **described_index(index),
        "options": {
            "k": None if options is None or fill else options.k,
            "group": reading.options.group,
            "rerank": reranker_name(reading.options.rerank),
            "candidates": None if reading.options.rerank is None else reading.options.depth,
            "fold": False,
            **ranking_of(reading.options),
        },
        "retriever": __version__,
    }
    return _summary(
        asked,
        np.array(scores),
        scores,
        unit=unit,
        budgets=budgets,
        missing=missing,
        settings=settings,
    )


def _summary(
    asked: Sequence[SpanQuestion],
    table: NDArray[np.float64],
    scores: Sequence[tuple[SpanScores, ...]],
    *,
    unit: Unit,
    budgets: tuple[int, ...],
    missing: tuple[str, ...],
    settings: dict[str, Any],
) -> SpanEvaluation:
    """Return the means of scores, of shape `(questions, budgets, measures)`."""
    columns = table.reshape(len(asked), -1)
    ends = intervals(columns, clusters=[question.document for question in asked])
    shape = (len(budgets), len(MEASURES))
    means = columns.mean(axis=0).reshape(shape)
    ends = ends.reshape(*shape, 2)
    return SpanEvaluation(
        unit=unit,
        budgets=budgets,
        questions=tuple(asked),
        measures=read_only(
            {
                b: dict(zip(MEASURES, row.tolist(), strict=True))
                for b, row in zip(budgets, means, strict=True)
            }
        ),
        intervals=read_only(
            {
                b: dict(zip(MEASURES, map(tuple, rows.tolist()), strict=True))
                for b, rows in zip(budgets, ends, strict=True)
            }
        ),
        per_question=read_only(
            {question.id: row for question, row in zip(asked, scores, strict=True)}
        ),
        missing=missing,
        settings=read_only(settings),
    )


class _Reading:
    """Searches until the passages of each question fill a budget."""

    def __init__(
        self, index: Index, options: SearchOptions, budget: int, unit: Unit, *, fill: bool
    ) -> None:
        self._index = index
        self.options = replace(options, fold=False, operators=False)
        self._grows = fill
        self._budget = budget
        self._unit = unit
        self._tokens: dict[int, int] = {}  # by chunk id

    def ranked(self, texts: Sequence[str]) -> list[tuple[list[Passage], list[int]]]:
        """Return the passages for each question, best first, and what each costs."""
        found: list[tuple[list[Passage], list[int]]] = [([], [])] * len(texts)
        pending = list(range(len(texts)))
        options = self.options
        while pending:
            answers = self._index.search_many([texts[n] for n in pending], options=options)
            for n, results in zip(pending, answers, strict=True):
                passages = [Passage(hit.document_id, *hit.span) for hit in results]
                found[n] = passages, self._costs(results)
            if not self._grows or options.k == MAX_K:
                break
            short = [
                n
                for n in pending
                if len(found[n][0]) == options.k and sum(found[n][1]) < self._budget
            ]
            deeper = replace(options, k=min(2 * options.k, MAX_K))
            # Most questions of an index need about as many passages.
            if len(short) > len(texts) // 4:
                self.options = deeper
            pending, options = short, deeper
        return found

    def _costs(self, results: Results) -> list[int]:
        if self._unit == "characters":
            return [hit.span.end - hit.span.start for hit in results]
        new = {hit.chunk_id: hit.text for hit in results if hit.chunk_id not in self._tokens}
        counted = self._index.count_tokens(list(new.values()))
        self._tokens.update(zip(new, counted, strict=True))
        return [self._tokens[hit.chunk_id] for hit in results]


def _asked(questions: Iterable[SpanQuestion]) -> list[SpanQuestion]:
    asked = list(questions)
    if not asked:
        raise InvalidEvaluation("There is no question.", hint="Pass at least one SpanQuestion.")
    ids = set()
    for question in asked:
        if not isinstance(question, SpanQuestion):
            raise InvalidEvaluation(
                f"A question is {arguments.described(question)}.",
                hint="Pass SpanQuestion objects; read_span_questions reads them from a file.",
            )
        if question.id in ids:
            raise InvalidEvaluation(
                f"Two questions have the id {arguments.shown(question.id)}.",
                hint="Give each its own id.",
            )
        ids.add(question.id)
    return asked


def _missing(index: Index, questions: Sequence[SpanQuestion]) -> tuple[str, ...]:
    """Return the marked documents that the index lacks; check the marks in the others.

    Raises:
        InvalidEvaluation: None is there, or a mark is not where it is said to be.
    """
    marks: dict[str, list[tuple[str, Reference]]] = {}
    for question in questions:
        for alternative in question.alternatives:
            for reference in alternative:
                marks.setdefault(reference.document, []).append((question.id, reference))
    missing = []
    for document_id, references in marks.items():
        document = index.get(document_id)
        if document is None or document.id != document_id:
            missing.append(document_id)
            continue
        for question_id, (_, start, text) in references:
            there = document.text[start : start + len(text)]
            if there != text:
                raise InvalidEvaluation(
                    f"Question {arguments.shown(question_id)} marks {arguments.shown(text)} at "
                    f"character {start:,} of {arguments.shown(document_id)}, where the text is "
                    f"{arguments.shown(there)}.",
                    hint="Evaluate an index of the texts in which the answers were marked.",
                )
    if len(missing) == len(marks):
        own = next(iter(index.documents(embeddings=False)), None)
        holds = "which is empty" if own is None else f"whose ids are such as {own.id!r}"
        raise InvalidEvaluation(
            f"None of the documents with marked answers ({len(marks):,}, such as "
            f"{arguments.shown(missing[0])}) is in the index {index.path}, {holds}.",
            hint="Name the documents as `retriever list` prints them, or another index with -i.",
        )
    return tuple(missing)
