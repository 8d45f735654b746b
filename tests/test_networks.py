"""The network's definition against transformers', for each family and runtime of the CPU."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_networks import (
    FAMILIES,
    HIDDEN,
    POSITIONS,
    Small,
    expected,
    furthest,
    load,
    needs_reference,
    reference,
    save,
    sequences,
)

from retriever.encoders.acceptance import least_cosine
from retriever.encoders.checkpoint.architecture import UnsupportedModel, read_architecture
from retriever.encoders.checkpoint.tensors import Tensors
from retriever.encoders.forward.batching import Sequences, pack, pad, plan, widths
from retriever.encoders.forward.numpy_runtime import NumpyRuntime, erf
from retriever.encoders.forward.openvino_runtime import OpenVinoRuntime
from retriever.encoders.forward.runtime import Runtime
from retriever.encoders.forward.transformer import POOLING_MODES, Network, relative_bias
from retriever.errors import ModelError, ModelUnavailable, UnsafeModelFile

Make = Callable[[Network], Runtime]
LENGTHS = [3, 17, 1, 29, 8, 16, 2]
needs_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="needs openvino"
)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return Small(tmp_path_factory.mktemp("networks"))


def in_openvino(network: Network) -> OpenVinoRuntime:
    return OpenVinoRuntime(network, precision="float32", threads=1)


RUNTIMES = [
    pytest.param(NumpyRuntime, 1e-5, id="numpy"),
    pytest.param(in_openvino, 1e-4, id="openvino", marks=needs_openvino),
]


def vectors_agree(runtime: Runtime, model: Any, batch: Sequences, tolerance: float) -> None:
    found, wanted = runtime.token_vectors(batch), expected(model, batch)
    assert furthest(found, wanted) < tolerance
    assert least_cosine(np.concatenate(found), np.concatenate(wanted)) > 0.99999


@needs_reference
@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize(("make", "tolerance"), RUNTIMES)
def test_hidden_states_are_those_of_transformers(
    family: str, make: Make, tolerance: float, small: Small
):
    model, network = small(family)
    batch = sequences([*LENGTHS, network.architecture.window])  # up to the last position
    vectors_agree(make(network), model, batch, tolerance)
    assert network.architecture.family in ("bert", "roberta", "distilbert", "mpnet")


@needs_reference
@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize(("make", "tolerance"), RUNTIMES)
def test_pooling_is_that_of_the_definition(family: str, make: Make, tolerance: float, small: Small):
    model, network = small(family)
    runtime = make(network)
    batch = sequences(LENGTHS)
    states = expected(model, batch)
    wanted = {
        "cls": [text[0] for text in states],
        "mean": [text.mean(0) for text in states],
        "max": [text.max(0) for text in states],
        "mean_sqrt_len_tokens": [text.sum(0) / np.sqrt(len(text)) for text in states],
    }
    assert sorted(wanted) == sorted(POOLING_MODES)
    found = runtime.pooled(batch, POOLING_MODES)
    rows = [np.concatenate([wanted[mode][row] for mode in POOLING_MODES]) for row in range(7)]
    assert furthest(list(found), rows) < tolerance
    assert found.dtype == np.float32
    # The first token alone is had by a shorter way.
    assert furthest(list(runtime.pooled(batch, ("cls",))), wanted["cls"]) < tolerance
    assert runtime.pooled(sequences([]), ("mean",)).shape == (0, HIDDEN)
    assert runtime.token_vectors(sequences([])) == []


@needs_reference
@pytest.mark.parametrize("activation", ["gelu_new", "gelu_pytorch_tanh", "relu"])
@pytest.mark.parametrize(("make", "tolerance"), RUNTIMES)
def test_other_activations(activation: str, make: Make, tolerance: float, tmp_path: Path):
    # gelu's tanh form differs from it by no more than 5e-4: large activations make that show.
    model = reference("bert", scale=0.5, hidden_act=activation)
    network = save(model, tmp_path / "bert")
    vectors_agree(make(network), model, sequences(LENGTHS), 10 * tolerance)
    assert network.architecture.activation != "gelu"
    distilled = reference("distilbert", activation=activation)
    vectors_agree(
        make(save(distilled, tmp_path / "distilbert")), distilled, sequences(LENGTHS), tolerance
    )


@needs_reference
@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta", "mpnet"])
@pytest.mark.parametrize(("make", "tolerance"), RUNTIMES)
def test_a_padding_token_in_a_text_has_the_position_of_padding(
    family: str, make: Make, tolerance: float, small: Small
):
    model, network = small(family)
    padding = FAMILIES[family]["pad_token_id"]
    ids = np.array([5, 9, padding, padding, 11, 12, padding], np.int32)
    batch = Sequences([ids, ids[::-1].copy(), *sequences([30, 4]).ids])
    vectors_agree(make(network), model, batch, tolerance)
    packed = pack(batch, np.arange(4), padding=network.architecture.padding)
    for row, text in enumerate(batch.ids):
        alone = pad(
            batch,
            np.array([row]),
            multiple=1,
            longest=POSITIONS,
            padding=network.architecture.padding,
        )
        mine = packed.positions[packed.starts[row] : packed.starts[row + 1]]
        assert mine.tolist() == alone.positions[0].tolist()
        assert len(mine) == len(text)


@needs_reference
@pytest.mark.parametrize("family", ["bert", "xlm-roberta"])
@pytest.mark.parametrize(("make", "tolerance"), RUNTIMES)
def test_pairs_have_their_token_types(family: str, make: Make, tolerance: float, small: Small):
    model, network = small(family)
    runtime = make(network)
    ids = sequences(LENGTHS).ids
    types = [(np.arange(len(one)) > len(one) // 2).astype(np.int32) for one in ids]
    pairs = Sequences(ids, types)
    vectors_agree(runtime, model, pairs, tolerance)
    assert furthest(runtime.token_vectors(pairs), runtime.token_vectors(Sequences(ids))) > 1e-2


@needs_reference
@pytest.mark.parametrize(("make", "tolerance"), RUNTIMES)
def test_a_window_that_is_no_round_number(make: Make, tolerance: float, tmp_path: Path):
    """Widths are rounded up, but never beyond the last row of the position embeddings."""
    model = reference("mpnet", max_position_embeddings=13)
    network = save(model, tmp_path / "mpnet")
    assert network.architecture.window == 11
    vectors_agree(make(network), model, sequences([11, 9, 10, 3]), tolerance)


@needs_reference
def test_the_relative_bias_is_that_of_transformers_at_every_distance():
    from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

    torch = pytest.importorskip("torch")
    table = np.arange(32 * 4, dtype=np.float32).reshape(32, 4)
    bias = relative_bias(table, 512)
    assert bias.shape == (4, 1023)
    distance = np.arange(-511, 512)
    buckets = MPNetEncoder.relative_position_bucket(torch.from_numpy(distance))
    assert np.array_equal(bias, table[buckets.numpy()].T)
    assert np.array_equal(relative_bias(table, 9), bias[:, 511 - 8 : 511 + 9])


@needs_reference
def test_long_texts_of_mpnet_use_every_bucket(tmp_path: Path):
    model = reference("mpnet", max_position_embeddings=300)
    network = save(model, tmp_path / "mpnet")
    vectors_agree(NumpyRuntime(network), model, sequences([298, 140, 20]), 2e-5)
    if importlib.util.find_spec("openvino"):
        vectors_agree(in_openvino(network), model, sequences([298, 140, 20]), 1e-4)


def test_erf_is_right_to_float32():
    from math import erf as exact

    x = np.linspace(-6, 6, 5001, dtype=np.float32)
    wanted = np.array([exact(float(value)) for value in x])
    assert np.abs(erf(x) - wanted).max() < 4e-7
    assert erf(np.zeros((2, 1), np.float32)).shape == (2, 1)


def test_a_plan_holds_every_text_once_and_keeps_to_its_budget():
    lengths = np.random.default_rng(3).integers(1, 60, 200)
    for budget in (1, 64, 500, 100_000):
        batches = plan(lengths, budget, 8)
        assert sorted(np.concatenate(batches).tolist()) == list(range(200))
        assert [lengths[batch].max() for batch in batches] == [lengths[b[0]] for b in batches]
        for batch in batches:
            width = int(widths(lengths[batch], 8).max())
            assert len(batch) == 1 or len(batch) * width <= budget
    assert plan(np.array([], np.int64), 64) == []


def test_a_plan_parts_texts_of_unlike_length_where_both_parts_are_worth_a_call():
    lengths = np.array([16] * 40 + [200] * 3 + [190] * 2)
    assert [len(batch) for batch in plan(lengths, 4096)] == [5, 40]
    padded = sum(len(batch) * lengths[batch].max() for batch in plan(lengths, 4096))
    assert padded == lengths.sum() + 2 * 10
    # A few short texts are not worth a call of their own.
    assert [len(batch) for batch in plan(np.array([30, 9, 8, 2]), 4096)] == [4]


def test_widths_are_rounded_by_an_eighth_at_the_most():
    lengths = np.arange(1, 600)
    rounded = widths(lengths, 8)
    assert (rounded >= lengths).all()
    assert ((rounded - lengths) * 8 <= lengths).all()
    assert rounded[:16].tolist() == lengths[:16].tolist()
    assert len(set(rounded[:256].tolist())) == 16 + 8 + 8 + 8 * 3
    assert np.array_equal(widths(lengths, 1), lengths)


# ---- weights


@needs_reference
@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float64"])
def test_weights_of_other_number_types_are_converted(kind: str, tmp_path: Path):
    torch = pytest.importorskip("torch")
    from transformers import AutoModel

    network = save(reference("bert").to(getattr(torch, kind)), tmp_path / "bert")
    model = AutoModel.from_pretrained(
        tmp_path / "bert", dtype=torch.float32, attn_implementation="eager"
    ).eval()
    assert all(array.dtype == np.float32 for array in network.weights.values())
    vectors_agree(NumpyRuntime(network), model, sequences(LENGTHS), 1e-5)


@needs_reference
@pytest.mark.parametrize("family", ["bert", "mpnet"])
def test_weights_in_several_files(family: str, tmp_path: Path):
    model = reference(family)
    model.save_pretrained(tmp_path / family, max_shard_size="20KB")
    assert len(list((tmp_path / family).glob("model-*.safetensors"))) > 1
    vectors_agree(NumpyRuntime(load(tmp_path / family)), model, sequences(LENGTHS), 1e-5)


def rewritten(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Path:
    """Write a model's tensors again, changed."""
    from safetensors.numpy import load_file, save_file

    file = folder / "model.safetensors"
    save_file({name: np.ascontiguousarray(x) for name, x in change(load_file(file)).items()}, file)
    return folder


