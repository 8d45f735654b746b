"""The network in torch against NumPy's, on the CPU and, where there is one, on a GPU."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_networks import FAMILIES, HIDDEN, Small, furthest, needs_reference, sequences

from retriever.encoders.acceptance import least_cosine
from retriever.encoders.checkpoint.resolve import resolve_model
from retriever.encoders.computing import Computing
from retriever.encoders.forward.batching import Sequences, TokenBudget, pack
from retriever.encoders.forward.bi_encoder import FastBiEncoder
from retriever.encoders.forward.numpy_runtime import NumpyRuntime
from retriever.encoders.forward.runtime import CpuRuntime, Runtime, Runtimes
from retriever.encoders.forward.torch_runtime import TorchRuntime, is_exhausted
from retriever.encoders.forward.transformer import POOLING_MODES, Network
from retriever.errors import InvalidConfig, ModelError

pytestmark = needs_reference
LENGTHS = [3, 17, 1, 29, 8, 16, 2, 16, 30, 5]


@pytest.fixture
def gpu() -> str:
    """Return the device, or skip; torch is not imported where only other tests are collected."""
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    return "cuda"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return Small(tmp_path_factory.mktemp("networks"))


def on_cpu(network: Network, budget: int | None = None) -> TorchRuntime:
    return TorchRuntime(network, precision="float32", device="cpu", budget=budget)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_it_computes_what_numpy_computes(family: str, small: Small):
    _, network = small(family)
    runtime, exact = on_cpu(network), NumpyRuntime(network)
    batch = sequences([*LENGTHS, network.architecture.window])
    for modes in (*((mode,) for mode in POOLING_MODES), POOLING_MODES):
        found, wanted = runtime.pooled(batch, modes), exact.pooled(batch, modes)
        assert found.shape == (len(batch), len(modes) * HIDDEN)
        assert found.dtype == np.float32
        assert np.abs(found - wanted).max() < 1e-5
    found, wanted = runtime.token_vectors(batch), exact.token_vectors(batch)
    assert furthest(found, wanted) < 1e-5
    assert runtime.attention == "plain"
    assert runtime.precision == "float32"


@pytest.mark.parametrize("family", ["bert", "mpnet"])
@pytest.mark.parametrize("lengths", [[7] * 6, [1], [16, 16], [1, 1, 1], [9, 2]])
def test_texts_of_one_length_need_no_padding(family: str, lengths: list[int], small: Small):
    _, network = small(family)
    batch = sequences(lengths)
    for modes in (("cls",), ("mean",), ()):
        if modes:
            found = list(on_cpu(network).pooled(batch, modes))
            wanted = list(NumpyRuntime(network).pooled(batch, modes))
        else:
            found = on_cpu(network).token_vectors(batch)
            wanted = NumpyRuntime(network).token_vectors(batch)
        assert furthest(found, wanted) < 1e-5


@pytest.mark.parametrize("family", ["bert", "mpnet"])
@pytest.mark.parametrize("budget", [1, 30, 64])
def test_small_budgets_change_no_number(family: str, budget: int, small: Small):
    _, network = small(family)
    batch = sequences(LENGTHS)
    whole, cut = on_cpu(network), on_cpu(network, budget)
    assert cut.budget == budget
    assert np.abs(whole.pooled(batch, ("mean",)) - cut.pooled(batch, ("mean",))).max() < 1e-5
    assert furthest(whole.token_vectors(batch), cut.token_vectors(batch)) < 1e-5
    assert whole.budget > budget


def test_pairs_and_padding_tokens_in_a_text(small: Small):
    for family in ("bert", "xlm-roberta", "roberta", "mpnet"):
        _, network = small(family)
        padding = FAMILIES[family]["pad_token_id"]
        ids = [*sequences(LENGTHS).ids, np.array([7, padding, padding, 8, padding], np.int32)]
        types = None
        if network.architecture.types > 1:
            types = [(np.arange(len(one)) > len(one) // 2).astype(np.int32) for one in ids]
        batch = Sequences(ids, types)
        found = on_cpu(network).token_vectors(batch)
        assert furthest(found, NumpyRuntime(network).token_vectors(batch)) < 1e-5


def test_no_texts(small: Small):
    runtime = on_cpu(small("bert")[1])
    assert runtime.pooled(sequences([]), ("mean", "cls")).shape == (0, 2 * HIDDEN)
    assert runtime.token_vectors(sequences([])) == []


def test_half_precision_on_the_cpu_is_near(small: Small):
    for family in ("bert", "mpnet"):
        _, network = small(family)
        wanted = NumpyRuntime(network).pooled(sequences(LENGTHS), ("mean",))
        for precision in ("bfloat16", "float16"):
            runtime = TorchRuntime(network, precision=precision, device="cpu")
            found = runtime.pooled(sequences(LENGTHS), ("mean",))
            assert least_cosine(found, wanted) > 0.999
            assert not np.array_equal(found, wanted)
            states = runtime.token_vectors(sequences(LENGTHS))
            assert [len(one) for one in states] == LENGTHS
            assert all(one.dtype == np.float32 for one in states)


def test_several_threads_get_their_own_vectors(small: Small):
    _, network = small("bert")
    runtime = on_cpu(network, budget=40)
    batches = [sequences(LENGTHS, seed) for seed in range(4)]
    wanted = [NumpyRuntime(network).pooled(batch, ("mean",)) for batch in batches]
    found: list[np.ndarray | None] = [None] * 4

    def compute(number: int) -> None:
        for _ in range(3):
            found[number] = runtime.pooled(batches[number], ("mean",))

    threads = [threading.Thread(target=compute, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(
        one is not None and np.abs(one - other).max() < 1e-5
        for one, other in zip(found, wanted, strict=True)
    )


def test_it_leaves_torch_as_it_was(small: Small):
    import torch

    def settings() -> tuple[object, ...]:
        return (
            torch.get_default_dtype(),
            torch.is_inference_mode_enabled(),
            torch.is_grad_enabled(),
            torch.get_num_threads(),
            torch.backends.cuda.matmul.allow_tf32,
            torch.get_float32_matmul_precision(),
        )

    before = settings()
    _, network = small("mpnet")
    kept = {name: array.copy() for name, array in network.weights.items()}
    runtime = on_cpu(network, budget=20)
    runtime.pooled(sequences(LENGTHS), ("mean",))
    with pytest.raises(ModelError):
        runtime.pooled(sequences([60]), ("mean",))
    assert settings() == before
    assert all(np.array_equal(network.weights[name], array) for name, array in kept.items())


def test_what_cannot_be_had_is_said(small: Small):
    _, network = small("bert")
    with pytest.raises(InvalidConfig, match="precision is 'int8'") as caught:
        TorchRuntime(network, precision="int8", device="cpu")
    assert "float16" in caught.value.hint
    with pytest.raises(InvalidConfig, match="'gpu' is not one that torch knows"):
        TorchRuntime(network, precision="float32", device="gpu")
    with pytest.raises(
        InvalidConfig, match=r"'cuda:99' was asked for, but torch \S+ sees "
    ) as caught:
        TorchRuntime(network, precision="float16", device="cuda:99")
    assert "Leave the device out" in caught.value.hint


@pytest.mark.parametrize("what", ["tokens", "positions", "types"])
def test_ids_without_a_row_are_refused_before_they_reach_the_device(what: str, small: Small):
    _, network = small("roberta")
    ids = sequences([4, 6]).ids
    wrong = {
        "tokens": Sequences([*ids, np.array([5, 100, 6], np.int32)]),
        "positions": sequences([network.architecture.window + 1]),
        "types": Sequences(ids, [np.ones_like(one) for one in ids]),
    }
    runtime = on_cpu(network)
    with pytest.raises(ModelError, match=f"'roberta' has .* {what}"):
        runtime.pooled(wrong[what], ("mean",))
    assert runtime.pooled(Sequences(ids), ("mean",)).shape == (2, HIDDEN)


# ---- memory


class Device:
    """A device that holds so many tokens and answers with each text's length."""

    def __init__(self, free: int, error: BaseException) -> None:
        self.free = free
        self.error = error
        self.relieved: list[int] = []
        self.tried: list[int] = []
        self.budget: TokenBudget

    def with_budget(self, tokens: int) -> Device:
        self.budget = TokenBudget(
            tokens,
            is_exhausted=is_exhausted,
            relieve=lambda: self.relieved.append(self.budget.tokens),
        )
        return self

    def encode(self, lengths: np.ndarray) -> Iterator[tuple[int, int]]:
        def compute(members: np.ndarray) -> np.ndarray:
            asked = len(members) * int(lengths[members].max())
            self.tried.append(asked)
            if asked > self.free:
                raise self.error
            return lengths[members]

        for members, found in self.budget.batches(lengths, compute):
            yield from zip(members.tolist(), found.tolist(), strict=True)


