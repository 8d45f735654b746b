"""Decode the bytes of a file.

Tried in this order: a byte order mark, UTF-8, what the file declares, and the legacy encoding that
it looks most like. The text is kept as it is, line ends included; only a byte order mark is
dropped. `Decoded.doubt` reports weak guesses and bytes that are invalid.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from typing import NamedTuple

from retriever.errors import InvalidConfig, UnreadableFile, UnsupportedFormat

SAMPLE_BYTES = 1 << 16
"""Bytes that are examined to tell text from binary files."""

# The UTF-32 marks begin with the UTF-16 ones, so they come first.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_WIDE = ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
_DECLARED = re.compile(rb"""(?:charset|coding)\s*[=:]\s*["']?([A-Za-z][\w.:-]{1,30})""")
# Codecs of Python that are not character encodings of files, or that were tried before.
_NO_PAGES = ("utf", "idna", "punycode", "unicode", "raw_unicode", "undefined")
# Declared names that are used for a larger encoding, which is tried if the declared one fails.
_WIDER = {
    "shift_jis": "cp932",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "euc_kr": "cp949",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "tis-620": "cp874",
}
_REPLACEMENT = "\ufffd"
_ASCII, _HIGH = bytes(range(0x80)), bytes(range(0x80, 0x100))
_HIGH_CONTROLS = re.compile(rb"[\x80-\x9f]")
_MARGIN = 4.0
"""An encoding that beats the next one, which gives another text, by fewer nats is in doubt."""
_MAX_BROKEN = 0.01
# Control characters other than those that occur in text: bell, backspace, tab, line and form feeds,
# and escape.
_CONTROLS = bytes(set(range(0x20)) - {7, 8, 9, 10, 11, 12, 13, 27}) + b"\x7f"
_NO_TEXT = ("Cc", "Cn", "Co", "Cs")
_MIN_SEPARATION = 100
_MAX_CONTROL_SHARE = 0.02
_MAX_CONTROL_SHARE_IN_UTF8 = 0.1


class Decoded(NamedTuple):
    """A text and the name of the encoding it was in, as Python calls it.

    `doubt` is empty, or one line on why the text may not be what was written.
    """

    text: str
    encoding: str
    doubt: str = ""


def check_encoding(name: object) -> str:
    """Return the name of an encoding as Python spells it.

    Raises:
        InvalidConfig: There is no such encoding.
    """
    try:
        found = codecs.lookup(name) if isinstance(name, str) else None
        if found is not None and "a".encode(found.name):  # rot13 and the like refuse this
            return found.name
    except (LookupError, ValueError):
        pass
    raise InvalidConfig(
        f"encoding {name!r} is unknown.", hint="Use a name such as utf-8, cp1252 or shift_jis."
    )


def decode_as(data: bytes, path: str, encoding: str) -> Decoded:
    """Return the text of a file that is in a known encoding, unless a mark says otherwise.

    Raises:
        UnreadableFile: A byte is invalid in this encoding.
    """
    for mark, marked in _MARKS:
        if data.startswith(mark):
            return _decode_marked(data[len(mark) :], marked, path)
    try:
        return Decoded(data.decode(encoding), encoding)
    except UnicodeError as error:
        place = f" at byte {error.start:,}" if isinstance(error, UnicodeDecodeError) else ""
        raise UnreadableFile(
            f"{path} is not in the encoding {encoding}: it is broken{place}.",
            path=path,
            reader="decoding",
            hint="Leave the encoding out, so that it is recognised, or name the right one.",
        ) from error


