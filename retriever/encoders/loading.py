"""The encoders of an index: found when one is first needed, and checked before it is used.

Owns how `model=` becomes an encoder, and how the encoder of a space is checked: by the identity
that the index recorded, and by the canaries. Must not know how an index stores what it recorded: a
space is anything that has the attributes of `RecordedSpace`.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from retriever.arguments import path
from retriever.config import VECTORS_ONLY
from retriever.encoders import canaries
from retriever.encoders.checked import CheckedEncoder
from retriever.encoders.checkpoint import resolve
from retriever.encoders.checkpoint.bi_encoder import is_model_directory
from retriever.encoders.computing import LEAST_COSINE, Computing
from retriever.encoders.model_options import ROLES, ModelOptions
from retriever.encoders.plugged import plug
from retriever.encoders.protocol import Encoder
from retriever.errors import InvalidConfig, ModelMismatch, ModelUnavailable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

Model: TypeAlias = "str | os.PathLike[str] | Encoder | SentenceTransformer"
_log = logging.getLogger("retriever")
_LEAST = 0.999
# int8 must reach the cosine that the index recorded less this: processors differ in rounding.
_SLACK = 0.005


class RecordedSpace(Protocol):
    """What an index recorded of the encoder that the vectors of a space are from.

    Attributes:
        identity: The encoder's identity, a JSON object.
        dimension: The length of a vector.
        precisions: The precisions that vectors were computed in, with the lowest cosine of the
            canaries in each.
        content: Equal for spaces of one encoder; ids are not, since those of every index begin
            alike.
        has_encoder: Whether there is one; otherwise embeddings came with the documents.
    """

    @property
    def identity(self) -> Mapping[str, Any]: ...  # noqa: D102
    @property
    def dimension(self) -> int: ...  # noqa: D102
    @property
    def precisions(self) -> Mapping[str, float]: ...  # noqa: D102
    @property
    def content(self) -> bytes: ...  # noqa: D102
    @property
    def has_encoder(self) -> bool: ...  # noqa: D102

    def canary_vectors(self) -> NDArray[np.float32]:
        """Return the embeddings of the canaries, float32 `(n, dimension)`."""
        ...


class Encoders:
    """The encoders of one index, by the space that they encode for.

    As a rule all spaces are given their encoder by one source. While the index is rebuilt with
    another model, its present space keeps the source that it had.

    Args:
        source: Of the model that the index was opened with.

    Attributes:
        source: Of the model that new spaces are made with.
    """

    def __init__(self, source: EncoderSource) -> None:
        self.source = source
        self._by_space: dict[bytes, EncoderSource] = {}

    def of(self, space: RecordedSpace) -> EncoderSource:
        """Return the source of a space's encoder."""
        return self._by_space.get(space.content, self.source)

    def encoder_for(self, space: RecordedSpace) -> CheckedEncoder:
        """Return the encoder of a space; see `EncoderSource.encoder_for`."""
        return self.of(space).encoder_for(space)

    @contextmanager
    def switching_to(self, source: EncoderSource, present: RecordedSpace) -> Iterator[None]:
        """Make new spaces with another model, inside the block and after it unless it fails.

        Args:
            source: Of the other model.
            present: The space that is searched until the block ends.
        """
        former = self.source
        self._by_space[present.content] = former
        self.source = source
        try:
            yield
        except BaseException:
            self.source = former
            raise
        finally:
            del self._by_space[present.content]


