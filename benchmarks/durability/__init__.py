"""The durability harness: everything that may happen to an index, done to it on purpose.

    python -m benchmarks.durability --help

Each part is a module with `run(options) -> Outcome`. Parts share the runner (`runner.py`), the
mixed work and what must hold after it (`work.py`), and the interposed system calls (`shim.py`).
"""

from __future__ import annotations

import os
from pathlib import Path

# Trials are forked, and threads do not survive a fork; this must come before NumPy and faiss.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

ROOT = Path(__file__).parent.parent.parent

# Names the mutant that the package is turned into in this process, see `mutants.py`.
MUTANT = "DURABILITY_MUTANT"
if os.environ.get(MUTANT):
    from .mutants import apply

    apply(os.environ[MUTANT])
