"""Damage to any file of a closed index: noticed, or without effect; and repair mends it.

Silent is an answer that differs from what was written while neither the call, nor opening, nor
`verify` says a word. More is required where more is promised: no text or metadata is ever shown
that was not written, and damage to segments changes no answer at all. After a repair the index
is sound, or refused with a reason; what is lost is named, and what was damaged is kept aside.
"""

from __future__ import annotations

import logging
import random
import shutil
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import faiss  # noqa: F401  trials are forked: what they need is loaded before
import sqlite_utils  # noqa: F401

from retriever import Document, Hit, Index
from retriever.errors import DataLoss, IndexCorrupt, IndexNotFound, RetrieverError
from retriever.search.segment_kinds import KINDS
from retriever.storage import head_file, integrity

from . import healthy as of
from .harm import SEGMENT_CLASSES, Victim, damage
from .healthy import Healthy
from .runner import Failure, Options, Outcome, Seen, require, run_trials

HARMLESS = SEGMENT_CLASSES | {"lock", "ignore", "shared memory"}
WRITES, FULL, DEEP, STAMPED = 0.25, 0.1, 0.1, 0.7
_UNKNOWN_LOSS = ("was acknowledged", "more documents may be lost")


def run(options: Options) -> Outcome:
    """Damage an index `options.count` times."""
    indexes = build(options.folder)
    return run_trials("damage", options, lambda seed, folder: trial(indexes, seed, folder))


def build(folder: Path) -> list[Healthy]:
    """Return the healthy indexes."""
    return [of.build(name, folder) for name in of.VARIANTS]


def trial(indexes: list[Healthy], seed: str, folder: Path) -> Seen:
    """Damage a copy of an index, ask it everything, and repair it."""
    rng = random.Random(f"damage {seed}")
    (healthy,) = rng.choices(indexes, list(of.VARIANTS.values()))
    victim = Victim(healthy, folder / "damaged.index", rng)
    shutil.copytree(healthy.path, victim.path)
    if rng.random() < STAMPED:
        of.stamp_again(victim.path)
    damage(victim)
    try:
        return examine(victim)
    except Failure as failure:
        raise Failure(f"{healthy.name}: {'; '.join(victim.told)}: {failure}") from failure
    except Exception as exc:
        exc.add_note(f"{healthy.name}: {'; '.join(victim.told)}")
        raise


@dataclass
class Wanted:
    """What an index must hold: documents, and those of which it is not known."""

    documents: dict[str, Document]
    older: dict[str, list[Document]]
    ranking: set[Any]
    unsure: set[str] = field(default_factory=set)


def examine(victim: Victim) -> Seen:
    """Require all that is promised of a damaged index; return what happened."""
    logging.getLogger("retriever").setLevel(logging.CRITICAL)
    seen: Seen = Counter()
    for kind in victim.kinds:
        seen[f"kind: {kind}"] += 1
    for name in victim.classes:
        seen[f"file: {name}"] += 1
    state, is_certain = check_answers(victim, seen)
    older = victim.healthy.written
    wanted = Wanted(dict(state["documents"]), older, of.ranking(state["search all"]))
    wanted.unsure |= set() if is_certain else older.keys()
    if victim.rng.random() < WRITES:
        check_writes(victim, wanted, seen)
    check_repair(victim, wanted, seen)
    return seen


# --- answers ---------------------------------------------------------------------------------


def check_answers(victim: Victim, seen: Seen) -> tuple[of.State, bool]:
    """Require that answers are right or that something complains.

    Returns:
        The state that the index is in, and whether that is certain.
    """
    healthy = victim.healthy
    said, raised = of.ask(victim.path, of.some_ids(healthy, victim.rng, 6))
    is_deep = victim.rng.random() < DEEP
    report = integrity.verify(victim.path, deep=is_deep, kinds=KINDS)
    check_written(healthy, said)
    commit, is_certain = _witnessed(victim, said)
    state = healthy.states[commit]
    wrong = [name for name, answer in said.items() if answer != state[name]]
    require(not (report.ok and wrong), f"silently wrong: {wrong}")
    if victim.classes <= HARMLESS and not {"rot", "directory"} & set(victim.kinds):
        require(not raised, f"damage to a cache ended in errors: {raised}")
        require(not wrong, f"damage to a cache changed answers: {wrong}")
    require(not (raised and report.ok), f"verify is content, but {raised[:1]}")
    seen[_complaint(raised, report, state is healthy.newest)] += 1
    if victim.rng.random() < FULL:
        _check_full(victim.path, is_sound=report.ok and not raised)
    return state, is_certain


