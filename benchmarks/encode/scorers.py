"""Cross-encoders: the one that is made to be measured, and the two ways to run it."""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path
from typing import Any

from .child import Unavailable

SEED = 5
# A head drawn as transformers draws it gives every pair almost the same score.
HEAD_SCALE = 20.0


class _Builder:
    """Makes a cross-encoder: all-MiniLM-L6-v2 under a classification head from a fixed seed."""

    needs = ("sentence_transformers",)

    def build(self, model: str, folder: str) -> None:
        if (Path(folder) / "config.json").exists():
            return
        import torch
        from sentence_transformers import CrossEncoder

        torch.manual_seed(SEED)
        made = CrossEncoder(model, num_labels=1, device="cpu")
        with torch.no_grad():
            made.model.classifier.weight *= HEAD_SCALE
        made.save_pretrained(folder)


class _Scorer:
    """A way from a question and texts to scores."""

    needs: tuple[str, ...] = ()

    def start(self, folder: str, threads: int) -> None:
        raise NotImplementedError

    def score(self, query: str, texts: list[str]) -> list[float]:
        raise NotImplementedError

    def time(self, path: str, question: int) -> dict[str, Any]:
        """Score the texts of a file against one of its questions."""
        asked = json.loads(Path(path).read_text())
        began = time.perf_counter()
        scores = self.score(asked["questions"][question], asked["texts"])
        return {
            "seconds": time.perf_counter() - began,
            "scores": [float(score) for score in scores],
        }


class _Retriever(_Scorer):
    needs = ("retriever",)

    def __init__(self, precision: str) -> None:
        self._precision = precision

    def start(self, folder: str, threads: int) -> None:
        try:
            from retriever.encoders.computing import Computing
            from retriever.encoders.cross_encoder import load_cross_encoder
        except ModuleNotFoundError as error:
            raise Unavailable("this version has no cross-encoder") from error
        from retriever.errors import InvalidConfig

        try:
            self._encoder = load_cross_encoder(
                folder, Computing(threads=threads, precision=self._precision)
            )
        except InvalidConfig as error:
            raise Unavailable(str(error)) from error

    def score(self, query: str, texts: list[str]) -> list[float]:
        return self._encoder.score(query, texts)


class _CrossEncoder(_Scorer):
    """sentence-transformers' `CrossEncoder.predict`, as it comes."""

    needs = ("sentence_transformers",)

    def start(self, folder: str, threads: int) -> None:
        import torch
        from sentence_transformers import CrossEncoder

        torch.set_num_threads(threads)
        self._encoder = CrossEncoder(folder, device="cpu")

    def score(self, query: str, texts: list[str]) -> list[float]:
        return self._encoder.predict([(query, text) for text in texts], show_progress_bar=False)


BUILDER, PEER = "builder", "CrossEncoder.predict"
SYSTEMS: dict[str, Any] = {
    BUILDER: _Builder,
    PEER: _CrossEncoder,
    **{
        f"retriever, {precision}": partial(_Retriever, precision)
        for precision in ("float32", "bfloat16", "int8")
    },
}
