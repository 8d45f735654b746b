"""An index of each format that there ever was, kept in `formats/` as `format-N.tar.gz`.

Before the number of the format is raised, and before each release, keep the present one:

    python tests/index_formats.py

It must be a few kB, and is never made again: what a version once wrote is what later ones read.
"""

from __future__ import annotations

import gzip
import shutil
import tarfile
import tempfile
from pathlib import Path

from retriever import Index
from retriever.storage import layout
from retriever.testing import HashEncoder

KEPT = Path(__file__).parent / "formats"
NAME = "kept.index"
TEXTS = {
    "pump": "To reset the pump, hold the red key for three seconds.",
    "valve": "The valve opens at two bar and closes again at one.",
    "straße": "Grüße aus der Straße: naïve, 東京, 🙂.",
    "notes/filter.md": "# Filter\n\nClean the filter once a week.\n",
}


def make(folder: Path) -> Path:
    """Make an index of the present format in `folder`, with something in every table."""
    (folder / "notes").mkdir()
    (folder / "notes" / "filter.md").write_text(TEXTS["notes/filter.md"], encoding="utf-8")
    (folder / "notes" / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with Index.open(folder / NAME, model=HashEncoder()) as index:
        index.add_files(folder / "notes")
        index.add([{"id": "old", "text": "It leaves a tombstone."}, document("pump")])
        index.compact()
        index.delete("old")
        index.add([document("valve"), document("straße")])
    return folder / NAME


def document(name: str) -> dict[str, object]:
    """Return a document to be added."""
    return {"id": name, "text": TEXTS[name], "title": name.title(), "metadata": {"of": name}}


def pack(index: Path, target: Path) -> None:
    """Write the files of a closed index as an archive."""
    with gzip.GzipFile(target, "wb", mtime=0) as file, tarfile.open(fileobj=file, mode="w") as tar:
        for path in sorted(index.iterdir()):
            entry = tar.gettarinfo(path, f"{NAME}/{path.name}")
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = ""
            with path.open("rb") as content:
                tar.addfile(entry, content)


def unpack(number: int, folder: Path) -> Path:
    """Unpack the index of a format that was kept."""
    with tarfile.open(archive(number)) as tar:
        tar.extractall(folder, filter="data")
    return folder / NAME


def archive(number: int) -> Path:
    """Return where the index of a format is kept."""
    return KEPT / f"format-{number}.tar.gz"


if __name__ == "__main__":
    made = Path(tempfile.mkdtemp())
    pack(make(made), archive(layout.FORMAT))
    shutil.rmtree(made)
