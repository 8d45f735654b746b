"""Measures by ir-measures, made equal to trec_eval; the only module that imports ir_measures."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from retriever import arguments
from retriever.errors import InvalidEvaluation, MissingDependency

if TYPE_CHECKING:
    from retriever.evaluation.qrels import Qrels
    from retriever.evaluation.runs import Run

_EXAMPLES = "Measures are named as in ir-measures: nDCG@10, AP, RR@10, R@100, P(rel=2)@5."


def parse(names: Sequence[str]) -> dict[str, Any]:
    """Return measures by their canonical names; trec_eval's names and aliases are accepted.

    Raises:
        InvalidEvaluation: A name is unknown, or has options that the measure does not take.
        MissingDependency: ir-measures is not installed.
    """
    if isinstance(names, str):
        names = [names]
    found = {str(measure): measure for name in names for measure in _parse(name)}
    if not found:
        raise InvalidEvaluation("No measure is given.", hint=_EXAMPLES)
    return found


def by_query(measures: Mapping[str, Any], qrels: Qrels, run: Run) -> dict[str, dict[str, float]]:
    """Return the value of each measure for each query of the qrels, in their order.

    Every provider of ir-measures gets ranks in place of scores. They break ties differently from
    trec_eval, some in the opposite order, and ranks have no ties.

    Raises:
        InvalidEvaluation: No provider that is installed computes a measure.
    """
    ir_measures = _ir_measures()
    ranks = {
        query: {document: -rank for rank, document in enumerate(ranking)}
        for query in qrels
        if query in run and (ranking := run.ranking(query))
    }
    values: dict[str, dict[str, float]] = {
        name: dict.fromkeys(qrels, float(measure.DEFAULT)) for name, measure in measures.items()
    }
    judged = {query: dict(grades) for query, grades in qrels.items()}
    for group in _groups(measures.values()):
        try:
            found = ir_measures.iter_calc(group, judged, ranks)
            for metric in found:
                values[str(metric.measure)][metric.query_id] = float(metric.value)
        except ValueError as exc:
            raise InvalidEvaluation(str(exc), hint=_EXAMPLES) from exc
    return values


def _groups(measures: Any) -> list[list[Any]]:
    groups: dict[str, list[Any]] = {}
    for measure in measures:
        options = {key: v for key, v in measure.params.items() if key != measure.AT_PARAM}
        groups.setdefault(repr(sorted(options.items())), []).append(measure)
    return list(groups.values())


def _ir_measures() -> Any:
    try:
        import ir_measures
    except ImportError as exc:
        raise MissingDependency(
            f"Measuring needs ir-measures: {exc}.",
            extra="eval",
            hint='`pip install "retriever-engine[eval]"`.',
        ) from exc
    return ir_measures


def _parse(name: str) -> list[Any]:
    ir_measures = _ir_measures()
    registry = ir_measures.measures.registry
    try:
        node = ast.parse(name, mode="eval").body
        at = None
        options = {}
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
            at, node = ast.literal_eval(node.right), node.left
        if isinstance(node, ast.Call):
            options = {str(one.arg): ast.literal_eval(one.value) for one in node.keywords}
            node = node.func
        kind = registry[ast.unparse(node)]
        measure = kind(**options) if at is None else kind(**options) @ at
        measure.validate_params()
    except (KeyError, SyntaxError, ValueError, AssertionError) as exc:
        close = get_close_matches(str(name), registry, 1)
        meant = f"Did you mean {close[0]}? " if close else ""
        raise InvalidEvaluation(
            f"{arguments.shown(name)} is not a measure.", hint=f"{meant}{_EXAMPLES}"
        ) from exc
    return [measure]