@needs_reference
@pytest.mark.parametrize("prefix", ["", "bert."])
def test_names_of_old_and_of_larger_checkpoints(prefix: str, tmp_path: Path):
    model = reference("bert")
    save(model, tmp_path / "bert")
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}

    def renamed(tensors: dict[str, Any]) -> dict[str, Any]:
        found = {}
        for name, tensor in tensors.items():
            for new, legacy in old.items():
                name = name.replace(new, legacy)
            found[prefix + name] = tensor
        return {**found, "classifier.weight": np.ones((2, HIDDEN), np.float32)}

    network = load(rewritten(tmp_path / "bert", renamed))
    assert any("gamma" in name for name in Tensors(tmp_path / "bert"))
    vectors_agree(NumpyRuntime(network), model, sequences(LENGTHS), 1e-5)


@needs_reference
@pytest.mark.parametrize("family", ["bert", "mpnet"])
def test_a_missing_tensor_or_another_shape_is_named(family: str, tmp_path: Path):
    save(reference(family), tmp_path / family)
    name = next(name for name in Tensors(tmp_path / family) if name.endswith("1.output.dense.bias"))
    rewritten(tmp_path / family, lambda tensors: {**tensors, name: np.ones(7, np.float32)})
    with pytest.raises(ModelError, match=r"1\.output\.dense\.bias.*\(7,\).*\(32,\)") as caught:
        load(tmp_path / family)
    assert "again" in caught.value.hint
    rewritten(tmp_path / family, lambda tensors: {k: v for k, v in tensors.items() if k != name})
    with pytest.raises(ModelError, match=r"lack the tensor .*1\.output\.dense\.bias"):
        load(tmp_path / family)


