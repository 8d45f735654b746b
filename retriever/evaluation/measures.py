"""Measures by ir-measures, made equal to trec_eval; the only module that imports ir_measures."""

from __future__ import annotations

import ast
import contextlib
import io
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NoReturn

from retriever import arguments
from retriever.errors import InvalidEvaluation, MissingDependency

if TYPE_CHECKING:
    from retriever.evaluation.qrels import Qrels
    from retriever.evaluation.runs import Run

_HINT = "Measures are named as in ir-measures: nDCG@10, AP, RR@10, R@100, P(rel=2)@5."
_LONGEST_NAME = 200
_TREC_NAME = re.compile(r"[A-Za-z_]+([._][0-9][0-9.,]*)?")
_NEEDS_SUBTOPICS = {"ERR_IA", "nERR_IA", "alpha_DCG", "alpha_nDCG", "NRBP", "nNRBP"}
_NEEDS_SUBTOPICS |= {"AP_IA", "P_IA", "StRecall"}
_POSSIBLE = {
    "cutoff": "A cutoff is a whole number of at least 1.",
    "rel": "The level rel is a whole number of at least 1.",
    "recall": "A recall is a number from 0 to 1 with at most two decimals.",
    "gains": "Gains are whole numbers by grade: gains={1:1,2:3}.",
}
_MOST = 1_000_000  # of a cutoff, a level or a gain; pytrec_eval crashes on some larger ones


def parse(names: Sequence[str]) -> dict[str, Any]:
    """Return measures by their canonical names, without repetitions, in the order given.

    A name is ir-measures' own (`nDCG@10`, `P(rel=2)@5`), one of its aliases (`MRR@10`, `MAP`), in
    upper or lower case, or trec_eval's (`ndcg_cut_10`, `recip_rank`; `P` is P@5, P@10, …). A
    measure of ir-measures is taken as its name.

    Raises:
        InvalidEvaluation: A name is unknown, has options that the measure does not take, or lacks
            one that it needs; or no package that is installed computes the measure.
        MissingDependency: ir-measures is not installed.
    """
    is_one = isinstance(names, str) or not isinstance(names, Iterable)
    asked: list[object] = [names] if is_one else list(names)
    found = {str(measure): measure for name in asked for measure in _parse(name)}
    if not found:
        raise InvalidEvaluation("No measure is given.", hint=_HINT)
    return found


def is_total(name: str) -> bool:
    """Return whether a measure counts, so that its values are added up and not averaged."""
    return name.startswith("Num")


def by_query(measures: Mapping[str, Any], qrels: Qrels, run: Run) -> dict[str, dict[str, float]]:
    """Return the values of measures for each query of the qrels, in the order of the qrels.

    Args:
        measures: As `parse` returns them.
        qrels: The judgements.
        run: What was found.

    Raises:
        InvalidEvaluation: A provider of ir-measures refuses the grades.
    """
    queries = {str(number): query for number, query in enumerate(qrels)}
    grades: dict[str, dict[str, int]] = {}
    ranks: dict[str, dict[str, int]] = {}
    for number, query in queries.items():
        ranking = run.ranking(query) if query in run else ()
        grades[number], ranks[number] = _numbered(ranking, qrels[query])
        if not ranking:  # pytrec_eval crashes on a query without results
            del ranks[number]
    values = {
        name: dict.fromkeys(qrels, float(measure.DEFAULT)) for name, measure in measures.items()
    }
    for group in _groups(measures.values()):
        for metric in _computed(group, grades, ranks):
            values[str(metric.measure)][queries[metric.query_id]] = float(metric.value)
    return values


def _numbered(
    ranking: Sequence[str], judged: Mapping[str, int]
) -> tuple[dict[str, int], dict[str, int]]:
    """Return the grades and the scores of a query as all providers understand them alike.

    Providers break ties in different ways, some of them in the opposite order of trec_eval's, so
    scores become ranks, which have no ties. Providers that exchange files with other programs
    cannot have every id, so ids become numbers: of what was found, the rank.
    """
    size = len(ranking)
    names = {document: str(rank) for rank, document in enumerate(ranking, 1)}
    grades = {
        names.get(document) or str(-number): grade
        for number, (document, grade) in enumerate(judged.items(), 1)
    }
    if max(grades.values()) < 0:
        grades["0"] = 0  # pytrec_eval crashes if all grades are negative
    return grades, {name: size - place for place, name in enumerate(names.values())}


def _groups(measures: Iterable[Any]) -> Iterable[list[Any]]:
    """Return measures by their options, cutoffs aside.

    In one call to pytrec_eval, ir-measures 0.4.3 computes nDCG and NumRet with the options of
    whatever measure comes first.
    """
    groups: dict[str, list[Any]] = {}
    for measure in measures:
        options = {name: v for name, v in measure.params.items() if name != measure.AT_PARAM}
        groups.setdefault(repr(sorted(options.items())), []).append(measure)
    return groups.values()


def _computed(
    measures: list[Any], grades: dict[str, dict[str, int]], ranks: dict[str, dict[str, int]]
) -> list[Any]:
    try:
        return list(_ir_measures().iter_calc(measures, grades, ranks))
    except ZeroDivisionError as exc:  # of Accuracy
        raise InvalidEvaluation(
            f"{' and '.join(map(str, measures))} cannot be computed: a query has no results but "
            "relevant ones.",
            hint="Accuracy compares relevant results with others. AP is defined for such queries.",
        ) from exc
    except subprocess.CalledProcessError as exc:  # the program gdeval.pl
        raise InvalidEvaluation(
            f"{' and '.join(map(str, measures))} cannot be computed: gdeval failed.",
            hint="It takes grades of 4 at most. nDCG(gains={2:3,3:7})@10 does what "
            "nDCG(dcg='exp-log2')@10 does.",
        ) from exc


