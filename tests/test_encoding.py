"""The fast path end to end: odd texts, precisions, and what happens where a part is missing."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import subprocess
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from retriever import Index
from retriever.encoders import acceptance, environment
from retriever.encoders.bi_encoder import BiEncoder, load_encoder
from retriever.encoders.canaries import CANARIES
from retriever.encoders.computing import PRECISIONS, Computing, resolve_precision
from retriever.errors import InvalidConfig, MissingDependency, ModelMismatch
from retriever.testing import HashEncoder
from tests.command_line import run
from tests.small_networks import needs_reference

MINILM = "all-MiniLM-L6-v2"
ODD = {
    "empty": "",
    "spaces": " \t\n ",
    "a megabyte without a space": "x" * 1_000_000,
    "control characters": "\x00\x01\x02\x7f\x85",
    "nul inside": "reset\x00the pump",
    "special tokens in the text": "[CLS] reset [SEP] the [MASK] pump [PAD] [UNK]",
    "composed": unicodedata.normalize("NFC", "naïve Größe à Zürich"),
    "decomposed": unicodedata.normalize("NFD", "naïve Größe à Zürich"),
    "a word of 64k characters": "ab" * 32_768,
    "scripts": "東京の夜景 · القاهرة · नमस्ते · 서울 🚢 e\u0301\u200d\ufeff",
    "unassigned": "\U000e0001\U0010ffff \ue000",
}


@pytest.fixture(autouse=True)
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "retriever"


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    """What sentence-transformers makes of the odd texts."""
    from sentence_transformers import SentenceTransformer

    path = load_encoder(MINILM).description.path
    model = SentenceTransformer(str(path), device="cpu", local_files_only=True)
    return np.asarray(model.encode(list(ODD.values()), normalize_embeddings=True))


# ---- odd texts


@needs_reference
@pytest.mark.model
@pytest.mark.parametrize("way", ["numpy", "openvino", "bfloat16", "int8"])
def test_odd_texts_have_the_reference_vectors(way: str, expected: np.ndarray) -> None:
    encoder = load_encoder(MINILM, Computing(precision=way if way in PRECISIONS else "float32"))
    encode = encoder.encode_exactly if way == "numpy" else encoder.encode_documents
    vectors = encode(list(ODD.values()))
    if way in ("numpy", "openvino"):
        np.testing.assert_allclose(vectors, expected, rtol=0, atol=1e-5)
    cosines = np.sum(vectors * expected, axis=1)
    assert cosines.min() > {"bfloat16": 0.9995, "int8": 0.98}.get(way, 0.99999)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=0, atol=1e-5)


@pytest.mark.model
def test_openvino_is_what_computes_the_bulk() -> None:
    encoder = load_encoder(MINILM, Computing(precision="float32"))
    few = encoder.encode_documents(["pump"])
    assert "openvino" not in _runtime(encoder)
    many = encoder.encode_documents(["pump", *("reset the pump " * 20 for _ in range(40))])
    assert "openvino" in _runtime(encoder)
    np.testing.assert_allclose(few[0], many[0], rtol=0, atol=1e-6)


def _runtime(encoder: BiEncoder) -> str:
    chosen = encoder._chosen._runtimes.bulk._chosen  # type: ignore[union-attr]
    return " ".join(type(runtime).__module__ for runtime in chosen.values())


@pytest.mark.model
def test_a_precision_asked_for_by_name_is_the_only_one_used() -> None:
    encoder = load_encoder(MINILM, Computing(precision="bfloat16"))
    [alone] = encoder.encode_queries(["reset the pump"])
    assert "openvino" in _runtime(encoder)
    [exact] = encoder.encode_exactly(["reset the pump"])
    assert 1e-5 < np.abs(alone - exact).max() < 0.01


@pytest.mark.model
def test_a_question_has_one_vector_all_day(tmp_path: Path) -> None:
    question = "how do I reset the pump?"
    with Index.open(tmp_path / "index", model=MINILM) as index:
        scores = [0.0]
        for day in range(4):
            index.add([f"Reset the pump by holding the red button. {day} " * 12])
            scores += [index.search(question, k=1)[0].score for _ in range(20)]
            scores += [index.search_many([question, "another " * 50], k=1)[0][0].score]
        found = index._encoders.source._encoder
        assert isinstance(found, BiEncoder)
        [exact] = found._engine.encode_exactly([question], "query")  # type: ignore[union-attr]
        [late] = found.encode_queries([question])
        assert "openvino" in _runtime(found)
    for day in range(4):  # each document that is added is a little nearer or further
        one = scores[1 + 21 * day : 22 + 21 * day]
        assert max(one) - min(one) < 2e-6
    np.testing.assert_allclose(late, exact / np.linalg.norm(exact), rtol=0, atol=2e-6)


@pytest.mark.model
def test_token_vectors_are_what_is_pooled() -> None:
    encoder = load_encoder(MINILM, Computing(precision="float32"))
    texts = ["reset the pump", "a longer question about the harbour " * 30]
    for one, pooled in zip(
        encoder.token_vectors(texts), encoder.encode_documents(texts), strict=True
    ):
        assert (one.dtype, one.shape[1]) == (np.float32, 384)
        mean = one.mean(0)
        np.testing.assert_allclose(mean / np.linalg.norm(mean), pooled, rtol=0, atol=1e-5)
    assert encoder.token_vectors([]) == []


# ---- which precision


def test_precisions_that_are_not_are_refused(tmp_path: Path) -> None:
    for name in ("fp32", "", "AUTO"):
        with pytest.raises(InvalidConfig, match="precision is") as caught:
            Computing(precision=name)
        assert "bfloat16" in caught.value.hint
    with pytest.raises(InvalidConfig, match="precision"):
        Index.open(tmp_path / "x.index", model=HashEncoder(), precision="half")
    with pytest.raises(InvalidConfig, match="not supported on CPU"):
        Computing(precision="float16", device="cpu")
    with pytest.raises(InvalidConfig, match="not supported on GPU"):
        resolve_precision("int8", on_gpu=True)


def test_automatic_precision_is_never_int8() -> None:
    assert resolve_precision("auto") in ("float32", "bfloat16")
    assert resolve_precision("auto", on_gpu=True) == "float16"
    assert resolve_precision("int8") == "int8"


class Rough(HashEncoder):
    """An encoder whose quick precision is off by so much that the canaries notice."""

    def __init__(self, precision: str = "bfloat16", noise: float = 0.2) -> None:
        super().__init__()
        self.precision = precision
        self.is_automatic = True
        self.noise = noise

    def in_float32(self) -> Rough:
        exact = Rough("float32", 0.0)
        exact.is_automatic = False
        return exact

    def encode_exactly(self, texts: Sequence[str]) -> np.ndarray:
        return super().encode_documents(texts)

    def encode_documents(self, texts: Sequence[str]) -> np.ndarray:
        exact = super().encode_documents(texts)
        noise = np.random.default_rng(0).standard_normal(exact.shape).astype(np.float32)
        vectors = exact + self.noise * noise / np.linalg.norm(noise, axis=1, keepdims=True)
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def test_auto_goes_on_in_float32_where_the_canaries_fail(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Index.open(tmp_path / "x.index", model=Rough()) as index:
        with caplog.at_level(logging.WARNING, "retriever"):
            index.add(["reset the pump", "the harbour master"])
        assert "Going on in float32" in caplog.text
        assert index.status().precisions == {"float32": pytest.approx(1.0)}


def test_a_named_precision_that_fails_the_canaries_is_refused(tmp_path: Path) -> None:
    rough = Rough()
    rough.is_automatic = False
    with Index.open(tmp_path / "x.index", model=rough) as index:
        with pytest.raises(ModelMismatch, match="no longer gives"):
            index.add(["reset the pump"])
        assert index.count() == 0


def test_int8_is_held_to_its_own_record(tmp_path: Path) -> None:
    first = Rough("int8", 0.2)
    with Index.open(tmp_path / "x.index", model=first) as index:
        index.add(["reset the pump"])
        recorded = index.status().precisions["int8"]
        assert 0.9 < recorded < 0.999
        assert index.search("reset the pump", k=1)[0].text == "reset the pump"
    with Index.open(tmp_path / "x.index", model=Rough("int8", 0.19)) as index:
        index.search("reset the pump")
    named = Rough("int8", 0.4)
    named.is_automatic = False
    with Index.open(tmp_path / "x.index", model=named) as index, pytest.raises(ModelMismatch):
        index.search("reset the pump")


@pytest.mark.model
def test_an_index_of_one_precision_opens_in_another(tmp_path: Path) -> None:
    path = tmp_path / "x.index"
    texts = [f"{word} the pump in the harbour" for word in ("reset", "paint", "sell", "drown")]
    with Index.open(path, model=MINILM, precision="int8") as index:
        index.add(texts)
        recorded = index.status().precisions
        assert set(recorded) == {"int8"}
        assert 0.98 < recorded["int8"] < 0.9999
    with Index.open(path, precision="float32") as index:
        [best] = index.search("reset the pump", k=1)
        assert best.text == texts[0]
        index.add(["another document"])
        assert set(index.status().precisions) == {"int8", "float32"}
        assert index.status().precisions["float32"] > 0.99999
        seq = index.status().seq
        index.add(["and one more"])
        assert index.status().seq == seq + 1  # what is known already is not written again


@pytest.mark.model
def test_a_rebuild_records_its_precision_and_forgets_the_old_space(tmp_path: Path) -> None:
    with Index.open(tmp_path / "x.index", model=MINILM, precision="int8") as index:
        index.add(["reset the pump " * 30])
        index.rebuild(chunking={"tokens": 32})
        with index._pool.transaction() as connection:
            [value] = connection.execute("SELECT value FROM settings WHERE key = 'precisions'")
        assert len(json.loads(value[0])) <= 2
        assert set(index.status().precisions) == {"int8"}


# ---- where a part is missing


@pytest.fixture(scope="module")
def harbour(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index, with the cache of whoever made it beside it: the canaries are known there."""
    folder = tmp_path_factory.mktemp("index")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        with Index.open(folder / "x.index", model=MINILM) as index:
            index.add(["reset the pump", "paint the harbour"])
    return folder / "x.index"


