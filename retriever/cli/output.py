"""Printing: results to stdout, everything else to stderr, in colour on a terminal.

A reader that closes the pipe (`| head`) ends the printing but not the command, whose exit code
still tells whether its work succeeded. Text from documents is never printed raw, see `visible`.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import sys
from collections.abc import Iterable
from datetime import timedelta
from itertools import islice
from typing import Any, TextIO

import click

from retriever.errors import WriteFailed

MAX_WIDTH = 100
_MIN_WIDTH = 24
_PAGE_LINES = 256

# Control characters, bidi controls and characters of zero width: all that can rewrite a terminal or
# hide text. One variation selector after a character makes an emoji; further ones are hidden data.
UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufeff\uffa0\ufff0-\ufffb"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff]|(?<=[\ufe00-\ufe0f])[\ufe00-\ufe0f]"
)
# `json.dumps` has escaped the characters below U+0020 already.
_UNSEEN_IN_JSON = re.compile(UNSEEN.pattern.replace("\x00-\x08\x0b-\x1f", ""))


def visible(text: str) -> str:
    r"""Return text without hidden characters: ESC becomes `␛`, U+202E becomes `<U+202E>`.

    Newlines and tabs are kept; the carriage return of a CRLF is removed.
    """
    return UNSEEN.sub(_name, text.replace("\r\n", "\n"))


def in_one_line(text: str) -> str:
    """Return the visible text with each run of white space replaced by one space."""
    return " ".join(visible(text).split())


def _name(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else f"<U+{code:04X}>"


# --- printing --------------------------------------------------------------------------------


def say(text: str = "") -> bool:
    """Print a result to stdout; return False if the reader closed the pipe.

    Raises:
        WriteFailed: Stdout is closed, its disk is full, or writing fails for another reason.
    """
    try:
        click.echo(text, color=_color())
    except OSError as exc:
        stop_printing(exc)
        return False
    return True


def stop_printing(exc: OSError) -> None:
    """Discard all further output after an error; a closed pipe is not an error.

    Raises:
        WriteFailed: Stdout is closed, its disk is full, or writing fails for another reason.
    """
    _discard(sys.stdout)
    if isinstance(exc, BrokenPipeError):
        return
    why, hint = str(exc.strerror), "Free disk space where standard output is written."
    if exc.errno == errno.EBADF:
        why = "standard output is closed"
        hint = "Redirect them to /dev/null if you do not need them."
    raise WriteFailed(f"The results cannot be written: {why}.", hint=hint, durable=True) from exc


def say_lines(lines: Iterable[str]) -> None:
    """Print many lines, a page at a time, until the reader closes the pipe."""
    waiting = iter(lines)
    while page := list(islice(waiting, _PAGE_LINES)):
        if not say("\n".join(page)):
            return


def say_json(answer: dict[str, Any]) -> None:
    """Print one JSON object: on one line, or indented on a terminal."""
    say(to_json(answer, indent=2 if sys.stdout.isatty() else None))


def note(text: str) -> None:
    """Print something that is not a result, to stderr."""
    try:
        click.echo(text, err=True, color=_color())
    except OSError:
        _discard(sys.stderr)


def to_json(value: Any, *, indent: int | None = None) -> str:
    """Return JSON that is safe on a terminal: hidden characters are escaped, others are not."""
    plain = (getattr(sys.stdout, "encoding", None) or "ascii").lower() not in ("utf-8", "utf8")
    text = json.dumps(value, ensure_ascii=plain, indent=indent, allow_nan=False)
    return _UNSEEN_IN_JSON.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    # `json.dumps` leaves DEL as it is, because it is ASCII.
    return r"\u007f" if match[0] == "\x7f" else json.dumps(match[0])[1:-1]


def _color() -> bool | None:
    """Return False if colour is not wanted; None lets click decide by whether it is a terminal."""
    return False if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" else None


def _discard(stream: TextIO) -> None:
    """Discard what is still buffered for a broken stream, so that exiting prints no error."""
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, stream.fileno())
    os.close(sink)


# --- words and numbers -----------------------------------------------------------------------


def width() -> int:
    """Return the terminal's width in columns, at most `MAX_WIDTH`."""
    columns = shutil.get_terminal_size((80, 24)).columns
    return max(_MIN_WIDTH, min(columns, MAX_WIDTH))


def count(number: int, noun: str) -> str:
    """Return `1 document`, `1,234 documents`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def size(number: int) -> str:
    """Return a number of bytes as `532 bytes`, `1.2 MB`."""
    if number < 1_000:
        return count(number, "byte")
    value = float(number)
    for unit in ("kB", "MB", "GB"):
        value /= 1_000
        if value < 999.95:
            return f"{value:.1f} {unit}"
    return f"{value / 1_000:.1f} TB"


def duration(seconds: float) -> str:
    """Return `0.31 s`, `12.4 s` or `1:02:07`."""
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    return str(timedelta(seconds=round(seconds)))