# --- names -----------------------------------------------------------------------------------


def _parse(name: object) -> list[Any]:
    if isinstance(name, _ir_measures().measures.Measure):
        name = str(name)
    if not isinstance(name, str) or not name.strip() or len(name) > _LONGEST_NAME:
        raise InvalidEvaluation(f"{arguments.shown(name)} is not a measure.", hint=_HINT)
    text = name.strip()
    try:
        return [_ours(text) or _refuse(text)]
    except InvalidEvaluation:  # `P` lacks a cutoff as ours, and is several measures as trec_eval's
        found = _of_trec_eval(text)
        if not found:
            raise
        return found


def _ours(text: str) -> Any:
    """Return a measure of ir-measures, or None if the text is not the name of one.

    Its own parser does not work with Python 3.14.
    """
    try:
        node = ast.parse(text, mode="eval").body
        options: dict[str, Any] = {}
        at = None
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
            at, node = ast.literal_eval(node.right), node.left
        if isinstance(node, ast.Call):
            if node.args or not all(one.arg for one in node.keywords):
                return None
            options = {str(one.arg): ast.literal_eval(one.value) for one in node.keywords}
            node = node.func
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    registry = _ir_measures().measures.registry
    folded = {known.casefold(): known for known in registry}
    name = node.id if isinstance(node, ast.Name) else ""
    kind = registry.get(name) or registry.get(folded.get(name.casefold(), ""))
    if kind is None:
        return None
    measure = kind(**options)
    # Aliases such as SetRelP are measures with options already.
    return _checked(measure if at is None else measure @ at, text)


def _of_trec_eval(text: str) -> list[Any]:
    if not _TREC_NAME.fullmatch(text):  # ir-measures would ignore what is after the name
        return []
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it leaves out
            found = _ir_measures().parse_trec_measure(text)
    except (ValueError, AssertionError):
        return []
    return [_checked(measure, text) for measure in found]


def _checked(measure: Any, text: str) -> Any:
    """Return a measure with its options checked: pytrec_eval aborts the process on wrong ones.

    Raises:
        InvalidEvaluation: An option is unknown, missing or invalid, or no installed package
            computes the measure.
    """
    known = measure.SUPPORTED_PARAMS
    for option, value in measure.params.items():
        if option not in known:
            taken = ", ".join(known) or "none"
            _fail(text, f"has the option {option!r}", f"Its options: {taken}.")
        if known[option].dtype is float and arguments.as_whole(value) is not None:
            measure = measure(**{option: float(value)})
    for option, info in known.items():
        value = measure.params.get(option)
        if value is None and info.required:
            _fail(text, f"lacks its {option}", f"Write {text}@10." if option == "cutoff" else "")
        if option in measure.params and not _is_possible(option, value, info):
            _fail(text, f"has the {option} {arguments.shown(value)}", _POSSIBLE.get(option, ""))
    base = type(measure).__name__.lstrip("_")
    if base in _NEEDS_SUBTOPICS:
        _fail(text, "needs judgements by subtopic", "They cannot be used here.")
    _require_provider(measure, text)
    return measure


def _is_possible(option: str, value: Any, info: Any) -> bool:
    if not info.validate(value) or (isinstance(value, bool) and info.dtype is not bool):
        return False
    if option in ("cutoff", "rel"):
        number = arguments.as_whole(value)
        return number is not None and 1 <= number <= _MOST
    if option == "recall":  # pytrec_eval takes two decimals
        return bool(0 <= value <= 1 and round(value, 2) == value)
    if option == "gains":
        numbers = [*value, *value.values()] if isinstance(value, dict) else [None]
        wholes = [arguments.as_whole(number) for number in numbers]
        return all(number is not None and abs(number) <= _MOST for number in wholes)
    return True


def _require_provider(measure: Any, text: str) -> None:
    ir_measures = _ir_measures()
    if ir_measures.DefaultPipeline.supports(measure):
        return
    others = [
        provider.install_instructions()
        for provider in ir_measures.DefaultPipeline.providers
        if provider.supports(measure) and not provider.is_available()
    ]
    advice = " or ".join(f"`{other}`" for other in others if other)
    _fail(text, "cannot be computed with what is installed", f"{advice}." if advice else "")


def _fail(text: str, what: str, advice: str) -> NoReturn:
    raise InvalidEvaluation(f"The measure {text!r} {what}.", hint=f"{advice} {_HINT}".lstrip())


def _refuse(text: str) -> NoReturn:
    registry = _ir_measures().measures.registry
    known = {alias.casefold(): str(kind.__name__) for alias, kind in registry.items()}
    stem = text.split("@")[0].split("(")[0].casefold()
    close = dict.fromkeys(known[name] for name in get_close_matches(stem, known, 3))
    meant = f"Did you mean {' or '.join(close)}? " if close else ""
    raise InvalidEvaluation(f"{arguments.shown(text)} is not a measure.", hint=f"{meant}{_HINT}")


def _ir_measures() -> Any:
    try:
        import ir_measures
    except ImportError as exc:
        raise MissingDependency(
            f"Scoring needs ir-measures: {exc}.",
            extra="eval",
            hint='`pip install "retriever-engine[eval]"`.',
        ) from exc
    return ir_measures
