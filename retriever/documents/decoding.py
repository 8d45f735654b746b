"""Bytes to text: the character encoding found, or a clear refusal.

The text is kept as it is, line ends included; only a byte order mark is dropped. Nothing is ever
replaced in silence: bytes that make no sense are an error that says where they are.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from typing import TYPE_CHECKING, Any, NamedTuple

from retriever.errors import UnreadableFile, UnsupportedFormat

if TYPE_CHECKING:
    from charset_normalizer import CharsetMatch

SAMPLE_BYTES = 1 << 16
"""Bytes by which an encoding is guessed; the whole file must then decode."""

# The UTF-32 marks begin with the UTF-16 ones, so they come first.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_WIDE = ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
# Common code pages and the languages written in them. A page that fits one of its own languages
# goes before one that merely decodes: Polish text is also valid, and wrong, as Western European.
_WESTERN = "English French German Spanish Portuguese Italian Dutch Swedish Danish Norwegian Finnish"
_CENTRAL = "Polish Czech Slovak Hungarian Romanian Croatian Slovene Serbian"
_CYRILLIC = "Russian Ukrainian Bulgarian Serbian Belarusian Macedonian Kazakh"
_PAGES = {
    "cp1252": _WESTERN,
    "cp1250": _CENTRAL,
    "iso8859_2": _CENTRAL,
    "cp1251": _CYRILLIC,
    "koi8_r": _CYRILLIC,
    "koi8_u": _CYRILLIC,
    "iso8859_5": _CYRILLIC,
    "cp866": _CYRILLIC,
    "cp855": _CYRILLIC,
    "mac_cyrillic": _CYRILLIC,
    "cp1253": "Greek",
    "iso8859_7": "Greek",
    "cp1254": "Turkish",
    "iso8859_9": "Turkish",
    "cp1255": "Hebrew",
    "cp1256": "Arabic Farsi",
    "cp1257": "Lithuanian Latvian Estonian",
    "iso8859_15": _WESTERN,
    "mac_roman": _WESTERN,
    "cp850": _WESTERN,
    "cp437": _WESTERN,
    "cp852": _CENTRAL,
    "cp932": "Japanese",
    "shift_jis": "Japanese",
    "euc_jp": "Japanese",
    "big5": "Chinese",
    "gb18030": "Chinese",
    "cp949": "Korean",
    "tis_620": "Thai",
    "cp1258": "Vietnamese",
}
_DECLARED = re.compile(rb"""(?:charset|coding)\s*[=:]\s*["']?([A-Za-z][\w.:-]{1,30})""")
# Codecs of Python that are no character encoding of a file, or were tried before.
_NO_PAGES = ("utf", "idna", "punycode", "unicode", "raw_unicode", "undefined")
# What files of these names really are, where they hold a character that the name does not cover.
_WIDER = {
    "shift_jis": "cp932",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "euc_kr": "cp949",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "tis-620": "cp874",
}
_HIGH_CONTROLS = re.compile(rb"[\x80-\x9f]")
_WINDOWS = {"iso8859_2": "cp1250", "iso8859_9": "cp1254", "iso8859_15": "cp1252"}
# How much worse, in charset-normalizer's measures, a page of the right language may do.
_CHAOS_LIMITS = (0.2, 0.3)
_CHAOS_MARGIN = 0.02
_COHERENCE_MARGIN = 0.06
# Controls that do occur in text: bell, backspace, tab, line and form feeds, escape.
_CONTROLS = bytes(set(range(0x20)) - {7, 8, 9, 10, 11, 12, 13, 27}) + b"\x7f"
_NO_TEXT = ("Cc", "Cn", "Co", "Cs")
_MIN_SEPARATION = 100
_MAX_CONTROL_SHARE = 0.02
_MAX_CONTROL_SHARE_IN_UTF8 = 0.1


class Decoded(NamedTuple):
    """A text and the name of the encoding it was in, as Python calls it."""

    text: str
    encoding: str


