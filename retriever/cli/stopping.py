"""Ctrl-C and SIGTERM: the first ends a command in good order, a second one at once.

The first becomes a `KeyboardInterrupt`, which Python raises between any two steps of the main
thread: it may strike where it is swallowed, or where the way out waits for something. So a thread
of its own is told of every signal, and ends the process at a second one, or when the first has not
ended it in a while. Ending a process at any moment is safe: a commit is there or it is not.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn

PATIENCE_S = 5.0
CODES: dict[int, int] = {signal.SIGINT: 130, signal.SIGTERM: 143}
_STDERR = 2


class _Stopping:
    """What was asked for, and what to say on the way out.

    Attributes:
        asked: The first signal; 0 until there is one.
        is_over: Whether the command has ended, and only the interpreter is still to end.
        is_installed: Whether signals are heeded at all.
        last_words: Said if the process is ended at once.
        clearing: Written before them, to have the terminal as it was.
    """

    def __init__(self) -> None:
        self.asked = 0
        self.is_over = False
        self.is_installed = False
        self.last_words = b"error: Interrupted.\n"
        self.clearing = b""
        self.ending = threading.Lock()


_state = _Stopping()


def install() -> None:
    """Heed Ctrl-C and SIGTERM from now on, unless they are ignored or heeded otherwise.

    For a process that is all ours; harmless when done twice.
    """
    if _state.is_installed or threading.current_thread() is not threading.main_thread():
        return
    _state.is_installed = True
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    ours = [number for number, handler in usual.items() if signal.getsignal(number) == handler]
    if not ours:
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    threading.Thread(target=_watch, args=[reader], name="retriever-signals", daemon=True).start()
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in ours:
        signal.signal(number, _heed)
    sys.unraisablehook = _see_swallowed


def asked() -> int:
    """Return the signal that was asked to stop by, or 0."""
    return _state.asked


def say_at_the_end(words: str) -> None:
    """Have something said if the process is ended at once."""
    _state.last_words = words.encode()


def clear_with(sequence: bytes) -> None:
    """Have the terminal put right by this if the process is ended at once."""
    _state.clearing = sequence


def leave(code: int) -> NoReturn:
    """End the process with an exit code; after a signal, without the interpreter's own end.

    That would wait for threads, and native code that comes back to no interpreter aborts.
    """
    _state.is_over = True
    if _state.asked:
        _state.last_words = b""
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
        os._exit(code)
    sys.exit(code)


def end_at_once() -> NoReturn:
    """End the process as a second signal does."""
    _end_at_once(_state.asked or signal.SIGINT)


def _heed(number: int, frame: FrameType | None) -> None:
    if _state.asked or _state.is_over:
        _end_at_once(number)
    _state.asked = number
    raise KeyboardInterrupt


def _watch(reader: int) -> None:
    number = 0
    while number not in CODES:
        number = os.read(reader, 1)[0]
    if not _state.is_over:
        select.select([reader], [], [], PATIENCE_S)
    _end_at_once(number)


def _see_swallowed(unraisable: Any) -> None:
    """End the process if an interrupt struck where no exception gets out of."""
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        end_at_once()
    sys.__unraisablehook__(unraisable)


def _end_at_once(number: int) -> NoReturn:
    if not _state.ending.acquire(blocking=False):
        time.sleep(1)  # the other of the two threads that heed signals is at it already
        os._exit(CODES[number])
    words = _state.clearing + _state.last_words
    with suppress(OSError, ValueError):
        if words and select.select([], [_STDERR], [], 0)[1]:  # nobody may be reading
            os.write(_STDERR, words)
    os._exit(CODES[number])
