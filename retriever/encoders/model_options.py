"""What a caller sets for a model that is named: its prompts, and how many dimensions are kept.

Owns `prompt=` and `dimensions=`: their meaning, and how an index records them. Must not know how
anything is computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from retriever.arguments import described, shown, whole
from retriever.errors import InvalidConfig

ROLES = ("query", "document")
FIELD = "options"
"""The field of an identity that holds the options a model was used with, if there were any."""
_LONGEST = 10_000


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """Options of a model.

    Attributes:
        prompts: The text put before a `query` or a `document`, in place of the model's own.
        dimensions: How many numbers of a vector are kept, from its start; None means all.
    """

    prompts: Mapping[str, str] = field(default_factory=dict)
    dimensions: int | None = None

    def __bool__(self) -> bool:
        """Return whether anything is set."""
        return bool(self.prompts) or self.dimensions is not None

    @classmethod
    def given(cls, prompt: Any, dimensions: Any) -> ModelOptions:
        """Return what a caller passed as `prompt=` and `dimensions=`.

        Raises:
            InvalidConfig: One of them is unusable.
        """
        kept = None
        if dimensions is not None:
            hint = "It is an integer from 1, for a model that was trained to be truncated."
            kept = whole(dimensions, "dimensions", least=1, hint=hint)
        return cls(_prompts(prompt), kept)

    @classmethod
    def recorded(cls, identity: Mapping[str, Any]) -> ModelOptions:
        """Return the options that an identity says the model was used with."""
        found = identity.get(FIELD)
        found = found if isinstance(found, Mapping) else {}
        prompts = found.get("prompt")
        return cls(dict(prompts) if isinstance(prompts, Mapping) else {}, found.get("dimensions"))

    def over(self, others: ModelOptions) -> ModelOptions:
        """Return these options, completed by the others where these set nothing."""
        kept = others.dimensions if self.dimensions is None else self.dimensions
        return ModelOptions({**others.prompts, **self.prompts}, kept)

    def to_dict(self) -> dict[str, Any]:
        """Return what an identity records."""
        said: dict[str, Any] = {}
        if self.prompts:
            said["prompt"] = dict(self.prompts)
        if self.dimensions is not None:
            said["dimensions"] = self.dimensions
        return said

    def beside(self, prompts: Mapping[str, str], dimension: int) -> ModelOptions:
        """Return these options without those that equal what the model says itself.

        Args:
            prompts: The model's own.
            dimension: The length of its vectors.

        Raises:
            InvalidConfig: Its vectors are shorter than `dimensions`.
        """
        if self.dimensions is not None and self.dimensions > dimension:
            raise InvalidConfig(
                f"dimensions is {self.dimensions}; the model's vectors have {dimension} numbers.",
                hint=f"Keep at most {dimension}, or leave dimensions= out.",
            )
        others = {role: text for role, text in self.prompts.items() if prompts[role] != text}
        return ModelOptions(others, None if self.dimensions == dimension else self.dimensions)


def _prompts(prompt: Any) -> dict[str, str]:
    if prompt is None:
        return {}
    prompts = {"query": prompt} if isinstance(prompt, str) else prompt
    if not isinstance(prompts, Mapping) or not prompts:
        raise InvalidConfig(f"prompt is {described(prompt)}.", hint=_HINT)
    for role, text in prompts.items():
        if role not in ROLES or not isinstance(text, str):
            raise InvalidConfig(f"prompt has {shown(role)}: {shown(text)}.", hint=_HINT)
        if len(text) > _LONGEST or any("\ud800" <= one <= "\udfff" for one in text):
            raise InvalidConfig(
                f"The prompt of a {role} is not a text of up to {_LONGEST:,} characters.",
                hint=_HINT,
            )
    return dict(prompts)


_HINT = (
    "Pass what the model wants before a question, or {'query': …, 'document': …}, either of which "
    "may be left out."
)