def exhausted_torch() -> BaseException:
    import torch

    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.parametrize("kind", ["torch", "driver", "cublas", "cpu"])
def test_the_budget_is_halved_where_memory_runs_out(kind: str):
    errors = {
        "torch": exhausted_torch(),
        "driver": RuntimeError("CUDA error: out of memory"),
        "cublas": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
        "cpu": RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8"),
    }
    lengths = np.random.default_rng(0).integers(1, 60, 300)
    device = Device(500, errors[kind]).with_budget(1 << 30)
    found = dict(device.encode(lengths))
    assert found == dict(enumerate(lengths.tolist()))  # every text once, in its own place
    assert 125 <= device.budget.tokens <= 500
    assert device.relieved == sorted(device.relieved, reverse=True)
    # From what was tried, not from the billion that was allowed; and it stays so.
    assert device.tried[0] == 300 * lengths.max()
    assert len(device.relieved) == sum(asked > 500 for asked in device.tried) < 8
    before = len(device.relieved)
    assert len(dict(device.encode(lengths))) == 300
    assert len(device.relieved) == before


def test_a_text_that_memory_does_not_hold_is_named():
    device = Device(40, exhausted_torch()).with_budget(1000)
    with pytest.raises(ModelError, match="over a single text of 41 tokens") as caught:
        list(device.encode(np.array([3, 41, 7])))
    assert "device='cpu'" in caught.value.hint
    assert caught.value.__cause__ is device.error


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    error = RuntimeError("CUDA error: an illegal memory access was encountered")
    device = Device(40, error).with_budget(1000)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        list(device.encode(np.array([30, 30])))
    assert device.relieved == []
    assert not is_exhausted(error)
    assert is_exhausted(exhausted_torch())


