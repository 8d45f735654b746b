"""Ways from texts to vectors, each behind the same few calls. Imports nothing until it is started.

All get the same weights and cut texts at the same window, and all tokenise within the time that is
measured. Those that a library drives are called as its documentation does; runtimes that are driven
here get batches of texts of like length under a budget of tokens, padding included.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .child import Unavailable
from .driven import CTranslate2, OnnxRuntime, OpenVino
from .timing import MatrixProduct, Runtime, form


class _Log(logging.Handler):
    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


class _Retriever(Runtime):
    """This project, at a precision."""

    needs = ("retriever",)

    def __init__(self, precision: str) -> None:
        self.precision = precision

    def start(self, model: str, forms: str, window: int, threads: int) -> None:
        self._log = _Log(logging.INFO)
        logging.getLogger("retriever").addHandler(self._log)
        logging.getLogger("retriever").setLevel(logging.INFO)
        self._encoder = load_ours(model, threads, self.precision)

    def tune(self, path: str, count: int) -> dict[str, Any]:
        """Warm up; return what was logged: the reference may have taken the runtime's place."""
        return {**super().tune(path, count), "logged": self._log.lines}

    def encode(self, texts: list[str]) -> np.ndarray:
        return self._encoder.encode_documents(texts)

    def encode_queries(self, texts: list[str]) -> np.ndarray:
        return self._encoder.encode_queries(texts)


def load_ours(model: str, threads: int, precision: str) -> Any:
    """Return this project's encoder at a precision, or say that there is none here."""
    from retriever.encoders.bi_encoder import load_encoder
    from retriever.encoders.computing import Computing
    from retriever.errors import InvalidConfig

    if precision == "bfloat16":
        require_bfloat16()
    try:
        return load_encoder(model, Computing(threads=threads, precision=precision))
    except InvalidConfig as error:
        raise Unavailable(str(error)) from error


# --- libraries that drive themselves ---------------------------------------------------------


class _SentenceTransformers(Runtime):
    """`SentenceTransformer.encode`, at its default batch or the fastest, in fp32 or autocast."""

    needs = ("sentence_transformers",)

    def __init__(self, choices: Sequence[int] = (), *, bfloat16: bool = False) -> None:
        self.choices = choices
        self._bfloat16 = bfloat16

    def start(self, model: str, forms: str, window: int, threads: int) -> None:
        if self._bfloat16:
            require_bfloat16()
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(threads)
        self._torch = torch
        self._model = SentenceTransformer(model, device="cpu")

    def encode(self, texts: list[str]) -> np.ndarray:
        with self._torch.autocast("cpu", self._torch.bfloat16, enabled=self._bfloat16):
            vectors = self._model.encode(
                texts, batch_size=self.batch, convert_to_tensor=True, show_progress_bar=False
            )
        return vectors.float().numpy()


def require_bfloat16() -> None:
    """Refuse where bfloat16 would be emulated, and slower than float32."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return
    if not flags & {"avx512_bf16", "amx_bf16", "bf16"}:
        raise Unavailable("this processor has no bfloat16")


class _Fastembed(Runtime):
    """fastembed's `TextEmbedding` with the model's ONNX graph as a custom model."""

    needs = ("fastembed",)
    choices = (32, 256)

    def start(self, model: str, forms: str, window: int, threads: int) -> None:
        self._model = open_fastembed(forms, threads)

    def encode(self, texts: list[str]) -> np.ndarray:
        return np.array(list(self._model.embed(texts, batch_size=self.batch)))


def open_fastembed(forms: str, threads: int) -> Any:
    """Return fastembed's model over the ONNX graph."""
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    TextEmbedding.add_custom_model(
        model="local/minilm",
        pooling=PoolingType.MEAN,
        normalization=True,
        sources=ModelSource(hf="local/minilm"),
        dim=384,
        model_file="model.onnx",
    )
    folder = form(forms, "onnx")
    return TextEmbedding("local/minilm", specific_model_path=str(folder), threads=threads)


BATCHES = (8, 16, 32, 64, 128)
DEFAULT, BEST, FLOOR = "sentence-transformers", "sentence-transformers, best batch", "product"
PRECISIONS = ("float32", "bfloat16", "int8")
SYSTEMS: dict[str, Any] = {
    FLOOR: MatrixProduct,
    DEFAULT: _SentenceTransformers,
    BEST: partial(_SentenceTransformers, BATCHES),
    "sentence-transformers, bfloat16": partial(_SentenceTransformers, BATCHES, bfloat16=True),
    "onnxruntime": partial(OnnxRuntime, "onnx"),
    "onnxruntime, dynamic int8": partial(OnnxRuntime, "onnx-int8"),
    "OpenVINO": partial(OpenVino, "f32"),
    "OpenVINO, bfloat16": partial(OpenVino, "bf16"),
    "CTranslate2": partial(CTranslate2, "float32"),
    "CTranslate2, int8": partial(CTranslate2, "int8"),
    "fastembed": _Fastembed,
    **{f"retriever, {precision}": partial(_Retriever, precision) for precision in PRECISIONS},
}
