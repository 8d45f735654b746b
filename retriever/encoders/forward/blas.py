"""A temporary cap on the threads that NumPy multiplies matrices with, as `threads=` asks.

Owns the one setting of OpenBLAS, the library that NumPy's wheels bring. The setting holds for the
whole process: it is restored when the last block that caps it ends, and until then other code of
the process is capped too. If NumPy uses another library (Accelerate, MKL), nothing is capped; set
that library's own environment variable instead.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

_NAMES = (  # in NumPy's own wheels, and in OpenBLAS as operating systems build it
    "scipy_openblas_{}_num_threads64_",
    "scipy_openblas_{}_num_threads",
    "openblas_{}_num_threads64_",
    "openblas_{}_num_threads",
)
_lock = threading.Lock()
_caps: list[int] = []
_before = 0


class _Setting(NamedTuple):
    read: Callable[[], int]
    write: Callable[[int], object]


@contextmanager
def at_most(threads: int | None) -> Iterator[None]:
    """Cap NumPy's threads inside the block; if several blocks overlap, the lowest cap holds.

    Args:
        threads: The most threads; None caps nothing.
    """
    setting = None if threads is None else _openblas()
    if threads is None or setting is None:
        yield
        return
    _begin(setting, threads)
    try:
        yield
    finally:
        _end(setting, threads)


def _begin(setting: _Setting, threads: int) -> None:
    global _before
    with _lock:
        # Read by the outermost block only: an inner one would read the cap of the outer one.
        if not _caps:
            _before = setting.read()
        _caps.append(threads)
        setting.write(min(_before, *_caps))


def _end(setting: _Setting, threads: int) -> None:
    with _lock:
        _caps.remove(threads)
        setting.write(min([_before, *_caps]))


@cache
def _openblas() -> _Setting | None:
    """Return functions that read and set the threads of NumPy's OpenBLAS; None without one."""
    import ctypes

    for library in _libraries():
        with suppress(OSError):
            # The file is loaded already, and loading it again gives the same copy with its
            # settings.
            found = ctypes.CDLL(str(library))
            for name in _NAMES:
                read = getattr(found, name.format("get"), None)
                write = getattr(found, name.format("set"), None)
                if read is not None and write is not None:
                    return _Setting(read, write)
    return None


def _libraries() -> Iterator[Path]:
    """Yield files that may be NumPy's OpenBLAS: beside NumPy, then those the process has mapped."""
    import numpy

    # Those beside NumPy come first: the process may have mapped another copy, such as that of
    # SciPy, which NumPy does not use.
    home = Path(numpy.__file__).parent
    for folder in (home.with_name("numpy.libs"), home / ".dylibs"):
        yield from sorted(folder.glob("*openblas*"))
    with suppress(OSError):
        lines = Path("/proc/self/maps").read_text("utf-8", "replace").splitlines()
        names = dict.fromkeys(line.split(maxsplit=5)[5] for line in lines if "openblas" in line)
        yield from map(Path, names)
