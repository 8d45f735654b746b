"""Runtimes that are fed here, with batches of texts of like length under a budget of tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from .child import Unavailable
from .timing import Runtime, form


class _Driven(Runtime):
    """A forward pass, fed with batches of texts of like length; mean pooling, unit length."""

    choices = (1024, 2048, 4096)
    batch = 1024

    def start(self, model: str, forms: str, window: int, threads: int) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(f"{model}/tokenizer.json")
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(window)
        self.load(forms, threads)

    def load(self, forms: str, threads: int) -> None:
        """Load the graph."""
        raise NotImplementedError

    def forward(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Return token vectors `(texts, tokens, dimension)`."""
        raise NotImplementedError

    def encode(self, texts: list[str]) -> np.ndarray:
        rows = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts)]
        vectors = np.empty((len(texts), 384), np.float32)
        for batch in _batches(rows, self.batch):
            longest = max(len(rows[position]) for position in batch)
            ids = np.zeros((len(batch), longest), np.int64)
            mask = np.zeros((len(batch), longest), np.int64)
            for row, position in enumerate(batch):
                ids[row, : len(rows[position])] = rows[position]
                mask[row, : len(rows[position])] = 1
            hidden = self.forward(ids, mask)
            weights = mask.astype(np.float32)
            pooled = np.einsum("nth,nt->nh", hidden, weights) / weights.sum(1, keepdims=True)
            vectors[batch] = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        return vectors


def _batches(rows: Sequence[Sequence[int]], budget: int) -> Iterator[list[int]]:
    """Yield positions of rows of like length, padded to no more than `budget` tokens."""
    batch: list[int] = []
    for position in sorted(range(len(rows)), key=lambda row: -len(rows[row])):
        if batch and (len(batch) + 1) * len(rows[batch[0]]) > budget:
            yield batch
            batch = []
        batch.append(position)
    if batch:
        yield batch


class OnnxRuntime(_Driven):
    """onnxruntime, its own graph optimisations on, over the graph in fp32 or dynamic int8."""

    needs = ("onnxruntime", "tokenizers")

    def __init__(self, form: str) -> None:
        self._form = form

    def load(self, forms: str, threads: int) -> None:
        """Load the graph."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        path = form(forms, self._form) / "model.onnx"
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )

    def forward(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Return token vectors."""
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        return self._session.run(None, inputs)[0]


class OpenVino(_Driven):
    """OpenVINO with a precision hint."""

    needs = ("openvino", "tokenizers")

    def __init__(self, hint: str) -> None:
        self._hint = hint

    def load(self, forms: str, threads: int) -> None:
        """Load the graph."""
        import openvino

        core = openvino.Core()
        if self._hint == "bf16" and "BF16" not in core.get_property(
            "CPU", "OPTIMIZATION_CAPABILITIES"
        ):
            raise Unavailable("this processor has no bfloat16")
        settings = {"INFERENCE_PRECISION_HINT": self._hint, "INFERENCE_NUM_THREADS": threads}
        path = form(forms, "openvino") / "model.xml"
        self._request = core.compile_model(path, "CPU", settings).create_infer_request()

    def forward(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Return token vectors."""
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        return self._request.infer(inputs)[0]


class CTranslate2(_Driven):
    """CTranslate2's `Encoder`, in fp32 or int8."""

    needs = ("ctranslate2", "tokenizers")

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def load(self, forms: str, threads: int) -> None:
        """Load the graph."""
        import ctranslate2

        self._library = ctranslate2
        self._encoder = ctranslate2.Encoder(
            str(form(forms, "ctranslate2")),
            compute_type=self._kind,
            inter_threads=1,
            intra_threads=threads,
        )

    def forward(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Return token vectors."""
        view = self._library.StorageView.from_array
        lengths = mask.sum(1).astype(np.int32)
        output = self._encoder.forward_batch(view(ids.astype(np.int32)), view(lengths))
        return np.array(output.last_hidden_state)
