"""Text that is no language: bounded, apart from sentences, counted; everything else untouched."""

from __future__ import annotations

import base64
import random
import re
import time
from pathlib import Path

import command_line
import numpy as np
import pytest
from command_line import run, run_json

from retriever import Document, Index, Unfamiliar
from retriever.config import Chunking
from retriever.documents.chunking import Chunker
from retriever.documents.noise import find_noise
from retriever.testing import HashEncoder
from retriever.types import Chunk, Heading

small_models = command_line.small_models
_BYTES = random.Random(1).randbytes(100_000)
BEFORE, AFTER = "The spare key hangs behind the clock.", "The valve is closed clockwise."


def _lines(text: str, width: int) -> str:
    return "\n".join(text[start : start + width] for start in range(0, len(text), width))


_HEX = _BYTES[:8_000].hex()
_BASE64 = base64.b64encode(_BYTES[:8_000]).decode()
NOISE = {
    "a hex word": f"dump={_HEX}",
    "hex in lines": _lines(_HEX, 64),
    "base64": _lines(_BASE64, 76),
    "quoted base64": "\n".join(f"> {line}" for line in _lines(_BASE64, 76).split("\n")),
    "a data link": f"data:image/png;base64,{_BASE64}",
    "xxd": "\n".join(
        f"{at:08x}: "
        + " ".join(_BYTES[at + n : at + n + 2].hex() for n in range(0, 16, 2))
        + "  ab.c"
        for at in range(0, 4_000, 16)
    ),
    "hexdump": "\n".join(
        f"{at:08x}  " + " ".join(f"{byte:02x}" for byte in _BYTES[at : at + 16]) + "  |ab..cd..|"
        for at in range(0, 4_000, 16)
    ),
    "hex in one line": " ".join(f"{byte:02x}" for byte in _BYTES[:4_000]),
    "an array in C": "\n".join(
        "    " + ", ".join(f"0x{byte:02x}" for byte in _BYTES[at : at + 12]) + ","
        for at in range(0, 4_000, 12)
    ),
    "minified code": "".join(
        f"function(e,t){{return {name}(e.x{n},t)&&n.call(t)}};"
        for n, name in enumerate("abcdef" * 40)
    ).replace("return ", "return!"),
    "combining marks": "e\u0301" * 5_000,
    "a row of signs": "=" * 5_000,
}
LANGUAGE = {
    "prose": "The visitor levy is collected by every guest house in the valley. " * 40,
    "a commit": "As of 3e5482bfcdc843b5218ad98d2845b4b71ab013b7 the pump is primed first. " * 20,
    "a link": "See https://example.org/a/" + "very-long-path/" * 60 + "?q=" + _BASE64[:600],
    "a list of links": "\n".join(f"https://example.org/pumps/{n:08x}" * 2 for n in range(60)),
    "checksums": "\n".join(f"{_HEX[n : n + 64]}  manuals/pump-{n}.md" for n in range(60)),
    "identifiers": "set_the_pressure_of_the_second_pump_before_it_starts_in_spring\n" * 40,
    "camel case": "setThePressureOfTheSecondPumpBeforeItIsStartedAgainInSpring\n" * 40,
    "Japanese": "風が強すぎると風車は止まります。点検は必ず二人で行ってください。" * 120,
    "Chinese without stops": "风太大的时候风车会停下来检查必须由两个人一起进行" * 120,
    "Thai": "กังหันลมจะหยุดเมื่อลมแรงเกินไปต้องมีคนสองคนตรวจสอบเสมอ" * 80,
    "a table": "| name | price |\n|------|-------|\n" + "| pump | 12.50 |\n" * 90,
    "numbers": "\n".join(" ".join(str(n * k % 9973) for k in range(1, 12)) for n in range(1, 90)),
    "words of hex letters": "add a bad face bed dead cafe decade facade fade " * 40,
    "keys": "\n".join(f"550e8400-e29b-41d4-a716-4466554{n:05}: pump" for n in range(60)),
    "a rule": ("-" * 300 + "\ntext\n") * 20,
}  # fmt: skip


def chunks_of(text: str) -> tuple[tuple[Chunk, ...], int]:
    [(chunks, ledger)] = Chunker(HashEncoder().tokenizer, 64, Chunking()).chunk([Document(text)])
    assert ledger.truncated == 0
    for chunk in chunks:
        assert text[slice(*chunk.span)] == chunk.text
    covered = set().union(*(range(*chunk.span) for chunk in chunks))
    assert all(place in covered for place, character in enumerate(text) if not character.isspace())
    return chunks, ledger.noise


