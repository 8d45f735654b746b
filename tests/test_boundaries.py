"""Where sentences, items, statements and paragraphs begin, in many languages."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from test_chunking import FAMILIES, chunk_one, markdown, tokenizer_of

from benchmarks import boundaries
from retriever.config import Chunking
from retriever.documents.boundaries import find_boundaries
from retriever.documents.chunking import Chunker
from retriever.documents.division import Division
from retriever.documents.ranks import BLANK, LINE, PARAGRAPH, SENTENCE, WORD, fenced
from retriever.documents.rules import FIRST, RULES, Rules, recorded
from retriever.errors import FormatMismatch
from retriever.testing.hash_encoder import WordTokenizer
from retriever.types import Document

# `|` is where a sentence begins; nowhere else does one.
SENTENCES = {
    "plain": "It rained. |Nobody came! |Why? |We never knew… |It was late.",
    "titles": "Dr. Lind met Mr. J. K. Rowe and Prof. Ö. Berg at St. Mary's. |They left.",
    "abbreviations": "Use oil, e.g. Castor, i.e. Not grease, vs. Tallow. |It is, cf. Fig. 3 too.",
    "references": "See No. 5, pp. 12 and Sec. 4. |Then Jan. 12 came. |It was Jan. |Then.",
    "states": "The U.S. Navy came to the U.S. |The Navy left D.C. |It is far.",
    "companies": "Pitt & Co. Ltd. sold it to Apple Inc. |The price was low.",
    "numbers": "It cost 3.5 million in 1952. |Others paid 2. |The rest was 1.000.000 more.",
    "units": "It is 273.15 K. |Water boils at 100 °C. |Ice melts.",
    "streets": "It is 30 mm. |Plates bend. |It is in Main St. |The house of St. Ives is old.",
    "quotations": '"Stop it!" |She left. |"Go on," he said. |"It is hot." |(Nobody came.) |It did.',
    "speech": '"Stop it!" she said. |"Why? |Because?" he asked... and so on. |So it is.',
    "ellipses": "One . . . two ... three. |And then... |It ended.",
    "citations": "It is known.[12] |Others doubt it.[3,4] |Nobody knows. [5] |We agree.",
    "addresses": "See https://example.org/a.b?c=d and a.b@c.org now. |It is v1.2.3 there.",
    "german": "Am 3. Mai kam z. B. Dr. Weber, vgl. S. 12. |Er sah den 2. Teil. |"
    "Das ist die Frage usw. |Die Pumpe „lief!“ |Und sie steht.",
    "french": "M. Dupont, p. ex. Jean, vit av. J.-C. ici. |Elle a dit « oui ». |Et après ? |Rien.",
    "spanish": "La Srta. Ruiz y el Sr. Paz en la pág. 3. |¿Cómo está? |¡Muy bien! |«Sí.» |No.",
    "russian": "Он жил на ул. Ленина с А. И. Семеновым. |Это 1898 г. |В 1900 г. умер. |Конец.",
    "greek": "Ήρθε ο κ. Νίκος. |Έφυγε. |Ναι.",
    "arabic": "ذهب الولد إلى البيت. |هل عاد؟ |نعم.",
    "hindi": "यह एक वाक्य है। |यह दूसरा है॥ |अंत।",
    "armenian": "Սա նախադասություն է։ |Սա երկրորդն է։",
    "amharic": "ይህ ዓረፍተ ነገር ነው። |ሌላው ነው፧ |አዎ።",
    "chinese": "海风很大。|我们停止风车！|为什么？|“因为危险。”|他走了。",
    "japanese": "海風が強い。|「止めて。」と彼女は言った。|「はい!」|点検する。",
    "lower case": "the valve. it opens. and closes! yes? no.",
    "numbered": "1. Turn the key. |Wait.\n|2. Open it.",
    "lettered": "a) Turn.\n|(b) Open the valve. |It is slow.",
}


def _ranked(text: str, rules: Rules = RULES) -> dict[int, int]:
    [tokens] = WordTokenizer().tokenize([text])
    found = find_boundaries(text, tokens, rules)
    return dict(zip(found.positions.tolist(), found.ranks.tolist(), strict=True))


def _starts(text: str) -> list[int]:
    ranks = _ranked(text)
    return [place for place in list(ranks)[1:-1] if ranks[place] >= SENTENCE]


@pytest.mark.parametrize("name", SENTENCES)
def test_sentences_begin_where_a_reader_says(name: str) -> None:
    parts = SENTENCES[name].split("|")
    text = "".join(parts)
    wanted = np.cumsum([len(part) for part in parts])[:-1].tolist()
    shown = [text[max(place - 12, 0) : place] + "|" + text[place : place + 8] for place in wanted]
    found = [text[max(p - 12, 0) : p] + "|" + text[p : p + 8] for p in _starts(text)]
    assert found == shown


def test_paragraphs_and_what_only_looks_like_their_ends() -> None:
    text = (
        "A title\n\nThe first paragraph ends here.\n \t\nThe second introduces:\n\n- an item\n"
        "  that is wrapped\n- another\n\n- a loose one\n\nThe last paragraph.\n"
    )
    ranks = _ranked(text)
    assert ranks[text.index("The first")] == BLANK
    assert ranks[text.index("The second")] == PARAGRAPH
    assert ranks[text.index("- an item")] == LINE
    assert ranks[text.index("that is wrapped")] == LINE
    assert ranks[text.index("- another")] == SENTENCE
    assert ranks[text.index("- a loose")] == BLANK
    assert ranks[text.index("The last")] == PARAGRAPH


def test_a_line_that_is_too_long_to_be_wrapped_is_a_paragraph() -> None:
    line = "It is a long line of a file that has one paragraph on each of its lines. " * 2
    text = f"{line}\n{line}\nA short one.\nAnother\n"
    ranks = _ranked(text)
    assert [ranks[at.start()] for at in re.finditer("It is a|A short", text)] == [
        PARAGRAPH,  # the text begins
        SENTENCE,
        PARAGRAPH,
        SENTENCE,
        PARAGRAPH,
    ]


CODE = """import os