@pytest.mark.model
def test_numpy_goes_on_where_openvino_is_missing(tmp_path: Path) -> None:
    script = f"""
import sys, logging
logging.basicConfig(format="%(message)s")
sys.modules["openvino"] = None
from retriever.encoders.bi_encoder import load_encoder
encoder = load_encoder({MINILM!r})
vectors = encoder.encode_documents(["reset the pump " * 40] * 20)
print(vectors.shape, encoder.precision)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout == "(20, 384) float32\n"
    assert "NumPy computes" in done.stderr


@pytest.mark.model
@pytest.mark.parametrize("words", [("search", "pump"), ("list",), ("status",), ("--help",)])
def test_the_command_line_imports_nothing_heavy(words: tuple[str, ...], harbour: Path) -> None:
    options = [] if words[0].startswith("-") else ["-i", str(harbour)]
    script = f"""
import sys
from retriever.cli import main
try:
    main({[*words, *options]!r})
except SystemExit as end:
    assert not end.code, end.code
heavy = ("torch", "transformers", "sentence_transformers", "scipy", "sklearn", "sqlite_utils")
heavy += ("openvino",) + ("numpy",) * ({words[0]!r} == "--help")
print([name for name in heavy if name in sys.modules], file=sys.stderr)
"""
    done = run_apart(script, {**os.environ, "XDG_CACHE_HOME": str(harbour.parent / "cache")})
    assert done.stderr.splitlines()[-1] == "[]"


def run_apart(script: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a script in a process that has imported nothing."""
    return subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env=environment,
    )


