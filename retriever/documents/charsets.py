"""Tables of legacy character encodings: the languages written in each, and their letters.

A cost is a negative logarithm of a probability, in nats: what is common is cheap.
"""

from __future__ import annotations

from typing import NamedTuple

_LATIN_WORDS = {
    "English": "the of and to in is it that for was on as with be at by this are from or have not",
    "French": "le la les de des et est un une que qui dans pour pas par sur au du ne se il ce avec",
    "German": "der die das und ist nicht ein eine mit von zu den auf im es sich dem als auch wird",
    "Spanish": "el la los las de que en un una por con no del se su para es al como y lo más",
    "Portuguese": "o a os as de que em um uma por com do da no na se para é ao dos mais foi",
    "Italian": "il la di che e un una per con non del della è si le sono nel dei al da i lo",
    "Catalan": "el la de que i en un una per amb no del es els les al com més dels seva",
    "Dutch": "de het een van en in is dat op te zijn voor met niet die aan er om ook als",
    "Swedish": "och att det som en på är av för med den till inte om ett har jag han var",
    "Danish": "og at det en er på af for med den til ikke som der et har han var vi om",
    "Finnish": "ja on ei se että hän oli mutta ovat joka myös kun niin tai ole sen kuin",
    "Icelandic": "og að er í á sem ekki til við um það af en hann var með fyrir eru",
    "Polish": "w i na z do nie to jest się że o jak po co ale od za dla przez tak są był",
    "Czech": "a se v na je že to s z do o ve k i si ale pro za by jsou po tak jako od",
    "Slovak": "a sa v na je že to s z do o vo k aj si ale pre za by sú po tak ako od",
    "Hungarian": "a az és hogy nem is egy ez van meg de volt csak mint el még ha már vagy",
    "Romanian": "de a la nu un o cu pe care mai din ce pentru este sau fi ca au sunt al",
    "Croatian": "je u i se na da za su od s o koji ne to kao a bi iz ili po nije što ima",
    "Turkish": "bir ve bu da de için ile ne çok gibi daha var ama o en olarak kadar mi ki",
    "Lithuanian": "ir kad yra tai į iš su bet kaip ar jis buvo ne apie per dar jo už tik",
    "Latvian": "un ir ka no ar par uz tas kas bet to nav vai kā bija pie viņš tikai arī",
    "Estonian": "ja on ei et see ta oli kui mis oma aga ka ning või tema siis nad olid",
    "Vietnamese": "va la cua cho khi trong mot ra con theo nhu anh em ta toi hai tin sau",
}
WORDS = {language: frozenset(words.split()) for language, words in _LATIN_WORDS.items()}
"""The commonest words of the languages in Latin letters, in lower case."""

_LETTERS = {
    "English": "éèêëïöüçñáóâàôíîäåøæœúû",
    "French": "éèàêçùôîâûïëœüÿæñ",
    "German": "üäößéèàêçâô",
    "Spanish": "óíáéñúüàçèò",
    "Portuguese": "ãçáéíóõêúâàôüñ",
    "Italian": "èàùòìéîóíú",
    "Catalan": "àéóèíòçúïüñ",
    "Dutch": "ëéïöèüáóçê",
    "Swedish": "äöåéüøàæ",
    "Danish": "øæåéöäüôèò",
    "Finnish": "äöåéšž",
    "Icelandic": "íáðéöúþýóæ",
    "Polish": "łęąóżśćńź",
    "Czech": "íáéěýřžšůčúťňďó",
    "Slovak": "áíéčžýťšľúôňďóäĺŕ",
    "Hungarian": "áéóőöüíűú",
    "Romanian": "ăîâşţșțéá",
    "Croatian": "čšžćđ",
    "Turkish": "ıüşçğöâîû",
    "Lithuanian": "ėšžųįąčūę",
    "Latvian": "āīēšūņļģžčķ",
    "Estonian": "äõüöšž",
    "Vietnamese": "đưôâăêơáàéíóú\u0301\u0300\u0323\u0309\u0303",
    "Russian": "оеаинтсрвлкмдпуяыьгзбчйхжшюцщэфъё",
    "Ukrainian": "оаинівертсклудмпяьзгбчйхжїцшюєщфґ",
    "Bulgarian": "аоиетнрсвлкдпмзяъгучбцйжщхшюфь",
    "Serbian": "аоиенрстјвукдпмлзгбчшцжхњљћђфџ",
    "Belarusian": "аінеортсклўуыдпямзьбйгчжхцшфюэё",
    "Macedonian": "аоиетнрсвкдлпмузјгбчшцжќфхѓњљџѕ",
    "Greek": "αοιετσνρηκπυλςμωόάίγήέθδύχώβφξζψϊΐϋΰ",
    "Hebrew": "יוהלאתרבםנמשדחקפעכגטסןצזךץף",
    "Arabic": "الينمروتبةعدسفحكقأهجشطصخإذئزضىثغءآظؤ"
    "\u064b\u064c\u064d\u064e\u064f\u0650\u0651\u0652",
    "Farsi": "اینرمدوتهبشسکلپزعقفحگخجصطچآژضغثذظئءأيك\u200c\u200d",
    "Thai": "านรอกเ่งมย้ลวดี\u0e31ทสต\u0e34ะปบคห์แจ\u0e37พชขใ\u0e47ไ\u0e38\u0e39"
    "โผถ\u0e33ซศธณฟญษภฐฉฮฎฬฝฏ"
    "\u0e4d\u0e46\u0e2f\u0e50\u0e51\u0e52\u0e53\u0e54\u0e55\u0e56\u0e57\u0e58\u0e59",
}
_WHOLE_ALPHABETS = frozenset(list(_LETTERS)[list(_LETTERS).index("Russian") :])


