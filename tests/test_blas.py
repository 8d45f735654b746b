"""The threads that NumPy multiplies with: capped while it works for an index, and given back."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from retriever import Index
from retriever.encoders.bi_encoder import load_encoder
from retriever.encoders.computing import Computing
from retriever.encoders.forward import blas
from retriever.testing import HashEncoder


@pytest.fixture
def threads():
    """Return what reads NumPy's threads, of which there are three meanwhile."""
    setting = blas._openblas()
    if setting is None:
        pytest.skip("NumPy multiplies with another library than OpenBLAS")
    before = setting.read()
    setting.write(3)
    yield setting.read
    setting.write(before)


def test_the_lowest_of_several_caps_holds_and_is_given_back(threads):
    with blas.at_most(2):
        assert threads() == 2
        with blas.at_most(1), blas.at_most(8):
            assert threads() == 1
        assert threads() == 2
        with pytest.raises(ZeroDivisionError), blas.at_most(1):
            1 / 0  # noqa: B018
        assert threads() == 2
    with blas.at_most(None), blas.at_most(8):
        assert threads() == 3
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda n: _under(1 + n % 2, threads), range(200))) == [True] * 200
    assert threads() == 3


def _under(cap: int, threads) -> bool:
    with blas.at_most(cap):
        return threads() <= cap


class Watching(HashEncoder):
    """Remembers how many threads NumPy had at each question."""

    def __init__(self, threads) -> None:
        super().__init__()
        self.threads = threads
        self.seen: list[int] = []

    def encode_queries(self, texts: Sequence[str]) -> np.ndarray:
        """Return one unit vector a text."""
        self.seen.append(self.threads())
        return super().encode_queries(texts)


def test_a_search_keeps_to_the_threads_of_its_index(threads, tmp_path: Path):
    encoder = Watching(threads)
    with Index.open(tmp_path / "index", model=encoder, threads=1) as index:
        index.search("pump")
    assert (encoder.seen[-1], threads()) == (1, 3)
    with Index.open(tmp_path / "index", model=encoder) as index:
        index.search("pump")
    assert (encoder.seen[-1], threads()) == (3, 3)


@pytest.mark.model
def test_the_first_texts_of_a_process_keep_to_them_too(threads, monkeypatch):
    seen = []
    vector = np.sqrt

    def watched(*arguments):
        seen.append(threads())
        return vector(*arguments)

    monkeypatch.setattr("retriever.encoders.forward.numpy_runtime.np.sqrt", watched)
    load_encoder("all-MiniLM-L6-v2", Computing(threads=2)).encode_queries(["pump"])
    assert set(seen) == {2}
    assert threads() == 3