def _witnessed(victim: Victim, said: of.State) -> tuple[int, bool]:
    """Return the commit whose state is due: the newest, unless HEAD itself is an older copy.

    HEAD is what witnesses the last commit; an older one, with the database as it was then or
    since, cannot be told from an older index. Which it is, is not certain if the database is
    too damaged to say.
    """
    healthy = victim.healthy
    with suppress(RetrieverError, OSError):
        head = head_file.read_head(victim.path)
        seq = said.get("status", {}).get("seq", healthy.last)
        if head is not None and head.seq < healthy.last and head.seq <= seq:
            return max(commit for commit in healthy.states if commit <= seq), "status" in said
    return healthy.last, True


def _complaint(raised: list[str], report: dict[str, Any], is_newest: bool) -> str:
    if raised:
        first = "open" if raised[0].startswith("open") else "operation"
        return f"noticed by {first}"
    if not report.ok:
        return "noticed by verify only"
    return "harmless" if is_newest else "a whole older copy"


def check_written(healthy: Healthy, said: of.State) -> None:
    """Require that every text and all metadata shown were written at some time, for that id."""
    found = list(said.get("documents", {}).values())
    found += [answer for name, answer in said.items() if name.startswith("get ") and answer]
    for document in found:
        known = healthy.written.get(document.id, [])
        require(document in known, f"document {document.id} was never written like that")
    for name, answer in said.items():
        if name.startswith("chunks "):
            for chunk in answer or []:
                require(chunk in healthy.shown, f"chunk {chunk.id} was never like that: {chunk}")
        elif name.startswith("search "):
            for hit in answer:
                require(_is_slice(healthy, hit), f"a hit shows text that was not written: {hit}")
                require(_is_told(healthy, hit), f"a hit shows metadata not written: {hit}")
    for hit in said.get("search all", []):
        require(of.fingerprint(hit) in healthy.shown, f"a hit was never like that: {hit}")


def _is_slice(healthy: Healthy, part: Any) -> bool:
    versions = healthy.written.get(part.document_id, [])
    return any(part.text == version.text[slice(*part.span)] for version in versions)


def _is_told(healthy: Healthy, hit: Any) -> bool:
    shown = (dict(hit.metadata), hit.source)
    for version in healthy.written[hit.document_id]:
        title = {} if version.title is None else {"title": version.title}
        if shown == ({**title, **version.metadata}, version.source):
            return True
    return False


def _check_full(path: Path, *, is_sound: bool) -> None:
    try:
        of.open_index(path, read_only=True, check="full").close()
    except RetrieverError as error:
        require(not is_sound, f"check='full' refuses what verify does not: {error}")
    else:
        require(is_sound, "check='full' opens what verify finds damaged")


# --- writing on ------------------------------------------------------------------------------


def check_writes(victim: Victim, wanted: Wanted, seen: Seen) -> None:
    """Write to the damaged index as if nothing had happened; damage must not become unnoticed."""
    deleted = victim.rng.choice(sorted(wanted.documents))
    added = of.fresh_document()
    wanted.older = {**wanted.older, added.id or "": [added]}
    wanted.unsure |= {deleted, added.id or ""}
    seen["written to"] += 1
    with suppress(RetrieverError), of.open_index(victim.path) as index:
        index.add([added])
        wanted.unsure.discard(added.id or "")
        wanted.documents[added.id or ""] = added
        index.delete([deleted])
        wanted.unsure.discard(deleted)
        del wanted.documents[deleted]
        if victim.rng.random() < 0.3:
            index.compact()
        seen["written to in spite of damage"] += 1
    wanted.ranking = {row for row in wanted.ranking if row[0] != deleted}
    if integrity.verify(victim.path, kinds=KINDS).ok:
        with suppress(RetrieverError), of.open_index(victim.path, read_only=True) as index:
            check_content(index, wanted, victim.rng, lost=set(), is_older=False)


# --- repair ----------------------------------------------------------------------------------