def test_a_failure_of_torch_names_the_model_and_the_device(small: Small):
    _, network = small("bert")
    runtime = on_cpu(network)
    batch = sequences(LENGTHS)
    with pytest.raises(ModelError, match="torch cannot compute 'bert' on cpu") as caught:
        # More numbers than there are addresses: the allocation fails in earnest.
        TorchRuntime(wide(network), precision="float32", device="cpu")
    assert "Encode on the CPU" in caught.value.hint
    assert runtime.pooled(batch, ("mean",)).shape == (len(LENGTHS), HIDDEN)


def wide(network: Network, kind: type[np.floating] = np.float16) -> Network:
    """Return a network whose word embeddings claim to be 2**60 numbers."""
    claimed = np.lib.stride_tricks.as_strided(np.ones(1, kind), (1 << 20, 1 << 40), (0, 0))
    return Network(network.architecture, {**network.weights, "words": claimed}, network.name)


# ---- the encoder around it


@pytest.mark.model
def test_a_long_call_is_tokenized_in_blocks_ahead():
    description = resolve_model("all-MiniLM-L6-v2")
    computing = Computing(precision="float32")
    computing.gpu = "cpu"  # torch computes as for a GPU
    fast = FastBiEncoder(description, description.load_tokenizer(), computing)
    # A tokenizer passes over white space: long enough for several blocks, and quick to encode.
    texts = ["pump " * (1 + 3 * row % 11) + " " * 60_000 + str(row) for row in range(11)]
    assert len(fast._blocks(texts)) > 2
    blocks = fast.encode(texts, "document")
    whole = np.concatenate([fast.encode([text], "document") for text in texts])
    assert blocks.shape == (11, 384)
    assert least_cosine(blocks, whole) > 0.99999
    assert least_cosine(blocks, fast.encode_exactly(texts, "document")) > 0.99999
    assert not [thread for thread in threading.enumerate() if "ahead" in thread.name]


