"""Files of results, written whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from retriever.evaluation.output_files import write_whole


def test_a_file_is_written_whole_or_left_as_it_was(tmp_path: Path):
    path, link = tmp_path / "report.md", tmp_path / "link.md"
    write_whole(path, b"one")
    path.chmod(0o600)
    link.symlink_to(path)
    write_whole(link, b"two")
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert link.is_symlink()
    with pytest.raises(OSError, match="No such file") as failed:
        write_whole(tmp_path / "missing" / "report.md", b"")
    assert failed.value.filename.endswith("missing/report.md")
    read_end, write_end = os.pipe()
    write_whole(f"/dev/fd/{write_end}", b"piped")
    assert os.read(read_end, 9) == b"piped"
    os.close(read_end)
    os.close(write_end)
    write_whole("/dev/null", b"three")
    assert not Path("/dev/null").is_file()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["link.md", "report.md"]


def test_the_permissions_of_a_new_file_are_those_of_the_umask(tmp_path: Path):
    longest = tmp_path / f"{'名' * 84}.md"  # 255 bytes
    before = os.umask(0o027)
    try:
        write_whole(longest, b"one")
    finally:
        os.umask(before)
    assert longest.stat().st_mode & 0o777 == 0o640
    assert [one.name for one in tmp_path.iterdir()] == [longest.name]