def test_nothing_is_sent_anywhere(tmp_path: Path) -> None:
    """openvino brings a telemetry package along; nothing of ours gives it anything to send."""
    script = f"""
import sys
calls = []
watched = ("socket.connect", "socket.getaddrinfo", "socket.sendto", "subprocess.Popen", "os.fork")
sys.addaudithook(lambda event, args: calls.append(event) if event in watched else None)
from retriever.encoders.bi_encoder import load_encoder
from retriever.encoders.computing import Computing
load_encoder({MINILM!r}, Computing(precision="int8")).encode_documents(["reset the pump"])
assert "openvino" in sys.modules
print(calls)
"""
    # Under CI it would keep quiet of its own accord.
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    done = run_apart(script, environment)
    assert done.stdout == "[]\n"


def test_a_gpu_is_looked_for_without_torch(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert environment.gpu("cpu") is None
    driver = tmp_path / "version"
    driver.write_text("NVRM version: 999\n")
    for number, kind in enumerate(("H200", "T4", "H200")):
        information = tmp_path / "gpus" / str(number) / "information"
        information.parent.mkdir(parents=True)
        information.write_text(f"Model: {kind}\nIRQ: {number}\n")
    monkeypatch.setattr(environment, "_DRIVER", driver)
    monkeypatch.setattr(environment.importlib.util, "find_spec", lambda name: None)
    environment.graphics.cache_clear()
    environment._visible_gpu.cache_clear()
    try:
        with caplog.at_level(logging.WARNING, "retriever"):
            assert environment.gpu(None) is None
        assert environment.graphics() == "NVRM version: 999; Model: H200; Model: T4"
        assert "torch is not installed" in caplog.text
        assert "retriever-engine[torch]" in caplog.text
    finally:
        monkeypatch.undo()
        environment.graphics.cache_clear()
        environment._visible_gpu.cache_clear()


@pytest.mark.model
def test_a_device_is_checked_when_an_index_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "x.index"
    for device in ("cuda:99", "tpu"):  # torch knows the first, and no machine has so many
        with pytest.raises((InvalidConfig, MissingDependency), match=f"The device '{device}'"):
            Index.open(path, model=MINILM, device=device)
        assert not path.exists()
    with Index.open(path, model=MINILM, device="cpu") as index:
        index.add(["reset the pump"])
        assert index.search("reset the pump").hits[0].scores["dense"] > 0.99
        assert index._encoders.source.encoder()._computing.device == "cpu"
    done = run("search", "reset the pump", "--device", "tpu", "--index", str(path))
    assert done.exit_code == (2 if importlib.util.find_spec("torch") else 7)
    assert "'tpu'" in done.stderr
    assert run("search", "reset", "--device", "cpu", "--index", str(path)).exit_code == 0


def test_probes_and_canaries_cover_what_they_must() -> None:
    assert "" in acceptance.PROBES
    assert any(len(text) > 3000 for text in acceptance.PROBES)
    assert any(not text.isascii() for text in acceptance.PROBES)
    assert not set(acceptance.PROBES) & {CANARIES[2]}
