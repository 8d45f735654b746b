"""Which language a text is in."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retriever import Document
from retriever.documents.languages import detect, language_of

TEXTS = {
    "en": "The pump stands in the cellar of the old mill, and it has to be drained before winter.",
    "de": "Die Pumpe steht im Keller der alten Mühle und muss vor dem Winter entleert werden.",
    "fr": "La pompe se trouve dans la cave du vieux moulin et doit être vidée avant l'hiver.",
    "es": "La bomba está en el sótano del viejo molino y hay que vaciarla antes del invierno.",
    "it": "La pompa si trova nella cantina del vecchio mulino e va svuotata prima dell'inverno.",
    "pt": "A bomba fica na cave do velho moinho e tem de ser esvaziada antes do inverno.",
    "nl": "De pomp staat in de kelder van de oude molen en moet voor de winter worden geleegd.",
    "sv": "Pumpen står i källaren på den gamla kvarnen och måste tömmas innan vintern kommer.",
    "pl": "Pompa stoi w piwnicy starego młyna i przed zimą trzeba spuścić z niej całą wodę.",
    "cs": "Čerpadlo stojí ve sklepě starého mlýna a před zimou se z něj musí vypustit voda.",
    "hu": "A szivattyú a régi malom pincéjében áll, és tél előtt le kell engedni belőle a vizet.",
    "fi": "Pumppu on vanhan myllyn kellarissa, ja se on tyhjennettävä ennen talven tuloa.",
    "tr": "Pompa eski değirmenin bodrumunda duruyor ve kış gelmeden önce boşaltılması gerekiyor.",
    "ru": "Насос стоит в подвале старой мельницы, и перед зимой из него нужно слить воду.",
    "uk": "Насос стоїть у підвалі старого млина, і перед зимою з нього треба злити воду.",
    "el": "Η αντλία βρίσκεται στο υπόγειο του παλιού μύλου και πρέπει να αδειάσει.",
    "ar": "توجد المضخة في قبو الطاحونة القديمة ويجب تفريغها من الماء قبل حلول الشتاء.",
    "he": "המשאבה נמצאת במרתף של הטחנה הישנה וצריך לרוקן אותה לפני החורף.",
    "hi": "पंप पुरानी चक्की के तहखाने में है और सर्दियों से पहले उसे खाली करना होता है।",
    "zh": "水泵在老磨坊的地下室里，冬天之前必须把水放干。",
    "ja": "ポンプは古い水車小屋の地下室にあり、冬の前に水を抜かなければならない。",
    "ko": "펌프는 오래된 방앗간 지하실에 있으며 겨울이 오기 전에 물을 빼야 한다.",
    "th": "ปั๊มน้ำอยู่ในห้องใต้ดินของโรงสีเก่า และต้องระบายน้ำออกก่อนฤดูหนาว",
}
CODE = """for (int i = 0; i < n; ++i) { total[i] += rows[i]->width * (height[i] & 0xff); }
if (total[n] == 0) { return NULL; } else { free(rows[n - 1]); }
"""


@pytest.mark.parametrize("language", TEXTS)
def test_a_sentence_is_enough(language: str):
    assert detect(TEXTS[language]) == language
    assert detect(f"<p class='first'>{TEXTS[language]}</p> https://example.com/a/b") == language


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        "pump",
        "a",
        "42 17.5 2024-01-15",
        "ERR_CONN_42",
        "水",
        "\ud800\udfff",
        CODE,
        "=" * 99,
    ],
)
def test_what_is_too_short_or_code_has_no_language(text: str):
    assert detect(text) is None


def test_a_long_text_is_looked_at_in_several_places():
    foreign = TEXTS["fr"] * 3 + TEXTS["de"] * 400
    assert detect(foreign) == "de"
    # A sample is bounded: this would take minutes if all of it was looked at.
    assert detect("<" * 5_000_000) is None
    assert detect("x" * 5_000_000) is None


def test_han_with_kana_is_japanese():
    assert (
        detect("東京都水道局は、老朽化した配水管を二〇三〇年までに更新する計画を発表した。") == "ja"
    )


def test_code_has_no_language_and_what_the_caller_says_counts():
    assert language_of(Document(TEXTS["de"], metadata={"code": "python"})) is None
    assert language_of(Document(TEXTS["de"])) == "de"
    assert language_of(Document("Pumpe", metadata={"language": "de-AT"})) == "de"
    assert language_of(Document("Pumpe", metadata={"language": "nb"})) == "no"
    assert language_of(Document(TEXTS["de"], metadata={"language": "German"})) == "de"
    assert language_of(Document(TEXTS["de"], metadata={"language": 7})) == "de"


@given(st.text(st.characters(), max_size=300))
def test_any_text_has_a_language_or_none(text: str):
    found = detect(text)
    assert found is None or (len(found) == 2 and found.islower())
    assert detect(text) == found


def test_common_languages_are_found_without_the_model():
    code = (
        "import sys; from retriever.documents.languages import detect;"
        "assert [detect(text) for text in sys.argv[1:]] == ['en', 'de', 'fr', 'zh'];"
        "assert 'py3langid' not in sys.modules"
    )
    long = [" ".join([TEXTS[language]] * 2) for language in ("en", "de", "fr", "zh")]
    subprocess.run([sys.executable, "-c", code, *long], check=True)


def test_no_room_for_temporary_files_is_a_clear_error() -> None:
    program = """
import resource
from retriever import WriteFailed
from retriever.documents.languages import detect

resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
try:
    detect("Nel mezzo del cammin di nostra vita mi ritrovai per una selva oscura. " * 5)
except WriteFailed as exc:
    print(exc.durable, exc.hint)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout.startswith("False ")
    assert "TMPDIR" in run.stdout
