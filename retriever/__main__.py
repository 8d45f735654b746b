"""`python -m retriever`, and the script `retriever`: the command line as a process of its own."""

from __future__ import annotations

from typing import NoReturn

from retriever.cli import signals, streams


def run() -> NoReturn:
    """Run the command line; Ctrl-C is handled even while it is imported."""
    streams.replace_closed()  # or the next file to be opened would get the descriptor of a stream
    signals.install()
    try:
        from retriever.cli import main

        main()
    except KeyboardInterrupt:
        signals.end_at_once()
    raise AssertionError("unreachable")


if __name__ == "__main__":
    run()