def decode(data: bytes, path: str) -> Decoded:
    """Return the text of a file.

    Raises:
        UnsupportedFormat: If the file is binary.
        UnreadableFile: If it is text in an encoding that is broken or not recognised.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _decode_marked(data[len(mark) :], encoding, path)
    if b"\x1b$" in data and (text := _try(data, "iso2022_jp_2")) is not None:
        return Decoded(text, "iso2022_jp_2")
    if 0 in data:
        return _decode_wide(data, path)
    text = _try(data, "utf-8")
    limit = _MAX_CONTROL_SHARE if text is None else _MAX_CONTROL_SHARE_IN_UTF8
    sample = data[:SAMPLE_BYTES]
    if len(sample) - len(sample.translate(None, _CONTROLS)) > limit * len(sample):
        raise _binary(path, "too many control characters")
    return _decode_legacy(data, path) if text is None else Decoded(text, "utf-8")


def _decode_marked(data: bytes, encoding: str, path: str) -> Decoded:
    try:
        return Decoded(data.decode(encoding), encoding)
    except UnicodeDecodeError as error:
        raise UnreadableFile(
            f"{path} begins with the mark of {encoding.upper()} but is broken at byte "
            f"{error.start:,}: {error.reason}.",
            path=path,
            reader="decoding",
            hint="Save it again as UTF-8.",
        ) from error


def _decode_wide(data: bytes, path: str) -> Decoded:
    """Decode UTF-16 or UTF-32 without a mark: the only text with zero bytes in it."""
    zeros = data[:SAMPLE_BYTES].count(0)
    if zeros * 5 < len(data[:SAMPLE_BYTES]) and _try(data, "utf-8") is not None:
        raise _binary(path, "zero bytes")
    for encoding in _WIDE:
        text = _try(data, encoding)
        if text is not None and _is_prose(text[:4096]):
            return Decoded(text, encoding)
    raise _binary(path, "zero bytes")


def _is_prose(text: str) -> bool:
    """Return whether a text has spaces or punctuation now and then, and nothing unassigned."""
    separators = sum(map(text.count, " \t\n\r.,、。，"))
    is_separated = len(text) < _MIN_SEPARATION or separators * _MIN_SEPARATION > len(text)
    return is_separated and all(
        letter in "\t\n\v\f\r\x1b" or unicodedata.category(letter) not in _NO_TEXT
        for letter in text
    )


def _decode_legacy(data: bytes, path: str) -> Decoded:
    sample = _sample(data)
    _refuse_broken_utf8(data, sample, path)
    for encoding in _declared(data):
        if (text := _try(data, encoding)) is not None:
            return Decoded(text, encoding)
    for match in _candidates(sample):
        # Bytes 80 to 9F are controls in ISO 8859 and punctuation on Windows.
        windows = _WINDOWS.get(match.encoding) if _HIGH_CONTROLS.search(data) else None
        for encoding in filter(None, (windows, match.encoding)):
            if (text := _try(data, encoding)) is not None:
                return Decoded(text, encoding)
    raise UnreadableFile(
        f"The character encoding of {path} was not recognised.",
        path=path,
        reader="decoding",
        hint="Save it as UTF-8: iconv -f ENCODING -t UTF-8.",
    )


def _declared(data: bytes) -> list[str]:
    """Return the encoding that HTML, XML, Python, … declare in their first lines, if any."""
    found = _DECLARED.search(data, 0, 1024)
    if found is None:
        return []
    try:
        name = codecs.lookup(found[1].decode("ascii")).name
        b"".decode(name)
    except LookupError:
        return []
    return [] if name.startswith(_NO_PAGES) else [name, _WIDER.get(name, name)]


def _candidates(sample: bytes) -> list[CharsetMatch]:
    """Return what the sample may be encoded in, likeliest first."""
    from charset_normalizer import from_bytes

    for limit in _CHAOS_LIMITS:
        options: dict[str, Any] = {"cp_isolation": list(_PAGES), "enable_fallback": False}
        if matches := list(from_bytes(sample, threshold=limit, **options)):
            break
    else:
        return []
    best = matches[0]

    def is_at_home(match: CharsetMatch) -> bool:
        return (
            match.language in _PAGES.get(match.encoding, "").split()
            and match.chaos <= best.chaos + _CHAOS_MARGIN
            and match.coherence >= best.coherence - _COHERENCE_MARGIN
        )

    return sorted(matches, key=lambda match: not is_at_home(match))


def _sample(data: bytes) -> bytes:
    """Return the part from the line of the first byte beyond ASCII."""
    first = len(data) - len(data.lstrip(bytes(range(0x80))))
    start = data.rfind(b"\n", max(0, first - 1024), first) + 1 or max(0, first - 1024)
    # Halving a character at the end would rule out its encoding.
    part = data[start : start + SAMPLE_BYTES]
    end = part.rfind(b"\n") + 1
    return part[:end] if end > SAMPLE_BYTES // 2 and start + SAMPLE_BYTES < len(data) else part


def _refuse_broken_utf8(data: bytes, sample: bytes, path: str) -> None:
    """Raise for what is UTF-8 but for a few bytes: no other encoding looks like that."""
    text = sample[:-3].decode("utf-8", "surrogateescape")
    broken = sum("\udc80" <= character <= "\udcff" for character in text)
    whole = sum(character > "\x7f" for character in text) - broken
    if whole < 4 * max(broken, 1):
        return
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UnreadableFile(
            f"{path} is UTF-8, broken at byte {error.start:,} in line {line}: {error.reason}.",
            path=path,
            reader="decoding",
            hint="Remove the broken bytes: iconv -c -f UTF-8 -t UTF-8.",
        ) from error


def _try(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        return None


def _binary(path: str, why: str) -> UnsupportedFormat:
    return UnsupportedFormat(
        f"{path} is binary: it has {why}.",
        path=path,
        reader="decoding",
        hint="Index a text version of it, or leave it out with --glob or .retrieverignore.",
    )
