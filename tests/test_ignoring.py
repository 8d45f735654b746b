"""Ignore files, held to git itself on generated folders."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from retriever.documents.ignoring import IgnoreRules
from retriever.documents.walk import Walk

TREES = int(os.environ.get("RETRIEVER_IGNORE_TREES", "200"))
"""Folders compared with git; `RETRIEVER_IGNORE_TREES=10000` takes some minutes."""

NAMES = [
    *(b"a", b"b", b"ab", b"ba", b"abc", b"A", b"1", b"a.b", b"b.a", b"a b", b"a ", b"!a", b"#a"),
    *(b"[a]", b"a*", b"a?b", b"a\\b", b"-", b"]", b"^b", b"a\tb", b"a\nb", b"\xc3\xa9", b"\xff"),
]
PIECES = [
    *(b"a", b"b", b"ab", b"A", b"1", b".", b" ", b"\t", b"-", b"!", b"#", b"\xc3\xa9", b"\xff"),
    *(b"*", b"*", b"*", b"**", b"**/", b"/**", b"/**/", b"***", b"/", b"/", b"/", b"?", b"?"),
    *(b"[ab]", b"[!a]", b"[^b]", b"[a-b]", b"[]a]", b"[!]]", b"[a-]", b"[-a]", b"[b-a]"),
    *(b"[[:alpha:]]", b"[[:digit:]b]", b"[[:upper:]]", b"[[:space:]]", b"[[:nope:]]", b"[[:a]"),
    *(b"[\\]a]", b"[a\\-b]", b"[[a]", b"[", b"]", b"[a", b"\\", b"\\a", b"\\*", b"\\[", b"\\ "),
    *(b"\\/", b"\\\\", b"\\!", b"\\#", b"[/]", b"[.-0]"),
]
TEMPLATES = [
    *(b"*", b"!*", b"*/", b"!*/", b"/*", b"/*/", b"a/", b"!a/", b"a/*", b"a/**", b"!a/b", b"**/a"),
    *(b"**/a/", b"a/**/", b"a/**/b", b"/a", b"!/a", b"/a/", b"/a/*/b", b"*.b", b"!a.b", b"a**/b"),
    *(b"**", b"/**", b"!/**/a", b"a/b/", b"#a", b"\\#a", b"\\!a", b"a  ", b"a\\ ", b"a\\ \\ ", b""),
]


def a_pattern(rng: random.Random) -> bytes:
    if rng.random() < 0.4:
        return rng.choice(TEMPLATES)
    return b"".join(rng.choices(PIECES, k=rng.randint(1, 5)))


def an_ignore_file(rng: random.Random) -> bytes:
    lines = [a_pattern(rng) for _ in range(rng.randint(1, 5))]
    end = rng.choice([b"\n", b"\n", b"\n", b"\r\n"])
    start = b"\xef\xbb\xbf" if rng.random() < 0.1 else b""
    return start + end.join(lines) + (end if rng.random() < 0.8 else b"")


def grow(rng: random.Random, folder: Path, depth: int) -> None:
    for name in rng.sample(NAMES, rng.randint(2, 6)):
        path = folder / os.fsdecode(name)
        if depth and rng.random() < 0.45:
            path.mkdir()
            grow(rng, path, depth - 1)
        else:
            path.touch()
    if rng.random() < (0.9 if depth == 3 else 0.25):
        (folder / ".gitignore").write_bytes(an_ignore_file(rng))


def what_git_lists(repository: Path) -> set[bytes]:
    environment = {
        **os.environ,
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "HOME": str(repository.parent),
        "XDG_CONFIG_HOME": str(repository.parent),
    }
    command = ["git", "ls-files", "--others", "--exclude-standard", "-z"]
    out = subprocess.run(
        command, cwd=repository, env=environment, check=True, capture_output=True
    ).stdout
    return {path for path in out.split(b"\0") if path and b".gitignore" not in path}


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
@pytest.mark.timeout(3000)
def test_the_walk_finds_what_git_lists(tmp_path: Path) -> None:
    start = random.randrange(1 << 30)
    for seed in range(start, start + TREES):
        rng = random.Random(seed)
        repository = tmp_path / "repository"
        for name in ("objects", "refs"):
            (repository / ".git" / name).mkdir(parents=True)
        (repository / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
        if rng.random() < 0.3:
            (repository / ".git" / "info").mkdir()
            (repository / ".git" / "info" / "exclude").write_bytes(an_ignore_file(rng))
        grow(rng, repository, 3)
        found = {os.fsencode(file.path.relative_to(repository)) for file in Walk([repository])}
        assert found == what_git_lists(repository), f"seed {seed}"
        shutil.rmtree(repository)


def test_patterns_cannot_make_matching_slow() -> None:
    patterns = b"*a*a*a*a*a*a*a*a*a*a*b\n" + b"**/a/" * 12 + b"b\n" + b"**/*a*" * 6 + b"/b\n"
    rules = IgnoreRules("/", [patterns], None)
    began = time.perf_counter()
    for path in ("/" + "a" * 255, "/" + "a/" * 2000 + "a", "/" + "/".join(["a" * 100] * 40)):
        assert not rules.exclude(path, is_folder=False)
    assert time.perf_counter() - began < 5


def test_a_name_is_looked_up_and_the_last_pattern_still_decides() -> None:
    rules = IgnoreRules("/r", [b"a\n!*\nb\n!b\nc/\nd\n!d/\n"], None)
    excluded = [
        (name, is_folder)
        for name in "abcde"
        for is_folder in (False, True)
        if rules.exclude(f"/r/x/{name}", is_folder=is_folder)
    ]
    assert excluded == [("c", True), ("d", False)]
