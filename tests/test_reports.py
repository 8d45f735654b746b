"""What `status`, `verify`, `repair`, `compact` and `backup` return: typed, frozen, and JSON."""

from __future__ import annotations

import dataclasses
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from retriever import (
    BackupReport,
    CompactReport,
    Index,
    IndexStatus,
    RepairReport,
    VerifyReport,
)
from retriever.testing import HashEncoder


@pytest.fixture
def reports(tmp_path: Path) -> dict[str, Any]:
    """The report of every call, of an index with a damaged file of its own."""
    with Index.open(tmp_path / "x.index", model=HashEncoder()) as index:
        index.add([{"id": "a", "text": "the pump"}, {"id": "b", "text": "qqq zzz " * 40}])
        index.compact()
        (found,) = [one for one in index.status().segments if one.kind == "flat"]
        (index.path / found.name).write_bytes(b"")
        damaged = index.verify()
        return {
            "damaged": damaged,
            "repair": index.repair(),
            "compact": index.compact(),
            "backup": index.backup(tmp_path / "copy"),
            "status": index.status(),
        }


def test_reports_are_values_of_their_own_types(reports: dict[str, Any], tmp_path: Path):
    types = (VerifyReport, RepairReport, CompactReport, BackupReport, IndexStatus)
    assert [type(report) for report in reports.values()] == list(types)
    assert reports["status"].path == tmp_path / "x.index"
    assert reports["status"].base == tmp_path
    assert reports["backup"].path == tmp_path / "copy"
    assert reports["repair"].verify.ok
    for report in reports.values():
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(report, dataclasses.fields(report)[0].name, None)
        assert pickle.loads(pickle.dumps(report)) == report


def test_each_report_is_a_json_object_of_its_attributes(reports: dict[str, Any]):
    for report in reports.values():
        names = {field.name for field in dataclasses.fields(report)}
        assert json.loads(json.dumps(report.to_dict())).keys() == names
    (problem,) = reports["damaged"].to_dict()["problems"]
    assert problem.keys() == {"check", "path", "detail", "hint"}
    assert reports["repair"].to_dict()["verify"]["checks"][0] == {
        "name": "head",
        "ok": True,
        "detail": reports["repair"].verify.checks[0].detail,
    }
    status = reports["status"].to_dict()
    assert status["files"] == dict.fromkeys(
        ("indexed", "partial", "skipped", "failed", "deleted"), 0
    )
    assert status["chunking"] == reports["status"].chunking.to_dict()
    assert [segment["kind"] for segment in status["segments"]] == ["flat", "lexical"]
    assert status["segments"][0].keys() == {"name", "rows", "bytes", "kind"}


def test_the_verdict_of_a_damaged_index_names_what_is_wrong(reports: dict[str, Any]):
    report = reports["damaged"]
    assert not report.ok
    assert [check.name for check in report.checks if not check.ok] == ["segments"]
    assert [problem.check for problem in report.problems] == ["segments"]
    assert len(reports["repair"].quarantined) >= 1