@pytest.mark.parametrize("kind", NOISE)
@pytest.mark.parametrize("between", ["\n", "\n\n", " "])
def test_noise_is_bounded_apart_and_counted(kind: str, between: str) -> None:
    if between == " " and kind not in ("a hex word", "a data link", "combining marks"):
        between = "\r\n"
    chunks, noise = chunks_of(f"{BEFORE}{between}{NOISE[kind]}{between}{AFTER}\n")
    assert max(len(chunk.text) for chunk in chunks) <= 16 * 64
    assert (chunks[0].text, chunks[-1].text) == (BEFORE, AFTER)
    assert noise == len(chunks) - 2


@pytest.mark.parametrize("kind", LANGUAGE)
def test_language_is_no_noise(kind: str) -> None:
    assert find_noise(LANGUAGE[kind]) == []
    assert chunks_of(LANGUAGE[kind])[1] == 0


def test_noise_is_searched_in_linear_time() -> None:
    size = 1_000_000
    for text in ("ab " * size, " " * size, "0x7f, " * size, "a" * size, "ab12 " * size + "!"):
        began = time.process_time()
        find_noise(text)
        assert time.process_time() - began < 3


@pytest.mark.model
def test_noise_does_not_win_a_search(tmp_path: Path) -> None:
    with Index.open(tmp_path / "i", model="all-MiniLM-L6-v2") as index:
        for kind, noise in NOISE.items():
            index.add([Document(f"{BEFORE}\n{noise}\n{AFTER}\n", id=kind)])
        for question, answer in (
            ("where is the spare key", BEFORE),
            ("which way is the valve closed", AFTER),
        ):
            assert index.search(question, k=1)[0].text == answer


def test_the_report_counts_noise_and_names_what_is_unfamiliar(tmp_path: Path) -> None:
    long_word = "x" * 150
    with Index.open(tmp_path / "i", model=HashEncoder()) as index:
        report = index.add(
            [
                Document(f"{BEFORE}\n{NOISE['base64']}", id="noise"),
                Document(f"{long_word} pump", id="unknown"),
                Document("pump " * 12 + long_word, id="known"),
            ]
        )
        assert report.noise == len(index.chunks("noise")) - 1 > 0
        assert report.unfamiliar == (Unfamiliar("unknown", 0.5),)
        assert index.status().unfamiliar == report.unfamiliar
        assert index.rebuild(chunking={"tokens": 16}).unfamiliar == report.unfamiliar


@pytest.mark.usefixtures("small_models")
def test_the_command_line_tells_both(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "noise.txt").write_text(NOISE["hex in lines"])
    for n in range(7):
        (docs / f"thai-{n}.txt").write_text("x" * 150 + str(n))
    done = run("index", "docs")
    assert re.search(r"\d+ chunks of no language", done.stdout)
    assert (
        "7 documents in a script or language that the model hardly knows:\n    docs/thai-0"
        in done.stdout
    )
    assert "and 2 more: `retriever status` names them" in done.stdout
    again = run_json("rebuild", "--chunk-tokens", "16", "--overlap", "0")
    assert again["unfamiliar"][0] == {"document_id": "docs/thai-0.txt", "unknown_share": 1.0}
    assert again["noise"] > 0


# --- documents that bring their embeddings


def test_a_document_with_an_embedding_has_the_lines_page_and_heading_of_any_other(
    tmp_path: Path,
) -> None:
    text = "# Pump\na\x0cb\u2028c\x85d\x0be\r\nthe end\n"
    shared = {"headings": (Heading(0, 1, "Pump"),), "pages": (0, 9)}
    with Index.open(tmp_path / "i", model=HashEncoder()) as index:
        index.add([Document(text, id="encoded", **shared)])
        vector = np.ones(32, np.float32)
        index.add([Document(text, id="own", embedding=vector, **shared)])
        index.add([Document("", id="empty", embedding=vector)])
        [own], [encoded] = index.chunks("own"), index.chunks("encoded")
        assert (own.lines, own.page, own.heading) == ((1, 3), 1, ("Pump",))
        assert (encoded.lines, encoded.page, encoded.heading) == (own.lines, own.page, own.heading)
        assert own.text == text
        assert index.chunks("empty")[0].lines == (1, 1)