def decode(data: bytes, path: str) -> Decoded:
    """Return the text of a file.

    Raises:
        UnsupportedFormat: If the file is binary.
        UnreadableFile: If it is text in an encoding that is broken or not recognised.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _decode_marked(data[len(mark) :], encoding, path)
    # ISO 2022 is all ASCII bytes: UTF-8 would accept it, with its escape sequences as text.
    if b"\x1b$" in data:
        for encoding in ("iso2022_jp_2", "iso2022_kr"):
            if (text := _try(data, encoding)) is not None:
                return Decoded(text, encoding)
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
    """Decode UTF-16 or UTF-32 without a byte order mark: the only text that has zero bytes."""
    zeros = data[:SAMPLE_BYTES].count(0)
    if zeros * 5 < len(data[:SAMPLE_BYTES]) and _try(data, "utf-8") is not None:
        raise _binary(path, "zero bytes")
    for encoding in _WIDE:
        text = _try(data, encoding)
        if text is not None and _is_prose(text[:4096]):
            return Decoded(text, encoding)
    raise _binary(path, "zero bytes")


def _is_prose(text: str) -> bool:
    """Return whether a text has some spaces or punctuation, and no unassigned characters."""
    separators = sum(map(text.count, " \t\n\r.,、。，"))
    is_separated = len(text) < _MIN_SEPARATION or separators * _MIN_SEPARATION > len(text)
    return is_separated and all(
        letter in "\t\n\v\f\r\x1b" or unicodedata.category(letter) not in _NO_TEXT
        for letter in text
    )


def _decode_legacy(data: bytes, path: str) -> Decoded:
    if (mended := _mended_utf8(data)) is not None:
        return mended
    for encoding in _declared(data):
        if (text := _try(data, encoding)) is not None:
            return Decoded(text, encoding)
    from retriever.documents.guessing import guess, sample_of

    sample = sample_of(data)
    guesses = guess(sample)
    for one in guesses:
        if (decoded := _decode_nearly(data, one.encoding)) is None:
            continue
        if not one.fits:
            break
        rivals = [g.encoding for g in guesses if g.cost < one.cost + _MARGIN]
        return _with_rival(decoded, sample, rivals)
    raise UnreadableFile(
        f"The character encoding of {path} was not recognised.",
        path=path,
        reader="decoding",
        hint="Name it with --encoding, or save the file as UTF-8: iconv -f ENCODING -t UTF-8.",
    )


def _mended_utf8(data: bytes) -> Decoded | None:
    """Decode UTF-8 with some invalid bytes: no other encoding looks like it."""
    text = data.decode("utf-8", "replace")
    # A U+FFFD that the file itself holds is not an invalid byte.
    broken = text.count(_REPLACEMENT) - data.count(_REPLACEMENT.encode())
    whole = len(text) - len(data.translate(None, _HIGH)) - broken
    if whole >= 2 * broken or (broken == 1 and whole):
        return Decoded(text, "utf-8", _told(broken, "UTF-8"))
    return None


def _told(broken: int, encoding: str) -> str:
    places = "1 place" if broken == 1 else f"{broken:,} places"
    return f"broken {encoding}: U+FFFD stands in {places} for bytes that make no sense"


def _decode_nearly(data: bytes, encoding: str) -> Decoded | None:
    """Decode text with very few bytes that are invalid in its encoding."""
    if (text := _try(data, encoding)) is not None:
        return Decoded(text, encoding)
    text = data.decode(encoding, "replace")
    broken = text.count(_REPLACEMENT)
    if broken > _MAX_BROKEN * len(data.translate(None, _ASCII)):
        return None
    return Decoded(text, encoding, _told(broken, encoding))


def _with_rival(decoded: Decoded, sample: bytes, rivals: list[str]) -> Decoded:
    """Add the doubt that another encoding reads almost as well."""
    read = sample.decode(decoded.encoding, "replace")
    for rival in rivals:
        if not decoded.doubt and sample.decode(rival, "replace") != read:
            return decoded._replace(doubt=f"guessed {decoded.encoding}, may be {rival}")
    return decoded


def _declared(data: bytes) -> list[str]:
    """Return the encoding that HTML, XML, Python, … declare in their first lines, if any."""
    # HTML requires the declaration to be in the first 1,024 bytes.
    found = _DECLARED.search(data, 0, 1024)
    if found is None:
        return []
    try:
        name = codecs.lookup(found[1].decode("ascii")).name
        "a".encode(name)
    except LookupError:
        return []
    if name.startswith(_NO_PAGES):
        return []
    wider = _WIDER.get(name, name)
    # Bytes 80 to 9F are controls in ISO 8859 and punctuation on Windows.
    is_windows = name.startswith("iso8859") and _HIGH_CONTROLS.search(data) is not None
    return [wider, name] if is_windows else [name, wider]


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
