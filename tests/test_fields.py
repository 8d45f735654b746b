"""The rows of fields say what the documents say, whatever happens to an index."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from retriever import Index
from retriever.field_values import ValueType, decode_value, fields_of
from retriever.storage.tables import DOCUMENTS
from retriever.testing import HashEncoder

METADATA: dict[str, dict[str, Any]] = {
    "one": {"year": 2020, "tags": ["a", "b", "a"], "nested": {"deep.er": [{"x": 1}, {"x": None}]}},
    "two": {"year": 2**53 + 1, "open": True, "empty": [], "note": "NUL \0 and 'quotes'"},
    "three": {"language": "de-AT", "source": 7},
    "four": {},
}


def document(name: str) -> dict[str, Any]:
    return {
        "id": name,
        "text": f"The text of {name}.",
        "title": name.title(),
        "source": f"manuals/pump/{name}.md",
        "metadata": METADATA[name],
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a.index"
    with Index.open(path, model=HashEncoder()) as index:
        index.add(map(document, METADATA))
    return path


def stored(path: Path) -> dict[str, set[tuple[str, int, bytes]]]:
    """Return the rows of each document, as they are in the table."""
    with closing(sqlite3.connect(path / "store.db")) as connection:
        found: dict[str, set[tuple[str, int, bytes]]] = {
            name: set() for (name,) in connection.execute("SELECT id FROM documents")
        }
        for name, *row in connection.execute(
            "SELECT d.id, f.path, v.type, v.value FROM field_values v"
            " JOIN fields f ON f.id = v.field_id JOIN documents d ON d.pk = v.document_pk"
        ):
            assert tuple(row) not in found[name]
            found[name].add(tuple(row))
    return found


def wanted(path: Path) -> dict[str, set[tuple[str, int, bytes]]]:
    """Return the rows that each document should have, from its values in Python."""
    with closing(sqlite3.connect(path / "store.db")) as connection:
        languages = dict(connection.execute("SELECT id, language FROM documents"))
    with Index.open(path, model=HashEncoder()) as index:
        return {
            one.id: set(
                fields_of(
                    one.metadata, source=one.source, title=one.title, language=languages[one.id]
                )
            )
            for one in index.documents()
        }


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path / "store.db", isolation_level=None)) as connection:
        for statement in statements:
            assert connection.execute(statement).rowcount > 0, statement


def test_rows_are_written_with_the_documents(path: Path) -> None:
    found = stored(path)
    assert found == wanted(path)
    values = [(name, decode_value(ValueType(kind), data)) for name, kind, data in found["one"]]
    assert ("nested.deep\\.er.x", None) in values
    assert ("tags", "b") in values
    assert ("folder", "manuals/pump") in values
    assert Index.verify_path(path).ok


def test_rows_go_with_their_document_and_are_replaced_with_it(path: Path) -> None:
    with Index.open(path, model=HashEncoder()) as index:
        index.delete("one")
        index.add([{"id": "two", "text": "Another.", "metadata": {"year": 1}}])
        assert index.verify().ok
    found = stored(path)
    assert found.keys() == METADATA.keys() - {"one"}
    assert found == wanted(path)
    assert {name for name, _, _ in found["two"]} >= {"year"}
    assert "open" not in {name for name, _, _ in found["two"]}


def test_a_renamed_file_has_the_fields_of_its_new_place(tmp_path: Path) -> None:
    folder, path = tmp_path / "docs", tmp_path / "a.index"
    (folder / "pump").mkdir(parents=True)
    (folder / "pump" / "a.md").write_text("# Pump\n\nHold the red key for three seconds.\n")
    for base, folders in ((tmp_path, {"docs", "docs/pump"}), (folder, {"pump"})):
        with Index.open(path, model=HashEncoder(), base=base) as index:
            index.add_files(folder)
            assert index.verify().ok
        (rows,) = stored(path).values()
        assert {data.decode() for name, _, data in rows if name == "folder"} == folders
        assert stored(path) == wanted(path)


DAMAGES = {
    "a lost row": "DELETE FROM field_values WHERE document_pk = 1 AND type = 2",
    "all rows lost": "DELETE FROM field_values",
    "another value": "UPDATE field_values SET value = x'00' WHERE document_pk = 1 AND type = 2",
    "another type": "UPDATE field_values SET type = 3 WHERE document_pk = 1 AND type = 2",
    "text for bytes": "UPDATE field_values SET value = 'x' WHERE document_pk = 1 AND type = 2",
    "another document's": "UPDATE field_values SET document_pk = 4"
    " WHERE document_pk = 1 AND type = 2",
    "of no document": "UPDATE field_values SET document_pk = 99 WHERE document_pk = 1",
    "another field's": "UPDATE field_values SET field_id = (SELECT id FROM fields WHERE path ="
    " 'tags') WHERE document_pk = 2 AND type = 1",
    "a field's path": "UPDATE fields SET path = 'yeas' WHERE path = 'year'",
    "a lost field": "DELETE FROM fields WHERE path = 'year'",
    "a surplus row": "INSERT INTO field_values VALUES (1, 2, x'c000000000000000', 4)",
}


@pytest.mark.damages
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_to_rows_is_found_and_repaired(path: Path, damage: str) -> None:
    change(path, DAMAGES[damage])
    report = Index.verify_path(path)
    assert "fields" in {problem.check for problem in report.problems}
    assert not report.ok
    repaired = Index.repair_path(path, model=HashEncoder())
    assert repaired.ok
    assert repaired.lost == ()
    assert stored(path) == wanted(path)
    with Index.open(path, model=HashEncoder()) as index:
        assert {one.id: one.metadata for one in index.documents()} == METADATA


def test_a_report_names_the_document_and_its_field(path: Path) -> None:
    change(path, DAMAGES["a lost row"])
    (problem,) = Index.verify_path(path).problems
    assert (problem.check, problem.detail) == (
        "fields",
        "document 'one': fields differ from its metadata: 'nested.deep\\\\.er.x', 'year'",
    )


@pytest.mark.damages
def test_the_language_of_a_document_is_under_its_checksum(path: Path) -> None:
    change(path, "UPDATE documents SET language = 'fi' WHERE id = 'one'")
    report = Index.verify_path(path)
    assert {problem.check for problem in report.problems} == {"documents", "history"}


@pytest.mark.damages
def test_metadata_that_no_version_writes_is_damage_and_ends_no_repair(path: Path) -> None:
    with closing(sqlite3.connect(path / "store.db", isolation_level=None)) as connection:
        row = connection.execute(f"SELECT {DOCUMENTS.listed()} FROM documents").fetchone()[:-1]
        metadata = row[: DOCUMENTS.names.index("metadata")]
        crafted = (*metadata, '{"year": 1e999}', *row[len(metadata) + 1 :])
        connection.execute(DOCUMENTS.update_sql, (*DOCUMENTS.seal(crafted), row[0]))
    assert "fields" in {problem.check for problem in Index.verify_path(path).problems}
    repaired = Index.repair_path(path, model=HashEncoder())
    assert [lost.document_id for lost in repaired.lost] == ["one"]
    assert repaired.ok
    assert stored(path) == wanted(path)


def test_backup_adopt_and_rebuild_keep_them(path: Path, tmp_path: Path) -> None:
    with Index.open(path, model=HashEncoder()) as index:
        index.backup(tmp_path / "copy.index")
        Index.adopt(path, tmp_path / "own.index", model=HashEncoder())
        before = stored(path)
        index.rebuild(model=HashEncoder(dimension=8))
        assert index.verify(deep=True).ok
    assert stored(path) == before
    for name in ("copy.index", "own.index"):
        assert stored(tmp_path / name) == before
        assert Index.verify_path(tmp_path / name).ok


@pytest.fixture
def purged(path: Path) -> Path:
    secret = {"id": "s", "text": "x", "metadata": {"key-of-the-secret": ["value-of-the-secret"]}}
    with Index.open(path, model=HashEncoder()) as index:
        index.add([secret, {"id": "k", "text": "y", "metadata": {"key-of-another": 1}}])
        index.delete("s", purge=True)
    return path


def test_a_purge_leaves_no_byte_of_a_value_or_of_the_name_of_a_field(purged: Path) -> None:
    content = b"".join(file.read_bytes() for file in purged.iterdir() if file.is_file())
    assert b"of-the-secret" not in content
    assert b"key-of-another" in content
    assert Index.verify_path(purged).ok


def test_an_unused_field_is_removed_by_compact_and_its_id_is_not_used_again(path: Path) -> None:
    def ids() -> dict[str, int]:
        with closing(sqlite3.connect(path / "store.db")) as connection:
            return dict(connection.execute("SELECT path, id FROM fields"))

    before = ids()
    with Index.open(path, model=HashEncoder()) as index:
        index.delete("two")
        assert ids() == before
        index.compact()
        assert before.keys() - ids().keys() == {"open", "empty", "note"}
        index.add([{"id": "five", "text": "z", "metadata": {"open": 1}}])
    assert ids()["open"] > max(before.values())
    assert Index.verify_path(path).ok
