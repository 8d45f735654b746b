"""Ctrl-C and SIGTERM: the first signal ends a command in an orderly way, a second one at once.

The first becomes a `KeyboardInterrupt`, which Python raises between any two bytecodes of the main
thread. Code that swallows exceptions may lose it, and cleaning up may block. So a watcher thread
is told of every signal too. It ends the process at the second signal, or if the process has not
ended some seconds after the first. Ending a process at any moment is safe, because a commit is
either complete or absent.
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
    """Which signal came, and what to print when the process is ended at once.

    Attributes:
        asked: The first signal; 0 until there is one.
        is_over: Whether the command has ended and only the interpreter is still shutting down.
        is_installed: Whether the handlers are installed.
        last_words: The message to print if the process is ended at once.
        clearing: A terminal sequence written before it, which clears the progress line.
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
    """Handle Ctrl-C and SIGTERM, unless they are ignored or have another handler.

    For a process that runs nothing but the command line; a second call does nothing.
    """
    if _state.is_installed or threading.current_thread() is not threading.main_thread():
        return
    _state.is_installed = True
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    ours = [number for number, handler in usual.items() if signal.getsignal(number) == handler]
    if not ours:
        return
    reader, writer = os.pipe()
    # `set_wakeup_fd` refuses a descriptor that blocks.
    os.set_blocking(writer, False)
    threading.Thread(target=_watch, args=[reader], name="retriever-signals", daemon=True).start()
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in ours:
        signal.signal(number, _heed)
    sys.unraisablehook = _see_swallowed


def asked() -> int:
    """Return the signal that asked the command to stop, or 0."""
    return _state.asked


def say_at_the_end(words: str) -> None:
    """Set the message to print if the process is ended at once."""
    _state.last_words = words.encode()


def clear_with(sequence: bytes) -> None:
    """Set the terminal sequence to write first if the process is ended at once."""
    _state.clearing = sequence


def leave(code: int) -> NoReturn:
    """End the process with an exit code; after a signal, skip the interpreter's shutdown.

    Shutdown would wait for threads, and native code that returns to a finalised interpreter
    aborts the process.
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
    # Python writes every signal that has a handler of Python code to the pipe, not only these.
    while number not in CODES:
        number = os.read(reader, 1)[0]
    if not _state.is_over:
        select.select([reader], [], [], PATIENCE_S)
    _end_at_once(number)


def _see_swallowed(unraisable: Any) -> None:
    """End the process if an interrupt was raised where exceptions cannot propagate."""
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        end_at_once()
    sys.__unraisablehook__(unraisable)


def _end_at_once(number: int) -> NoReturn:
    # Never waits: a handler may interrupt this function in the very thread that has the lock.
    if not _state.ending.acquire(blocking=False):
        time.sleep(1)  # the other thread that handles signals is ending the process already
        os._exit(CODES[number])
    words = _state.clearing + _state.last_words
    with suppress(OSError, ValueError):
        if words and select.select([], [_STDERR], [], 0)[1]:  # nobody may be reading
            # Not by `sys.stderr`, whose lock the interrupted thread may hold.
            os.write(_STDERR, words)
    os._exit(CODES[number])
