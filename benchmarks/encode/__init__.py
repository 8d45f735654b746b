"""What encoding costs: bulk, ingest, cold and warm queries, reranking, memory, install.

    python -m benchmarks.encode --help

Each part is a module with `run(options) -> Outcome`. What is compared runs in processes of its own
(`process.py`), this project with this interpreter and the others with that of `--peers`, so nothing
here but a part's own module may import this project or a peer.
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