class Pump:
    # It is old. It is slow.
    def start(self):
        if self.hot:
            raise Trouble(
                "hot",
            )

        self.open()

    def stop(self):
        self.close()


def main():
    Pump().start()
"""


def test_code_is_cut_at_top_level_statements_first() -> None:
    ranks = _ranked(CODE)
    assert ranks[CODE.index("class")] >= BLANK
    assert ranks[CODE.index("def main")] == PARAGRAPH
    assert ranks[CODE.index("def stop")] == BLANK
    assert ranks[CODE.index("if self")] == LINE
    assert ranks[CODE.index('"hot"')] == LINE
    assert ranks[CODE.index(")\n\n")] == WORD


def test_fenced_code_and_tables_stay_whole_where_they_fit() -> None:
    row = "| tarn lift | pumps 120 litres. It is the largest | kept by Lind |\n"
    table = "| pump | litres | keeper |\n|---|---|---|\n" + row * 4
    prose = "The harbour pump stops when brine reaches the upper float. " * 6
    text = f"{prose}\n\nThis is it:\n\n```python\n{CODE}```\n\n{prose}\n\n{table}\n{prose}\n"
    # The other families' vocabularies are made of the repository's own files, so that the lengths
    # of these pieces, and with them the even parts, change with every commit.
    size = len(tokenizer_of("wordpiece").tokenize([CODE])[0])
    chunks, _ = chunk_one(markdown(text), "wordpiece", 1000, Chunking(tokens=size + 40))
    assert sum(f"```python\n{CODE}```" in chunk.text for chunk in chunks) == 1
    assert sum(table.strip() in chunk.text for chunk in chunks) == 1
    assert len(chunks) > 2


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        ("a\n```\nb\n```\nc", ["```\nb\n```"]),
        ("a\n```\n\nOne. Two.\n\n```python\ny\n```\nc", ["```python\ny\n```"]),
        ("a\n````md\n```py\nb\n```\n````\nc", ["````md\n```py\nb\n```\n````"]),
        ("a\n```b``` c\n\n~~~\nd\n~~~", ["~~~\nd\n~~~"]),
        ("~~~\na\n```\nb", []),
    ],
)
def test_a_fence_that_names_a_language_closes_no_block(text: str, blocks: list[str]) -> None:
    assert [text[start:end] for start, end in fenced(text)] == blocks


def test_a_table_too_long_for_a_chunk_is_cut_between_rows() -> None:
    row = "| tarn lift | pumps 120 litres. It is the largest | kept by Lind |\n"
    text = "| pump | litres | keeper |\n|---|---|---|\n" + row * 40
    chunks, _ = chunk_one(markdown(text))
    assert len(chunks) > 4
    assert all(chunk.text.startswith("|") and chunk.text.endswith("|") for chunk in chunks)
    assert all(chunk.text.count("\n") > 1 for chunk in chunks)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_chunk_has_no_ends_of_two_paragraphs(family: str) -> None:
    paragraphs = [
        " ".join(f"The pump of house {n} stops in year {year}." for year in range(size))
        for n, size in enumerate((5, 9, 30, 6, 12))
    ]
    chunks, _ = chunk_one("\n\n".join(paragraphs), family)
    for paragraph in paragraphs:
        holding = [
            chunk.text for chunk in chunks if chunk.text in paragraph or paragraph in chunk.text
        ]
        assert "".join(holding).replace(" ", "") == paragraph.replace(" ", "")
    assert all(chunk.text.endswith(".") for chunk in chunks)
    assert all(chunk.text[0].isupper() for chunk in chunks)


def test_a_long_paragraph_is_cut_into_parts_of_about_equal_length() -> None:
    for words in range(129, 600, 7):
        chunks, _ = chunk_one("word " * words, chunking=Chunking(tokens=64))
        sizes = [chunk.tokens for chunk in chunks]
        assert len(chunks) == -(-words // 63)
        assert max(sizes) - min(sizes) <= 1


def test_tiny_paragraphs_go_with_the_next_and_a_tiny_rest_with_the_one_before() -> None:
    sentence = "The harbour pump stops when brine reaches the upper float. "
    long, short = (sentence * 8).strip(), "It is so."
    chunks, _ = chunk_one(f"{short}\n\n{long}\n\n{long}\n\n{long}\n\n{short}")
    assert chunks[0].text.startswith(short)
    assert chunks[-1].text.endswith(short)
    assert min(chunk.tokens for chunk in chunks) > 32


def test_a_paragraph_that_fits_is_not_cut_for_the_sake_of_a_tiny_rest() -> None:
    def words(count: int, word: str) -> str:
        return f"{word} " * (count - 1) + f"{word[0]}."

    def cut(parts: Sequence[str], tokens: int) -> list[str]:
        chunker = Chunker(WordTokenizer(), 1000, Chunking(tokens=tokens))
        [(chunks, _)] = chunker.chunk([Document("\n\n".join(parts))])
        return [chunk.text for chunk in chunks]

    first, second, rest = words(18, "aa"), words(108, "bb"), words(8, "cc")
    assert cut([first, second, rest], 128) == [first, f"{second}\n\n{rest}"]
    assert cut([second, rest], 112) == [second, rest]


def test_documents_cut_by_later_rules_are_not_cut_by_these() -> None:
    assert (recorded({}), recorded({"rules": 1}), recorded({"rules": 2})) == (FIRST, FIRST, RULES)
    with pytest.raises(FormatMismatch, match="version 3") as caught:
        recorded({"rules": 3})
    assert "newer version" in caught.value.hint


def test_rules_can_be_switched_off_to_be_measured() -> None:
    text = "Dr. Lind came. It rained.\n\nHe left. " * 40
    assert _ranked("Dr. Lind came.", FIRST)[4] == SENTENCE
    assert _ranked("Dr. Lind came.")[4] == WORD
    flat = Rules(worth=(0, 1, 1, 1, 1, 1))
    assert max(rank for at, rank in _ranked(text, flat).items() if 0 < at < len(text)) == WORD
    [tokens] = WordTokenizer().tokenize([text])
    found = find_boundaries(text, tokens)
    for rules in (RULES, Rules(even=False), Rules(paragraphs=False), Rules(least=1.0)):
        parts = list(
            Division(found, headings=[], sections=[], capacity=lambda _: 32, overlap=0, rules=rules)
        )
        assert parts[0][0] == 0
        assert parts[-1][1] == len(found)
        assert all(a[1] == b[0] for a, b in itertools.pairwise(parts))
        assert max(end - start for start, end in parts) <= 32


def test_the_benchmark_reads_gold_data_of_three_kinds(tmp_path: Path) -> None:
    (tmp_path / "de_x-ud-test.conllu").write_text(
        "# text = Am 3. Mai kam die Frau.\n1\tAm\n\n# text = Er ging.\n", "utf-8"
    )
    case = {"language": "en", "sentences": ["Dr. Lind came.", "It rained.", "why?"]}
    (tmp_path / "gold.jsonl").write_text(json.dumps(case), "utf-8")
    (tmp_path / "french_rules.py").write_text(
        '# A comment.\nRULES = [\n    ("M. X vint. Il rit.", ["M. X vint.", "Il rit."]),\n'
        '    ("Et ?", ["Et ?"]),\n]\n',
        "utf-8",
    )
    said = CliRunner().invoke(boundaries.main, [str(path) for path in sorted(tmp_path.iterdir())])
    assert said.exit_code == 0
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in said.output.splitlines()
        if line.startswith(("| de", "| en", "| fr"))
    ]
    assert rows == [
        ["de", "1", "0.500 / 1.000", "1.000 / 1.000"],
        ["fr", "2", "0.667 / 1.000", "1.000 / 1.000"],
        ["en", "2", "0.500 / 0.500", "1.000 / 0.500"],
    ]