class EncoderSource:
    """Gives the encoder of a model. Nothing heavy is imported until it is asked for.

    Args:
        model: A name, a path or an encoder; None means the name that a space was built with.
        allow_download: Whether a missing model may be fetched from the hub.
        computing: Where and in which precision a model that is named is computed; an `Encoder`
            decides for itself.
        options: Of a model that is named; without any, those that a space recorded.

    Attributes:
        model: The model as it was given; None where the index names it.

    Raises:
        InvalidConfig: The model is neither a name nor a path nor an encoder.
    """

    def __init__(
        self,
        model: Model | None,
        *,
        allow_download: bool = False,
        computing: Computing | None = None,
        options: ModelOptions | None = None,
    ) -> None:
        self.model = model
        self._options = options or ModelOptions()
        if self._options and model is not None and not isinstance(model, str | os.PathLike):
            raise InvalidConfig(
                "prompt= and dimensions= are for a model that is named; an encoder that is passed "
                "has its own.",
                hint="Leave them out, or have the encoder do it.",
            )
        self._model: str | Path | CheckedEncoder | None = _checked(model)
        self._computing = computing or Computing()
        self._allow_download = allow_download
        self._encoder: CheckedEncoder | None = None
        self._cosines: dict[bytes, float] = {}  # of the canaries, by the content of a space
        self._lock = threading.RLock()

    def of_model(
        self, model: Model, *, allow_download: bool, options: ModelOptions
    ) -> EncoderSource:
        """Return a source of another model, computed in the same way."""
        return EncoderSource(
            model, allow_download=allow_download, computing=self._computing, options=options
        )

    # ---- by what files and records say

    def check_identity(self, space: RecordedSpace) -> None:
        """Refuse a model other than the space's, reading its files but not loading it.

        Raises:
            ModelMismatch: Another model, or the same one changed; names the field.
            ModelUnavailable: It is not on this machine.
        """
        if self._model is None:
            self._check_options(space)
            return
        if not space.has_encoder:
            raise no_encoder(space)
        if isinstance(self._model, str | Path):
            # Recorded prompts and dimensions are part of the identity, so they apply here too.
            found = resolve.resolve_model(
                self._model,
                allow_download=self._allow_download,
                options=self._options.over(ModelOptions.recorded(space.identity)),
            )
            resolve.check_identity(space.identity, found.identity)
        else:
            resolve.check_identity(space.identity, self._model.identity)
            canaries.check_dimension(self._model, space.dimension)

    def _check_options(self, space: RecordedSpace) -> None:
        """Refuse options other than the recorded ones; the model need not be found for that."""
        identity = space.identity
        prompts = identity.get("prompts")
        found = prompts if isinstance(prompts, Mapping) else {}
        said: dict[str, Any] = {f"prompt of a {role}": found.get(role) for role in ROLES}
        asked: dict[str, Any] = {
            f"prompt of a {role}": text for role, text in self._options.prompts.items()
        }
        if self._options.dimensions is not None:
            asked["dimensions"], said["dimensions"] = self._options.dimensions, space.dimension
        for name, value in asked.items():
            if value != said[name]:
                raise ModelMismatch(
                    f"This index was built with the {name} {said[name]!r}, not {value!r}.",
                    field=name.partition(" ")[0],
                    expected=said[name],
                    actual=value,
                    hint="Leave the option out, or encode the index again: rebuild(model=…) with "
                    "prompt= and dimensions=.",
                )

    def name_of(self, space: RecordedSpace) -> str | Path:
        """Return the name or path that the model of a space can be found by.

        Raises:
            InvalidConfig: It is an encoder that was passed, or there is none.
        """
        if isinstance(self._model, str | Path):
            return self._model
        if self._model is not None or not resolve.is_ours(space.identity):
            raise InvalidConfig(
                "prompt= and dimensions= are for a model that is named; this index has none.",
                hint="Pass model= too.",
            )
        return str(space.identity["name"])

    # ---- encoders

    def encoder(
        self, fallback: str | None = None, recorded: ModelOptions | None = None
    ) -> CheckedEncoder:
        """Return the encoder of the model.

        Args:
            fallback: The name that an index recorded, for a source without a model.
            recorded: The options that it recorded.

        Raises:
            ModelUnavailable: The model is not on this machine.
        """
        with self._lock:
            if self._encoder is None:
                self._encoder = self._load(fallback, self._options.over(recorded or ModelOptions()))
            return self._encoder

    def _load(self, fallback: str | None, options: ModelOptions) -> CheckedEncoder:
        model = self._model if self._model is not None else fallback
        if model is None:
            raise ModelUnavailable("No model was named.", hint="Pass model=.")
        if not isinstance(model, str | Path):
            return model
        from retriever.encoders.bi_encoder import load_encoder

        encoder = load_encoder(
            model, self._computing, allow_download=self._allow_download, options=options
        )
        doubt = getattr(getattr(encoder, "description", None), "doubt", "")
        if self._model is not None and doubt:
            _log.warning("%s is %s.", model, doubt)
        return plug(encoder)

    def encoder_for(self, space: RecordedSpace) -> CheckedEncoder:
        """Return the encoder of a space: of the same identity, and with the same canaries.

        Raises:
            ModelMismatch: The encoder is not the one that the space was built with.
            ModelUnavailable: It is not on this machine; pass `model=`.
        """
        with self._lock:  # no thread may get an encoder that another thread is about to refuse
            encoder = self.encoder_like(space)
            return encoder if space.content in self._cosines else self._check(encoder, space)

    def encoder_like(self, space: RecordedSpace) -> CheckedEncoder:
        """Return the encoder of a space by its identity, whether or not the canaries agree.

        Raises:
            ModelMismatch, ModelUnavailable: As `encoder_for`.
        """
        if not space.has_encoder:
            raise no_encoder(space)
        with self._lock:
            is_named = self._model is None or isinstance(self._model, str | Path)
            if is_named and self._encoder is not None:
                with suppress(ModelMismatch):
                    resolve.check_identity(space.identity, self._encoder.identity)
                    return self._encoder
                self._encoder = None  # another process has rebuilt or replaced the index
            encoder = self._encoder_named_by(space)
            resolve.check_identity(space.identity, encoder.identity)
            return encoder

    def _encoder_named_by(self, space: RecordedSpace) -> CheckedEncoder:
        """Return the encoder; if only the index names it and it is gone, say what may help."""
        name = str(space.identity.get("name") or "")
        if self._model is None and not resolve.is_ours(space.identity):
            # The name of a caller's encoder is for people: a model of that name is another one.
            called = f", {name!r}" if name else ""
            raise ModelUnavailable(
                f"This index was built with an encoder of the caller's own{called}.",
                hint="Pass it again: Index.open(path, model=…). search(vector=…) needs none.",
            )
        try:
            return self.encoder(name or None, ModelOptions.recorded(space.identity))
        except ModelUnavailable as error:
            if self._model is not None:
                raise
            if not Path(name).is_absolute() or is_model_directory(Path(name)):
                raise
            raise ModelUnavailable(
                f"The model of this index was in {name}, and is not there any more.",
                hint="If its directory was moved, pass its present path: model= (--model).",
            ) from error

    def _check(self, encoder: CheckedEncoder, space: RecordedSpace) -> CheckedEncoder:
        """Return the encoder once the canaries agree; with `auto`, float32 may take its place."""
        try:
            self._cosines[space.content] = _cosine(encoder, space)
        except ModelMismatch as error:
            if not encoder.is_automatic or precision_of(encoder) == "float32":
                raise
            _log.warning("%s Going on in float32.", error.message)
            # It takes the place of the encoder only after float32 has passed the same check.
            exact = encoder.in_float32()
            self._cosines[space.content] = _cosine(exact, space)
            self._encoder = encoder = exact
        return encoder

    def canary_cosine(self, space: RecordedSpace) -> float | None:
        """Return the lowest cosine of a space's canaries, once its encoder has been checked."""
        return self._cosines.get(space.content)


