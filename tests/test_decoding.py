"""The encoding of a text: never a guess that eats ASCII, never a weak one without a word."""

from __future__ import annotations

import time
from pathlib import Path

import command_line
import pytest
from command_line import run, run_json

from retriever import Index
from retriever.documents.decoding import decode
from retriever.documents.parsers import parse
from retriever.errors import InvalidConfig, UnreadableFile
from retriever.testing import HashEncoder

small_models = command_line.small_models
in_an_empty_folder = pytest.mark.usefixtures("small_models")

PROSE = (
    "The visitor levy is collected by every guest house in the valley. It is charged for each "
    "night and for each adult, and the host pays it to the parish clerk at the end of the month.\n"
)
BODIES = {
    "prose": PROSE,
    "code": "int main(void)\n{\n    for (i = 0; i < n; i++)\n        total += values[i];\n}\n",
    "log": "2024-01-03 12:00:01 INFO server started on port 8080\n",
    "table": "name,price,unit\nwidget,12.50,box\ngadget,9.99,piece\n",
    "settings": "[section]\nkey = value\npath = C:\\Users\\me\nenabled = true\n",
    "nothing": "",
}
LINES = (
    "The fee is £2 per night.", "price=£", "Keep it at 60°C or below.", "°F", "Ask Mr Müller.",
    "It’s the clerk’s office.", "don’t", "the dogs’ bowls", "Meet at the café by the gate.",
    "See § 4 of the bylaw.", "© 2019 Parish of Hill", "Copyright © Someone", "/* © 2019 */",
    "// naïve approach", "It costs 5 € a day.", "€5", "“Quoted” he said", "from 3 – 5 pm",
    "one—two", "wait … done", "5 m² room", "the Æsir saga", "Zoë and Chloë", "São Paulo",
    "El Niño", "±5 %", "5 µm scale", "½ cup", "résumé", "Ångström unit", "* item • other",
    "ä", "ß", "é", "x ü y", "ÜBER ALLES", "MENÜ", "À la carte", "Brontë’s", "marks® here",
)  # fmt: skip


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("line", LINES)
def test_one_character_of_windows_1252_in_ascii_is_read_as_written(line: str, body: str) -> None:
    for times in (1, 12, 80_000 // max(len(BODIES[body]), 1)):
        around = BODIES[body] * (times // 2)
        text = f"{around}{line}\n{around}"
        decoded = decode(text.encode("cp1252"), "a.txt")
        assert decoded.text == text, decoded[1:]


REPEATED = (
    "Volume {0} m³", "{0},±0.{0}", "{0} µm", "{0}×{0}", "{0} × {0}", "{0}½ cup", "§ {0}", "§§ {0}",
    "{0}°", "{0} €", "€{0}", "£{0}", "{0}¼", "note¹ {0}", "{0} m²", "• item {0}", "· item {0}",
    "A·B {0}", "© {0}", "it’s {0}", "“word {0}”", "{0}–{0}", "wait… {0}", "café {0}", "Straße {0}",
    "Müller {0}", "Acme® {0}", "Acme™ {0}", "» {0}", "« {0} »", "Nº {0}", "{0}÷{0}", "¥{0}", "{0}¢",
    "{0}\xa0km", "{0} ‰", "Smith† {0}", "Peña {0}", "Ärger {0}", "œuvre {0}", "¬{0}", "¶ {0}",
    "{0} µm ±{0} m³ {0}°",
)  # fmt: skip


@pytest.mark.parametrize("head", ["", "Measurements taken on Monday in the lab with the scale.\n"])
@pytest.mark.parametrize("line", REPEATED)
def test_a_sign_that_comes_again_and_again_is_no_letter(line: str, head: str) -> None:
    for times in (2, 5, 30, 300):
        text = head + "".join(f"{line.format(number)}\n" for number in range(times))
        decoded = decode(text.encode("cp1252"), "a.txt")
        assert decoded.text == text, decoded[1:]


FRAMES = (
    "┌──────┬──────┐\n│ name │ size │\n├──────┼──────┤\n│ a    │ 12   │\n└──────┴──────┘\n",
    "╔══════╗\n║ MENU ║\n╠══════╣\n║ 1 Go ║\n╚══════╝\n",
    "░▒▓█ loading ▓▒░\n",
)


@pytest.mark.parametrize("encoding", ["cp437", "cp850"])
@pytest.mark.parametrize("frame", FRAMES)
def test_a_frame_is_drawn_with_lines(frame: str, encoding: str) -> None:
    for text in (frame, frame * 20, f"Listing of drive C\n{frame}"):
        assert decode(text.encode(encoding), "a.txt").text == text


TEXTS = {
    "French": "La coopérative gère l'énergie éolienne du village, et chaque été les élèves "
    "visitent le château où fut signée la première charte. Ça coûte peu, puis l'accès est libre. ",
    "German": "Die Mühle steht still, weil der Wind zu stark weht. Schöne Grüße an alle, die über "
    "die Brücke gehen. Das Gerät prüft täglich die Größe des Behälters und meldet Störungen. ",
    "Spanish": "El niño visitó la estación de la montaña después de la reunión. La señora dijo que "
    "mañana habrá más información. ¿Qué pasó con el camión? ¡Está aquí! ",
    "Polish": "Wiatrak zatrzymuje się, gdy wiatr jest zbyt silny; później znów się obraca. Młyn "
    "należy do gminy, która płaci za jego utrzymanie, i co roku ktoś sprawdza łopaty. ",
    "Russian": "Ветряная мельница останавливается, когда ветер слишком сильный для её крыльев. "
    "Насос перестаёт работать, когда вода поднимается до верхнего поплавка. ",
    "Greek": "Ο ανεμόμυλος σταματά όταν ο άνεμος είναι πολύ δυνατός για τα φτερά του μύλου. Οι "
    "κάτοικοι πληρώνουν κάθε χρόνο για τη συντήρησή του. ",
    "Japanese": "風が強すぎると風車は止まります。点検は必ず二人で行ってください。カタカナも少し。",
    "Simplified": "风太大的时候风车会停下来。检查必须由两个人一起进行，请不要忘记关闭水泵。",
    "Traditional": "風太大的時候風車會停下來。檢查必須由兩個人一起進行，請不要忘記關閉水泵。",
    "Korean": "바람이 너무 강하면 풍차가 멈춥니다. 점검은 반드시 두 사람이 함께 해야 합니다. ",
}
ENCODINGS = {
    "French": "cp1252 mac_roman",
    "German": "cp1252 mac_roman cp850 cp437",
    "Spanish": "cp1252 mac_roman cp850",
    "Polish": "cp1250 iso8859_2 cp852",
    "Russian": "cp1251 koi8_r cp866 iso8859_5 mac_cyrillic cp855",
    "Greek": "cp1253 iso8859_7",
    "Japanese": "cp932 euc_jp iso2022_jp",
    "Simplified": "gb18030 gb2312",
    "Traditional": "big5",
    "Korean": "cp949",
}


@pytest.mark.parametrize(
    ("language", "encoding"),
    [(name, one) for name, all_ in ENCODINGS.items() for one in all_.split()],
)
@pytest.mark.parametrize("length", [100, 300, 2_000, 80_000])
def test_a_language_is_recognised_in_its_encodings(
    language: str, encoding: str, length: int
) -> None:
    text = (TEXTS[language] * (length // len(TEXTS[language]) + 1))[:length]
    assert decode(text.encode(encoding), "a.txt").text == text


@pytest.mark.parametrize("language", ["Russian", "Japanese", "Traditional"])
def test_code_with_comments_in_another_script(language: str) -> None:
    encoding = ENCODINGS[language].split()[0]
    text = (BODIES["code"] + f"// {TEXTS[language].strip()}\n") * 5
    assert decode(text.encode(encoding), "a.c").text == text


def test_what_a_file_declares_is_windows_where_it_has_bytes_of_windows() -> None:
    text = '<?xml version="1.0" encoding="ISO-8859-1"?>\n<a>“Quoted” – 5 €</a>'
    assert decode(text.encode("cp1252"), "a.xml") == (text, "cp1252", "")


def test_a_broken_byte_in_utf8_costs_that_byte() -> None:
    line = "Größe und Länge – naïve café\n"
    for before in (0, 25, 50):
        parts = line * before, line * (50 - before)
        decoded = decode(parts[0].encode() + b"\xff" + parts[1].encode(), "a.txt")
        assert decoded.text == "\ufffd".join(parts)
        assert decoded.encoding == "utf-8"
        assert "U+FFFD stands in 1 place" in decoded.doubt
    [document] = parse(b"caf\xc3\xa9 \xff\n" + b"plain\n" * 9, "a.txt")
    assert document.text == "café \ufffd\n" + "plain\n" * 9
    assert document.metadata["encoding"] == "utf-8"
    assert "1 place" in document.metadata["encoding_doubt"]


def test_a_file_that_ends_within_a_character_costs_that_character() -> None:
    data = ("Größe und Länge\n" * 20 + "é").encode()[:-1]
    assert decode(data, "a.txt").text == "Größe und Länge\n" * 20 + "\ufffd"


def test_a_mark_of_replacement_that_was_written_is_no_doubt() -> None:
    text = "lost: \ufffd\n"
    assert decode(text.encode(), "a.txt") == (text, "utf-8", "")


def test_a_file_that_is_mostly_invalid_is_not_utf8() -> None:
    text = TEXTS["German"] * 3 + "Ã©"
    assert decode(text.encode("cp1252"), "a.txt")[:2] == (text, "cp1252")


def test_a_broken_byte_of_another_encoding_costs_that_byte_too() -> None:
    data = (TEXTS["Japanese"] * 20).encode("euc_jp")
    decoded = decode(data[:300] + b"\xff" + data[300:], "a.txt")
    assert decoded.encoding == "euc_jp"
    assert decoded.text.count("\ufffd") <= 2
    assert decoded.doubt
    assert len(decoded.text) > len(TEXTS["Japanese"]) * 20 - 3


def test_a_weak_guess_is_told() -> None:
    decoded = decode("Istoria României: o ţară cu pădure".encode("iso8859_2")[:24], "a.txt")
    assert decoded.doubt.startswith(f"guessed {decoded.encoding}, may be ")


def test_the_locale_decides_what_the_text_leaves_open(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LC_ALL", "LC_CTYPE", "LANG"):
        monkeypatch.delenv(name, raising=False)
    data = "Dvořák\n".encode("cp1250")
    assert decode(data, "a.txt").text == "Dvoøák\n"
    monkeypatch.setenv("LC_ALL", "cs_CZ.UTF-8")
    assert decode(data, "a.txt").text == "Dvořák\n"
    assert decode(data, "a.txt").doubt


def test_many_small_files_do_not_take_long() -> None:
    data = (PROSE + "café\n").encode("cp1252")
    decode(data, "a.txt")
    began = time.process_time()
    for _ in range(100):
        decode(data, "a.txt")
    assert time.process_time() - began < 2


# --- as it is told


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "broken.txt").write_bytes("Größe\n".encode() * 9 + b"\xff\n")
    (folder / "plain.txt").write_text("Nothing to doubt.\n")
    return folder


def test_the_report_and_the_metadata_name_what_is_doubtful(tmp_path: Path, docs: Path) -> None:
    with Index.open(tmp_path / "i", model=HashEncoder()) as index:
        report = index.add_files(docs)
        assert [(one.path, one.state) for one in report.doubtful] == [
            ("docs/broken.txt", "indexed")
        ]
        assert report.to_dict()["doubtful"][0]["reason"] == report.doubtful[0].reason
        assert index.get("docs/broken.txt").metadata["encoding_doubt"] == report.doubtful[0].reason
        assert index.get("docs/plain.txt").metadata == {}


def test_a_named_encoding_overrides_and_reads_again(tmp_path: Path, docs: Path) -> None:
    (docs / "name.txt").write_bytes("Dvořák".encode("cp1250"))
    (docs / "marked.txt").write_bytes("Größe".encode("utf-8-sig"))
    with Index.open(tmp_path / "i", model=HashEncoder()) as index:
        index.add_files(docs)
        report = index.add_files(docs, encoding="windows-1250")
        assert (report.replaced, report.unchanged, report.doubtful) == (4, 0, ())
        assert index.get("docs/name.txt").text == "Dvořák"
        assert index.get("docs/name.txt").metadata == {"encoding": "cp1250"}
        assert index.get("docs/marked.txt").text == "Größe"
        assert index.add_files(docs).unchanged == 4
        assert index.get("docs/name.txt").text == "Dvořák"
        failed = index.add_files(docs, encoding="ascii").failed
        assert [one.path for one in failed] == ["docs/broken.txt", "docs/name.txt"]
        assert "not in the encoding ascii" in failed[0].reason


@pytest.mark.parametrize("name", ["unheard-of", "", "rot13", "base64", 3, "a\0b"])
def test_an_encoding_that_does_not_exist_is_refused(name: object, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    with Index.open(tmp_path / "i", model=HashEncoder()) as index:
        with pytest.raises(InvalidConfig, match=r"encoding .* is unknown") as caught:
            index.add_files(tmp_path / "a.txt", encoding=name)  # type: ignore[arg-type]
        assert "cp1252" in caught.value.hint


def test_a_text_that_is_not_in_the_encoding_named_is_refused() -> None:
    with pytest.raises(UnreadableFile, match="broken at byte 3"):
        parse("caf\xe9".encode("cp1252"), "a.txt", "utf-8")


@in_an_empty_folder
def test_the_command_line_tells_doubt_and_takes_an_encoding(tmp_path: Path, docs: Path) -> None:
    done = run("index", "docs")
    assert "1 document perhaps not read as written; --encoding decides it:" in done.stdout
    assert "docs/broken.txt: broken UTF-8" in done.stdout
    assert run_json("index", "docs", "--encoding", "cp1252")["doubtful"] == []
    refused = run("index", "docs", "--encoding", "unheard-of", "-i", "other")
    assert refused.exit_code == 2
    assert not Path("other").exists()


@in_an_empty_folder
def test_standard_input_is_decoded_likewise() -> None:
    report = run_json("index", "-", "--id", "a", stdin=b"caf\xc3\xa9 \xff\n")
    assert [one["path"] for one in report["doubtful"]] == ["a"]
    run_json("index", "-", "--id", "b", "--encoding", "koi8-r", stdin="Насос".encode("koi8-r"))
    with Index.open(".retriever", model=HashEncoder()) as index:
        assert index.get("a").text == "café \ufffd\n"
        assert (index.get("b").text, index.get("b").metadata) == ("Насос", {"encoding": "koi8-r"})
    assert run("index", "-", "--jsonl", "--encoding", "cp1252", stdin=b"").exit_code == 2