def check_repair(victim: Victim, wanted: Wanted, seen: Seen) -> None:
    """Require that repair leaves a sound index and names what is lost, or says that it cannot."""
    path = victim.path
    before = {name.name for name in path.iterdir()}
    accepted = False
    try:
        try:
            report = Index.repair_path(path, model=of.encoder(), limits=of.LIMITS)
        except DataLoss as error:
            require(error.hint, "the loss comes without a hint")
            accepted = True
            report = Index.repair_path(path, model=of.encoder(), limits=of.LIMITS, accept_loss=True)
    except RetrieverError as error:
        _check_refusal(victim, error, before)
        seen["refused"] += 1
        return
    require(report.ok, f"repaired, and not sound: {report.verify.problems[:2]}")
    require(all((path / name).exists() for name in report.quarantined), "nothing is kept aside")
    with of.open_index(path) as index:
        losses = index.status().losses
        require(losses or not accepted, "an accepted loss is not recorded")
        named = {item.document_id for item in report.lost}
        texts = [str(loss) for loss in losses]
        is_unknown = any(part in text for text in texts for part in _UNKNOWN_LOSS)
        is_blind = any("lost commits cannot be detected" in action for action in report.actions)
        is_older = accepted or is_unknown or is_blind
        check_content(index, wanted, victim.rng, lost=named, is_older=is_older)
        check_vectors(index, wanted, named, report)
        index.add(["one more"])
        require(len(index.search("one more", k=1)) == 1, "the next document is not found")
        after = index.verify(deep=True)
        require(after.ok, f"written after a repair, not sound: {after.problems[:2]}")
    lossless = not named and not accepted
    acted = "repaired whole" if report.actions else "nothing to repair"
    seen[acted if lossless else "repaired with a named loss"] += 1


def _check_refusal(victim: Victim, error: RetrieverError, before: set[str]) -> None:
    said = f"{type(error).__name__}: {error}"
    require(error.hint, f"repair refused without a hint: {said}")
    lasting = {name for name in before if not name.endswith(("-shm", "-wal"))}
    gone = lasting - {name.name for name in victim.path.iterdir()}
    require(not gone, f"repair refused, and removed {gone}")
    if isinstance(error, IndexCorrupt):
        require(error.repair is False, f"repair gave up without saying so: {said}")
        return
    is_blank = isinstance(error, IndexNotFound) and {"head", "database"} <= victim.classes
    require(is_blank, f"repair ended with {said}")


def check_content(
    index: Index, wanted: Wanted, rng: random.Random, *, lost: set[str], is_older: bool
) -> None:
    """Require the documents wanted, less those named as lost, each as it was written."""
    found = {document.id or "": document for document in index.documents()}
    for name, document in found.items():
        right = document == wanted.documents.get(name)
        excused = is_older or name in wanted.unsure
        right = right or (excused and document in wanted.older.get(name, []))
        require(right, f"{name} is not as it was written, or was deleted")
    missing = wanted.documents.keys() - found.keys() - lost - wanted.unsure
    require(is_older or not missing, f"{sorted(missing)} are lost, and nothing says so")
    for name in rng.sample(sorted(found), min(8, len(found))):
        text = found[name].text
        right = all(chunk.text == text[slice(*chunk.span)] for chunk in index.chunks(name))
        require(right, f"the chunks of {name} are not its text")
    # By their cosines: how rare a word is depends on the documents that are left.
    hits = list(index.search("the cold hall of pump 12", k=of.ALL, fold=False, mode="dense"))
    total = index.status().chunks
    require(len(hits) == total, f"a search finds {len(hits)} of {total} chunks")
    for hit in hits:
        text = found[hit.document_id].text[slice(*hit.span)]
        require(hit.text == text, "a hit shows text that was not written")
    _check_scores(hits, found, wanted)


def _check_scores(hits: list[Hit], found: dict[str, Document], wanted: Wanted) -> None:
    """Require that documents which are as they were are found where they were."""
    same = {name for name in found if found[name] == wanted.documents.get(name)}
    same &= {row[0] for row in wanted.ranking}
    same.discard("supplied")  # see `check_vectors`
    before = {row for row in wanted.ranking if row[0] in same}
    after = {row for row in of.ranking(hits) if row[0] in same}
    odd = sorted(before ^ after)
    require(not odd, f"scores are not what they were: {odd[:3]}")


def check_vectors(index: Index, wanted: Wanted, named: set[str], report: dict[str, Any]) -> None:
    """Require that an embedding made elsewhere is still there, or that its loss is named."""
    document = index.get("supplied")
    if document is None or document != wanted.documents.get("supplied"):
        return
    (hit,) = index.search(vector=of.SUPPLIED[0], k=1)
    kept = hit.document_id == "supplied" and hit.score > 1 - 1e-6
    said = str(report.lost) + str(index.status().losses) + str(report.actions)
    require(kept or "embedding" in said, "an embedding made elsewhere is lost, and nothing says so")
