"""The processes of systems, from outside; `child.py` is what runs in them.

Systems are measured in turn, none in the heap or among the threads of another, and each with the
interpreter of its own environment.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from . import ROOT
from .child import Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .runner import Options

OURS = "retriever"


def environment(threads: int) -> dict[str, str]:
    """Return the environment that every system gets: so many threads, no GPU, no network."""
    counts = ("OMP", "MKL", "OPENBLAS", "RAYON")
    return {
        **os.environ,
        **{f"{library}_NUM_THREADS": str(threads) for library in counts},
        "TOKENIZERS_PARALLELISM": "true" if threads > 1 else "false",
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "ANONYMIZED_TELEMETRY": "False",
    }


class Child:
    """The process of one system."""

    def __init__(self, module: str, name: str, options: Options, threads: int | None = None):
        """Start it; `name` is a key of the module's `SYSTEMS`."""
        self.name = name
        label = re.sub(r"\W+", "-", f"{module} {name}").strip("-")
        self._errors = options.folder("stderr") / f"{label}.txt"
        interpreter = sys.executable if name.startswith(OURS) else options.peers
        with self._errors.open("wb") as stderr:
            self._process = subprocess.Popen(
                [interpreter, "-m", f"{__package__}.child", module, name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                cwd=ROOT,
                env=environment(threads or options.threads),
            )

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Call a method of the system and wait for its answer.

        Raises:
            Unavailable: It cannot, or it ended.
        """
        pipes: tuple[IO[str], IO[str]] = (self._process.stdin, self._process.stdout)  # type: ignore
        try:
            pipes[0].write(json.dumps({"do": do, **arguments}, default=str) + "\n")
            pipes[0].flush()
            line = pipes[1].readline()
        except BrokenPipeError:
            line = ""
        if not line:
            said = self._errors.read_text(errors="replace").strip().splitlines()[-1:]
            raise Unavailable(f"failed: ended with {self._process.wait()} {' '.join(said)}")
        answer = json.loads(line)
        for verdict in ("skipped", "failed"):
            if verdict in answer:
                raise Unavailable(f"{verdict}: {answer[verdict]}")
        return dict(answer)

    def end(self) -> None:
        """Let it end, and wait for that."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()


class Children:
    """Several systems, asked in turn; one that cannot is left out from then on."""

    def __init__(
        self, module: str, names: Sequence[str], options: Options, threads: int | None = None
    ):
        self.running = {name: Child(module, name, options, threads) for name in names}
        self.skipped: dict[str, str] = {}

    def __enter__(self) -> Children:
        return self

    def __exit__(self, *_: object) -> None:
        for child in self.running.values():
            child.end()

    def each(self, do: str, turn: int = 0, **arguments: Any) -> dict[str, dict[str, Any]]:
        """Ask each, beginning with another one every turn; return the answers by name."""
        names = list(self.running)
        first = turn % len(names) if names else 0
        found = {name: self.one(name, do, **arguments) for name in names[first:] + names[:first]}
        return {name: answer for name, answer in found.items() if answer is not None}

    def one(self, name: str, do: str, **arguments: Any) -> dict[str, Any] | None:
        """Ask one; return None if it cannot, and is left out from now on."""
        try:
            return self.running[name].ask(do, **arguments)
        except Unavailable as error:
            self.running.pop(name).end()
            self.skipped[name] = str(error)
            print(f"  {name}: {error}", flush=True)
        return None

    @property
    def failures(self) -> list[str]:
        """Return what went wrong with this project's own systems; being skipped is not wrong."""
        return [
            f"{name}: {reason}"
            for name, reason in self.skipped.items()
            if name.startswith(OURS) and reason.startswith("failed")
        ]


def installed(options: Options, module: str) -> bool:
    """Return whether the peers' environment has a module."""
    code = f"import importlib.util as u, sys; sys.exit(u.find_spec({module!r}) is None)"
    return subprocess.run([options.peers, "-c", code], check=False).returncode == 0


def versions(peers: str) -> dict[str, str]:
    """Return the versions of what is compared, by package, as the two environments have them."""
    names = [
        re.split(r"[=<>\[ ]", line)[0]
        for line in (Path(__file__).parent / "peers.txt").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    code = (
        "import importlib.metadata as m, json, sys\nfound = {}\n"
        "for name in sys.argv[1:]:\n"
        "    try: found[name] = m.version(name)\n"
        "    except m.PackageNotFoundError: pass\n"
        "print(json.dumps(found))"
    )
    ours = ["retriever", "numpy", "faiss-cpu", "tokenizers", "onnxruntime", "openvino", "torch"]
    found = {}
    for label, interpreter, wanted in (
        ("", peers, names),
        ("here: ", sys.executable, ours),
    ):
        ran = subprocess.run(
            [interpreter, "-c", code, *wanted], check=True, capture_output=True, text=True
        )
        found.update({f"{label}{k}": v for k, v in json.loads(ran.stdout).items()})
    return found