@pytest.mark.parametrize("named", [False, True])
def test_a_gpu_that_is_wrong_is_not_used(
    named: bool, small: Small, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    _, network = small("bert")
    exact, batch = NumpyRuntime(network), sequences(LENGTHS)
    wrong = {"bfloat16"}
    computed = TorchRuntime.pooled

    def pooled(self: TorchRuntime, *args: Any) -> Any:
        found = computed(self, *args)
        return found[::-1] if self.precision in wrong else found

    monkeypatch.setattr(TorchRuntime, "pooled", pooled)

    def choose(key: str) -> Runtime:
        computing = Computing(precision="bfloat16")
        computing.gpu = "cpu"  # torch computes as for a GPU
        computing.device = "cuda" if named else None
        known = replace(network, fingerprint=f"{key} {named}")
        return Runtimes(known, computing, probes=lambda: batch, modes=("mean",)).bulk

    first = choose("one")
    assert isinstance(first, TorchRuntime)
    assert first.precision == "float32"
    wrong.add("float32")
    assert choose("one").precision == "float32"  # what was found out is remembered
    if named:
        with pytest.raises(ModelError, match="not those that NumPy computes"):
            choose("other")
        return
    caplog.clear()
    last = choose("other")
    assert isinstance(last, CpuRuntime)
    assert last.precision == "bfloat16"
    assert "The CPU computes it instead" in caplog.text
    assert least_cosine(last.pooled(batch, ("mean",)), exact.pooled(batch, ("mean",))) > 0.999


@pytest.mark.parametrize("named", [False, True])
def test_a_gpu_that_fails_gives_way(named: bool, small: Small, caplog: pytest.LogCaptureFixture):
    _, network = small("bert")
    network, batch = wide(network, np.float32), sequences(LENGTHS)
    for precision in ("auto", "float16"):
        computing = Computing()
        computing.gpu = "cpu"  # torch computes as for a GPU
        computing.device, computing.wanted = "cuda" if named else None, precision
        choose = partial(Runtimes, network, computing, probes=lambda: batch, modes=("mean",))
        if named or precision == "float16":
            with pytest.raises(ModelError, match="torch cannot compute 'bert'"):
                choose()
        else:
            assert isinstance(choose().bulk, CpuRuntime)
            assert "The CPU computes it instead" in caplog.text


# ---- on a GPU


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("precision", ["float16", "bfloat16", "float32"])
def test_a_gpu_computes_what_numpy_computes(family: str, precision: str, small: Small, gpu: str):
    _, network = small(family)
    runtime = TorchRuntime(network, precision=precision, device=gpu)
    batch = sequences([*LENGTHS * 4, network.architecture.window])
    exact = NumpyRuntime(network)
    least = 0.99999 if precision == "float32" else 0.999
    for modes in (*((mode,) for mode in POOLING_MODES), POOLING_MODES):
        assert least_cosine(runtime.pooled(batch, modes), exact.pooled(batch, modes)) > least
    found, wanted = runtime.token_vectors(batch), exact.token_vectors(batch)
    assert [one.shape for one in found] == [one.shape for one in wanted]
    assert least_cosine(np.concatenate(found), np.concatenate(wanted)) > least - 0.001


def test_a_gpu_keeps_texts_apart_without_padding_where_it_can(small: Small, gpu: str):
    import torch

    packs = torch.cuda.get_device_capability() >= (8, 0)
    runtime = TorchRuntime(small("bert")[1], precision="float16", device=gpu)
    assert runtime.attention == ("packed" if packs else "padded")
    for family, precision in (("mpnet", "float16"), ("bert", "float32")):
        assert TorchRuntime(small(family)[1], precision=precision, device=gpu).attention == "padded"


@pytest.mark.parametrize("family", ["bert", "mpnet"])
def test_a_gpu_out_of_memory_goes_on_with_half(family: str, small: Small, gpu: str):
    import torch

    _, network = small(family)
    batch = sequences([30] * 40_000)
    wanted = TorchRuntime(network, precision="float16", device=gpu).pooled(batch, ("mean",))
    total = torch.cuda.get_device_properties(0).total_memory
    runtime = TorchRuntime(network, precision="float16", device=gpu, budget=1 << 30)
    torch.cuda.empty_cache()
    free = torch.cuda.memory_reserved() + 64 * 2**20
    torch.cuda.set_per_process_memory_fraction(free / total)
    try:
        found = runtime.pooled(batch, ("mean",))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert runtime.budget < 30 * 40_000
    assert least_cosine(found, wanted) > 0.999


def test_positions_of_a_packed_batch_begin_anew_with_each_text(tmp_path: Path):
    batch = Sequences([np.array([5, 6, 1, 7], np.int32), np.array([1, 8], np.int32)])
    assert pack(batch, np.arange(2), padding=None).positions.tolist() == [0, 1, 2, 3, 0, 1]
    packed = pack(batch, np.array([1, 0]), padding=1)
    assert packed.ids.tolist() == [1, 8, 5, 6, 1, 7]
    assert packed.positions.tolist() == [1, 2, 2, 3, 1, 4]
    assert packed.starts.tolist() == [0, 2, 6]
    assert packed.longest == 4
    assert packed.types is None
