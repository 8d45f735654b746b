"""Options of an index that a caller sets once: how documents are cut into chunks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from retriever.arguments import as_whole, flag, shown
from retriever.errors import InvalidConfig

if TYPE_CHECKING:
    from retriever.types import Chunk

DEFAULT_OVERLAP = 16
"""Tokens that a chunk may repeat from the one before it."""

MIN_TOKENS = 8
PREFIX_CHARACTERS = 80
"""Length of the headings put before a chunk's text; the innermost ones count first."""


@dataclass(frozen=True)
class Chunking:
    """How documents are cut; fixed when an index is created.

    Attributes:
        unit: `window` cuts the whole document into windows; `document` makes one chunk of it,
            of which the encoder sees the first window only.
        tokens: The longest chunk, in tokens; None means the encoder's window.
        overlap: Tokens that a chunk may repeat from the one before it, within a section; None
            becomes 16, or a quarter of a chunk where that is less.
        prefix_headings: Whether the encoder sees the headings above a chunk before its text. The
            header row of a table is always put before what is cut from its rows.

    Raises:
        InvalidConfig: If the options contradict each other.
    """

    unit: Literal["window", "document"] = "window"
    tokens: int | None = None
    overlap: int | None = None
    prefix_headings: bool = False

    def __post_init__(self) -> None:
        self._check_types()
        if self.overlap is None:
            longest = (self.tokens or 4 * DEFAULT_OVERLAP) // 4
            object.__setattr__(self, "overlap", min(DEFAULT_OVERLAP, longest))
        if self.unit == "document":
            if self.tokens is not None or self.prefix_headings:
                raise InvalidConfig(
                    "chunking 'document' makes one chunk of a document and takes no other option.",
                    hint="Leave out tokens and prefix_headings, or use chunking 'window'.",
                )
            object.__setattr__(self, "overlap", 0)
        elif self.tokens is not None and self.tokens < MIN_TOKENS:
            raise InvalidConfig(
                f"chunking tokens is {self.tokens}; a chunk needs at least {MIN_TOKENS}.",
                hint="Leave it out to use the encoder's whole window.",
            )
        elif (overlap := self.overlap or 0) < 0 or 0 < (self.tokens or 0) <= overlap * 2:
            raise InvalidConfig(
                f"chunking overlap is {self.overlap} tokens; it must be at least 0 and less than "
                f"half of a chunk ({self.tokens or 'the encoder’s window'}).",
                hint="Choose a smaller overlap; 0 turns it off.",
            )

    def _check_types(self) -> None:
        if self.unit not in ("window", "document"):
            raise InvalidConfig(
                f"chunking unit {shown(self.unit)} is unknown.", hint="Use 'window' or 'document'."
            )
        for name, value in (("tokens", self.tokens), ("overlap", self.overlap)):
            number = as_whole(value)
            if number is None and value is not None:
                raise InvalidConfig(
                    f"chunking {name} is {shown(value)}, not a whole number.",
                    hint="Give it as a number of tokens.",
                )
            object.__setattr__(self, name, number)
        is_on = flag(self.prefix_headings, "chunking prefix_headings")
        object.__setattr__(self, "prefix_headings", is_on)

    @classmethod
    def parse(cls, value: Chunking | str | Mapping[str, Any] | None) -> Chunking:
        """Return the chunking that a user's word, mapping or None stands for.

        Raises:
            InvalidConfig: If it is none, or its options contradict each other.
        """
        if value is None or isinstance(value, Chunking):
            return value or cls()
        options = {"unit": value} if isinstance(value, str) else value
        known = [option.name for option in fields(cls)]
        if not isinstance(options, Mapping) or (unknown := [o for o in options if o not in known]):
            what = f"option {unknown[0]!r}" if isinstance(options, Mapping) else shown(value)
            raise InvalidConfig(
                f"chunking {what} is unknown.",
                hint=f"Use 'window', 'document' or a mapping with {', '.join(known)}.",
            )
        return cls(**options)

    def with_options(self, value: Chunking | str | Mapping[str, Any] | None) -> Chunking:
        """Return this chunking with some options changed; those not named stay as they are.

        Raises:
            InvalidConfig: As `parse`.
        """
        if value is None or isinstance(value, Chunking):
            return value or self
        given: Any = value
        if not isinstance(given, str | Mapping):
            return self.parse(given)  # which refuses it
        options = {"unit": given} if isinstance(given, str) else dict(given)
        if options.get("unit", self.unit) != self.unit:
            return self.parse(options)
        kept = self.to_dict()
        if options.get("tokens", self.tokens) != self.tokens:
            del kept["overlap"]
        return self.parse({**kept, **options})

    def to_dict(self) -> dict[str, Any]:
        """Return the options as a JSON object, which `parse` takes back."""
        return {option.name: getattr(self, option.name) for option in fields(self)}

    def encoded_text(self, chunk: Chunk) -> str:
        """Return the text the encoder sees for a chunk."""
        return self.prefix(chunk.heading, chunk.text) + chunk.text

    def prefix(self, heading: Sequence[str], text: str) -> str:
        """Return what is put before a chunk's text: headings that it does not begin with.

        The header row of the table in which it begins is always put there.
        """
        columns = ""
        if heading and _is_table_header(heading[-1]):
            *heading, columns = heading
            columns += "\n"
        return self._titles(heading, text) + columns

    def _titles(self, heading: Sequence[str], text: str) -> str:
        if not self.prefix_headings:
            return ""
        opening = text[:1000].splitlines()[:3]
        titles: list[str] = []
        room = PREFIX_CHARACTERS
        for title in reversed(heading):
            if any(title in line for line in opening):
                continue
            if titles and len(title) > room:
                break
            titles.append(title[:room])
            room -= len(title)
        return " > ".join(reversed(titles)) + "\n\n" if titles else ""


ChunkingLike: TypeAlias = Chunking | str | Mapping[str, Any] | None


def _is_table_header(heading: str) -> bool:
    """Return whether the last of a chunk's headings is the header row of a table."""
    return heading.startswith("| ")