def letter_costs(language: str) -> dict[str, float]:
    """Return the costs of a language's letters beyond ASCII."""
    # Letters are listed by how frequent they are, so the rank gives the cost.
    letters = _LETTERS[language]
    if language in _WHOLE_ALPHABETS:
        return {c: 2.2 + 0.1 * r + 0.12 * max(0, r - 20) for r, c in enumerate(letters)}
    first = 6.0 if language == "English" else 4.5
    return {letter: first + 0.2 * rank for rank, letter in enumerate(letters)}


class Page(NamedTuple):
    """An encoding of one byte a character, the languages it is used for, and how rare it is."""

    encoding: str
    languages: tuple[str, ...]
    cost: float

    @property
    def is_latin(self) -> bool:
        """Return whether most letters of its languages are ASCII."""
        return self.languages[0] not in _WHOLE_ALPHABETS


_WESTERN = tuple(list(_LETTERS)[: list(_LETTERS).index("Polish")])
_CENTRAL = ("Polish", "Czech", "Slovak", "Hungarian", "Romanian", "Croatian", "German")
_CYRILLIC = ("Russian", "Ukrainian", "Bulgarian", "Serbian", "Belarusian", "Macedonian")
PAGES = (
    Page("cp1252", _WESTERN, 0.0),
    Page("iso8859_15", _WESTERN, 5.0),
    Page("mac_roman", _WESTERN, 7.0),
    Page("cp850", _WESTERN, 8.0),
    Page("cp437", _WESTERN, 8.5),
    Page("cp1250", _CENTRAL, 4.5),
    Page("iso8859_2", _CENTRAL, 5.0),
    Page("cp852", _CENTRAL, 8.0),
    Page("cp1254", ("Turkish",), 5.0),
    Page("cp1257", ("Lithuanian", "Latvian", "Estonian"), 5.5),
    Page("cp1258", ("Vietnamese",), 9.0),
    Page("cp1251", _CYRILLIC, 11.0),
    Page("koi8_r", ("Russian", "Bulgarian"), 12.0),
    Page("koi8_u", ("Ukrainian", "Belarusian"), 12.2),
    Page("iso8859_5", _CYRILLIC, 13.0),
    Page("cp866", ("Russian", "Ukrainian", "Bulgarian", "Belarusian"), 13.0),
    Page("cp855", _CYRILLIC, 15.0),
    Page("mac_cyrillic", _CYRILLIC, 14.0),
    Page("cp1253", ("Greek",), 12.0),
    Page("iso8859_7", ("Greek",), 12.2),
    Page("cp1255", ("Hebrew",), 12.0),
    Page("iso8859_8", ("Hebrew",), 12.5),
    Page("cp1256", ("Arabic", "Farsi"), 12.0),
    Page("iso8859_6", ("Arabic",), 13.0),
    Page("cp874", ("Thai",), 12.0),
)


class WidePage(NamedTuple):
    """An encoding of one or two bytes a character.

    Attributes:
        frequent: Its most frequent characters, which make up a third of a text or more.
        level: An encoding, and the first and last two bytes of its common characters.
        letters: Ranges of code points of its syllables, which make up most of a text that has any.
    """

    encoding: str
    language: str
    frequent: str
    level: tuple[str, int, int]
    letters: tuple[tuple[int, int], ...]
    cost: float


_SIMPLIFIED = (
    "的一是不了在人有我他这中大来上国个到说们为子和你地出道也时年得就那要下以生会自着去之过家学对可她里后"
    "小么心多天而能好都然没日于起还发成事只作当想看文无开手十用主行方又如前所本见经头面公同三已老从动两长"
)
_TRADITIONAL = (
    "的一是不了在人有我他這中大來上國個到說們為子和你地出道也時年得就那要下以生會自著去之過家學對可她裡後"
    "小麼心多天而能好都然沒日於起還發成事只作當想看文無開手十用主行方又如前所本見經頭面公同三已老從動兩長"
)
_KOREAN = (
    "이다는을의에가고하지로한를은도기서사어나리아자시인해정일대스그전부수과들있면라것보게거구주원상었으장"
    "습니요"
)
_HIRAGANA = "のにはをたがでとしいるなれ"
_KANA = ((0x3041, 0x3096), (0x30A1, 0x30FC))
WIDE_PAGES = (
    WidePage("cp932", "Japanese", _HIRAGANA, ("cp932", 0x889F, 0x9872), _KANA, 12.0),
    WidePage("euc_jp", "Japanese", _HIRAGANA, ("euc_jp", 0xB0A1, 0xCFD3), _KANA, 12.0),
    WidePage("gb18030", "Chinese", _SIMPLIFIED, ("gb2312", 0xB0A1, 0xD7F9), (), 12.0),
    WidePage("big5", "Chinese", _TRADITIONAL, ("big5", 0xA440, 0xC67E), (), 12.0),
    WidePage("cp949", "Korean", _KOREAN, ("euc_kr", 0xB0A1, 0xC8FE), (), 12.0),
)

BOXES = frozenset(map(chr, range(0x2500, 0x25A1)))
"""Box-drawing characters and blocks."""
MARKS = {
    **dict.fromkeys("“”‘’–—", 5.0),
    **dict.fromkeys("…•«»„‚", 5.8),
    **dict.fromkeys("£€§©°µ", 6.3),
    **dict.fromkeys("®™±²³½¼¾×·¹ºª¿¡№‰\xa0", 7.3),
    **dict.fromkeys("\xad¶¢¥‹›†´÷¬¦", 9.0),
    **dict.fromkeys("\u0384\u0385\u200e\u200f\u060c\u061b\u061f\u0640", 5.0),
    **dict.fromkeys(BOXES, 7.0),
}
"""Costs of signs other than letters, in any language."""
