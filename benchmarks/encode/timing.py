"""What a way from texts to vectors is asked, how it is timed, and the machine's own rate."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from .child import Unavailable


class Runtime:
    """A way from texts to vectors.

    Attributes:
        needs: Modules that must be importable.
        choices: Batch sizes, or token budgets, of which the fastest is chosen.
        batch: The one that is used.
    """

    needs: tuple[str, ...] = ()
    choices: Sequence[int] = ()
    batch = 32

    def start(self, model: str, forms: str, window: int, threads: int) -> None:
        """Load the model from its folder, or from its other forms."""
        raise NotImplementedError

    def encode(self, texts: list[str]) -> np.ndarray:
        """Return an embedding a text, in their order."""
        raise NotImplementedError

    def encode_queries(self, texts: list[str]) -> np.ndarray:
        """Return the embeddings of questions."""
        return self.encode(texts)

    def tune(self, path: str, count: int) -> dict[str, Any]:
        """Warm up, and choose the batch that is fastest on the first texts."""
        texts = json.loads(Path(path).read_text())[:count]
        self.encode(texts)
        rates = {}
        for batch in self.choices:
            self.batch = batch
            seconds = []
            for _ in range(2):
                began = time.perf_counter()
                self.encode(texts)
                seconds.append(time.perf_counter() - began)
            rates[batch] = min(seconds)
        if rates:
            self.batch = min(rates, key=lambda batch: rates[batch])
        return {"batch": self.batch if rates else None}

    def time(self, path: str, save: str | None = None, queries: bool = False) -> dict[str, Any]:
        """Encode the texts of a file; return the seconds it took."""
        texts = json.loads(Path(path).read_text())
        encode = self.encode_queries if queries else self.encode
        began, cpu = time.perf_counter(), time.process_time()
        vectors = encode(texts)
        taken = {"seconds": time.perf_counter() - began, "cpu_s": time.process_time() - cpu}
        if save:
            np.save(save, vectors)
        return taken


def form(forms: str, name: str) -> Path:
    """Return a form that the model was converted to."""
    path = Path(forms) / name
    if not path.exists():
        raise Unavailable("the model was not converted for it")
    return path


class MatrixProduct:
    """The fastest float32 product (1024 × 384) · (384 × 1536) that NumPy or torch computes here."""

    needs: ClassVar[tuple[str, ...]] = ()
    sizes = (1024, 384, 1536)
    repeats = 200

    def start(self, model: str, forms: str, window: int, threads: int) -> None:
        """Make the matrices."""
        rows, inner, columns = self.sizes
        rng = np.random.default_rng(0)
        left = rng.standard_normal((rows, inner), np.float32)
        right = rng.standard_normal((inner, columns), np.float32)
        out = np.empty((rows, columns), np.float32)
        self._products = {"numpy": partial(np.matmul, left, right, out=out)}
        try:
            import torch
        except ImportError:
            return
        torch.set_num_threads(threads)
        tensors = [torch.from_numpy(array) for array in (left, right)]
        self._products["torch"] = partial(torch.mm, *tensors, out=torch.from_numpy(out.copy()))

    def tune(self, path: str, count: int) -> dict[str, Any]:
        """Do nothing: there is no choice."""
        return {}

    def time(self, path: str, save: str | None = None) -> dict[str, Any]:
        """Return the rate of the faster library, in operations a second."""
        rates = {}
        for library, product in self._products.items():
            product()
            began = time.perf_counter()
            for _ in range(self.repeats):
                product()
            seconds = time.perf_counter() - began
            rates[library] = 2 * float(np.prod(self.sizes)) * self.repeats / seconds
        library = max(rates, key=lambda name: rates[name])
        return {"rate": rates[library], "library": library}
