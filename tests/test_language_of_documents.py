"""The language of a document is stored with it when it is added."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from retriever import Document, Index
from retriever.testing import HashEncoder


def test_documents_are_stored_with_their_language(tmp_path: Path):
    folder = tmp_path / "files"
    folder.mkdir()
    german = "Die Pumpe steht im Keller und muss vor dem Winter von der Wartung entleert werden. "
    (folder / "pump.py").write_text(f'"""{german}"""\n')
    (folder / "pump.md").write_text(german * 3)
    with Index.open(tmp_path / "i", model=HashEncoder()) as index:
        index.add_files([folder])
        index.add(
            [
                Document("水泵在老磨坊的地下室里，冬天之前必须把水放干。", id="zh"),
                Document("Pumpe", id="short"),
                Document("Pumpe", id="said", metadata={"language": "de-CH"}),
            ]
        )
    connection = sqlite3.connect(tmp_path / "i" / "store.db")
    rows = dict(connection.execute("SELECT id, language FROM documents"))
    connection.close()
    found = {Path(name).name: language for name, language in rows.items()}
    assert found == {"pump.py": None, "pump.md": "de", "zh": "zh", "short": None, "said": "de"}