@needs_reference
def test_a_damaged_file_is_named(tmp_path: Path):
    save(reference("bert"), tmp_path / "bert")
    file = tmp_path / "bert" / "model.safetensors"
    whole = file.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    name = next(key for key in header if key != "__metadata__")

    def with_entry(**changed: Any) -> bytes:
        text = json.dumps({**header, name: {**header[name], **changed}}).encode()
        return len(text).to_bytes(8, "little") + text + whole[8 + length :]

    damages = [
        whole[: len(whole) // 2],
        whole[:7],
        b"",
        b"\xff" * 8 + whole[8:],
        whole[:8] + b"[" * length + whole[8 + length :],
        with_entry(shape=[10**6, 10**6]),
        with_entry(shape="wide"),
        with_entry(data_offsets=[-4, 4]),
        with_entry(data_offsets=None),
    ]
    for damage in damages:
        file.write_bytes(damage)
        with pytest.raises(ModelError, match=r"model\.safetensors is damaged") as caught:
            load(tmp_path / "bert")
        assert "again" in caught.value.hint
    file.write_bytes(whole)
    assert load(tmp_path / "bert").architecture.layers == 2


@needs_reference
def test_weights_that_are_only_a_pickle_are_refused(tmp_path: Path):
    save(reference("bert"), tmp_path / "bert")
    (tmp_path / "bert" / "model.safetensors").unlink()
    with pytest.raises(ModelUnavailable, match=r"has no model\.safetensors"):
        load(tmp_path / "bert")
    (tmp_path / "bert" / "pytorch_model.bin").write_bytes(b"not read")
    with pytest.raises(UnsafeModelFile, match=r"pytorch_model\.bin, a pickle"):
        load(tmp_path / "bert")


@needs_reference
@pytest.mark.parametrize(("make", "tolerance"), RUNTIMES)
def test_ids_without_a_row_are_refused(make: Make, tolerance: float, small: Small):
    model, network = small("roberta")
    runtime = make(network)
    ids = sequences([4, 6]).ids
    wrong = {
        "tokens": Sequences([*ids, np.array([5, 100, 6], np.int32)]),
        "positions": sequences([POSITIONS - 1]),
        "types": Sequences(ids, [np.ones_like(one) for one in ids]),
    }
    for what, batch in wrong.items():
        with pytest.raises(ModelError, match=rf"'roberta' has \d+ {what}") as caught:
            runtime.pooled(batch, ("mean",))
        assert "belong together" in caught.value.hint
    vectors_agree(runtime, model, Sequences(ids), tolerance)


# ---- configurations


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"model_type": "deberta-v2"}, "family is 'deberta-v2'"),
        ({"model_type": None}, "family is None"),
        ({"position_embedding_type": "relative_key"}, "positions are 'relative_key'"),
        ({"is_decoder": True}, "decoder"),
        ({"add_cross_attention": True}, "decoder"),
        ({"hidden_act": "silu"}, "activation is 'silu'"),
        ({"num_attention_heads": 5}, "5 heads do not divide its width of 32"),
        ({"pruned_heads": {"0": [1]}}, "pruned"),
        ({"quantization_config": {"bits": 8}}, "quantized"),
        ({"hidden_size": None}, "hidden_size = None"),
        ({"num_hidden_layers": 0}, "num_hidden_layers = 0"),
        ({"vocab_size": True}, "vocab_size = True"),
        ({"max_position_embeddings": "512"}, "max_position_embeddings = '512'"),
        ({"type_vocab_size": "2"}, "type_vocab_size = '2'"),
        ({"layer_norm_eps": None}, "layer_norm_eps = None"),
        ({"layer_norm_eps": float("nan")}, "layer_norm_eps = nan"),
        ({"model_type": "roberta", "pad_token_id": None}, "pad_token_id = None"),
        ({"model_type": "roberta", "pad_token_id": 49}, "all reserved for padding"),
        ({"model_type": "mpnet", "relative_attention_num_buckets": 64}, "64 buckets"),
    ],
)
def test_what_no_fast_forward_computes_is_left_to_the_reference(
    changed: dict[str, Any], reason: str
):
    config = {"model_type": "bert", **FAMILIES["bert"]}
    assert read_architecture(config).heads == 4
    with pytest.raises(UnsupportedModel, match=reason):
        read_architecture({**config, **changed})


def test_what_a_configuration_leaves_out_is_what_transformers_takes():
    shape = read_architecture(
        {key: value for key, value in FAMILIES["bert"].items() if key != "pad_token_id"}
        | {"model_type": "roberta"}
    )
    assert (shape.padding, shape.types, shape.epsilon, shape.activation) == (1, 2, 1e-12, "gelu")
    assert shape.window == POSITIONS - 2
    assert read_architecture({"model_type": "bert", **FAMILIES["bert"]}).window == POSITIONS
