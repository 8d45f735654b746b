"""Every model's name stands for a small encoder: in this process, or in one of its own."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from retriever.encoders.plugged import plug
from retriever.testing import HashEncoder

# What finds a model by its name, and what says whether a name is of a model that this package runs.
FINDERS = ("encoders.bi_encoder:load_encoder", "encoders.checkpoint.resolve:resolve_model")
IS_OURS = "encoders.checkpoint.resolve:is_ours"


class Slow(HashEncoder):
    """Takes a while.

    Args:
        call_s: Seconds for each call.
        text_s: Seconds for each text.
        tells: Whether to print `encoding` at each call.
    """

    def __init__(self, call_s: float = 0.0, text_s: float = 0.0, tells: bool = False) -> None:
        super().__init__()
        self._call_s, self._text_s, self._tells = call_s, text_s, tells

    def encode_documents(self, texts: Sequence[str]) -> np.ndarray:
        if self._tells:
            sys.stdout.write("encoding\n")
            sys.stdout.flush()
        time.sleep(self._call_s + self._text_s * len(texts))
        return super().encode_documents(texts)


def replacements(make: Callable[[], Any]) -> Iterator[tuple[Any, str, Any]]:
    """Yield the attributes to set, with their modules, so that `make` gives every encoder."""
    for target in FINDERS:
        module, name = target.split(":")
        yield importlib.import_module(f"retriever.{module}"), name, lambda *_, **__: make()
    module, name = IS_OURS.split(":")
    yield importlib.import_module(f"retriever.{module}"), name, lambda _: True


def run(**options: Any) -> None:
    """Run the command line with `Slow(**options)` for every model."""
    for module, name, value in replacements(lambda: plug(Slow(**options))):
        setattr(module, name, value)
    sys.argv[0] = "retriever"
    from retriever.__main__ import run

    run()


def command_line(**options: Any) -> list[str]:
    """Return the command that runs the command line with `Slow(**options)` for every model."""
    tests = str(Path(__file__).parent)
    code = f"import sys; sys.path.insert(0, {tests!r}); import stand_in; stand_in.run(**{options})"
    return [sys.executable, "-c", code]