def no_encoder(space: RecordedSpace) -> ModelMismatch:
    """Return the error for what needs a model, of an index that was made without one."""
    return ModelMismatch(
        f"This index holds embeddings of {space.dimension} numbers that came with its documents; "
        "it was made without a model.",
        field=VECTORS_ONLY,
        expected=True,
        actual=None,
        hint="Open it without model=, add documents with their embedding and search with vector=; "
        "or have a model encode the texts: rebuild(model=…, discard_embeddings=True).",
    )


def precision_of(encoder: CheckedEncoder) -> str:
    """Return the precision that an encoder computes in; float32 if it does not say."""
    return encoder.precision or "float32"


def _checked(model: Any) -> str | Path | CheckedEncoder | None:
    """Return what a caller passed as `model=`: a name, a path, or an encoder that is checked."""
    if isinstance(model, str) and not model.strip():
        raise InvalidConfig(f"model is {model!r}.", hint="Pass a model's name, or its directory.")
    if model is None or isinstance(model, str | Path):
        return model
    return path(model, "model") if isinstance(model, os.PathLike) else plug(model)


def _cosine(encoder: CheckedEncoder, space: RecordedSpace) -> float:
    """Return the lowest cosine of the canaries, or refuse the encoder."""
    least = _LEAST
    if precision_of(encoder) == "int8":
        least = max(LEAST_COSINE["int8"], space.precisions.get("int8", 0.0) - _SLACK)
    return canaries.check_canaries(encoder, space.canary_vectors(), minimum=least)
