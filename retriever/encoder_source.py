"""The encoder of an index: found when it is first needed, and checked before it is believed."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from retriever.arguments import path
from retriever.config import Chunking
from retriever.encoders import canaries
from retriever.encoders.checked import CheckedEncoder
from retriever.encoders.checkpoint import resolve
from retriever.encoders.checkpoint.bi_encoder import is_model_directory
from retriever.encoders.computing import LEAST_COSINE, Computing
from retriever.encoders.model_options import ROLES, ModelOptions
from retriever.encoders.plugged import plug
from retriever.encoders.protocol import Encoder
from retriever.errors import InvalidConfig, ModelMismatch, ModelUnavailable
from retriever.storage import catalog, records
from retriever.storage.records import Space, StoredChunking
from retriever.storage.vector_formats import DENSE
from retriever.storage.writer import Writer

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Model: TypeAlias = "str | os.PathLike[str] | Encoder | SentenceTransformer"
_log = logging.getLogger("retriever")
# Rounding differs between processors: by so much may int8's cosine fall below the recorded one.
_SLACK = 0.005
_LEAST = 0.999


class EncoderSource:
    """Gives an index its encoder. Nothing heavy is imported until `encoder_for` is called.

    Args:
        model: A name, a path or an encoder; None means the name that the index was built with.
        allow_download: Whether a missing model may be fetched from the hub.
        computing: Where and in which numbers a model that is named is computed; an `Encoder`
            decides for itself.
        trust: Whether a name or path that an index gives may be looked for and loaded.
        options: Of a model that is named; without any, those that the index records.

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
        trust: bool = True,
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
        self._trust = trust
        self._allow_download = allow_download
        self._encoder: CheckedEncoder | None = None
        self._predecessor: EncoderSource | None = None
        # By what an encoder is and does: ids of spaces are the same in every index.
        self._checked: dict[bytes, float] = {}
        self._lock = threading.RLock()

    def check_identity(self, space: Space) -> None:
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
            found = resolve.resolve_model(
                self._model,
                allow_download=self._allow_download,
                options=self._options.over(ModelOptions.recorded(space.identity)),
            )
            resolve.check_identity(space.identity, found.identity)
        else:
            resolve.check_identity(space.identity, self._model.identity)
            canaries.check_dimension(self._model, space.dimension)

    def _check_options(self, space: Space) -> None:
        """Refuse options that are not those of the index, whose model need not be looked for."""
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

    def encoder(
        self, fallback: str | None = None, recorded: ModelOptions | None = None
    ) -> CheckedEncoder:
        """Return the encoder; `fallback` names the model when none was given.

        Args:
            fallback: The name that an index gives.
            recorded: The options that it gives.

        Raises:
            ModelUnavailable: The model is not on this machine, or only an index that is not
                trusted names it.
        """
        with self._lock:
            if self._encoder is None:
                self._encoder = self._load(fallback, self._options.over(recorded or ModelOptions()))
            return self._encoder

    def _load(self, fallback: str | None, options: ModelOptions) -> CheckedEncoder:
        model = self._model if self._model is not None else fallback
        if model is None:
            raise ModelUnavailable("No model was named.", hint="Pass model=.")
        if self._model is None and not self._trust:
            raise ModelUnavailable(
                f"The model {model!r} is named by an index that is not trusted.",
                hint="Name the model yourself: pass model= (--model), or search with vector=.",
            )
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

    def of_model(
        self, model: Model, *, allow_download: bool, options: ModelOptions
    ) -> EncoderSource:
        """Return a source of another model, computed likewise."""
        computing = self._computing
        return EncoderSource(
            model, allow_download=allow_download, computing=computing, options=options
        )

    def name_of(self, space: Space) -> str | Path:
        """Return what the model of a space can be found by.

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

    def taking_over_from(self, other: EncoderSource) -> EncoderSource:
        """Return this source, which asks another one about spaces that are not its own yet."""
        if other is not self:
            self._predecessor = other
            other._predecessor = None
        return self

    def encoder_for(self, space: Space) -> CheckedEncoder:
        """Return the encoder of a space: same identity, and the canaries come out the same.

        Raises:
            ModelMismatch: The encoder is not the one that the space was built with.
            ModelUnavailable: It is not on this machine; pass `model=`.
        """
        if self._predecessor is not None and self._predecessor.knows(space):
            return self._predecessor.encoder_for(space)
        with self._lock:  # no thread is given an encoder that another one is just refusing
            known = space.content in self._checked
            encoder = self.encoder_like(space)
            return encoder if known else self._check(encoder, space)

    def encoder_like(self, space: Space) -> CheckedEncoder:
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

    def _encoder_named_by(self, space: Space) -> CheckedEncoder:
        """Return the encoder; where an index alone names it and it is gone, say what may help."""
        name = str(space.identity.get("name") or "")
        if self._model is None and self._trust and not resolve.is_ours(space.identity):
            # Its name is for people: a model that happens to have the same is another one.
            called = f", {name!r}" if name else ""
            raise ModelUnavailable(
                f"This index was built with an encoder of the caller's own{called}.",
                hint="Pass it again: Index.open(path, model=…). search(vector=…) needs none.",
            )
        try:
            return self.encoder(name or None, ModelOptions.recorded(space.identity))
        except ModelUnavailable as error:
            if self._model is not None or not self._trust:
                raise
            if not Path(name).is_absolute() or is_model_directory(Path(name)):
                raise
            raise ModelUnavailable(
                f"The model of this index was in {name}, and is not there any more.",
                hint="If its directory was moved, name it where it is now: model= (--model).",
            ) from error

    def _check(self, encoder: CheckedEncoder, space: Space) -> CheckedEncoder:
        """Return the encoder once its canaries come out the same; `auto` may need float32."""
        try:
            self._checked[space.content] = _cosine(encoder, space)
        except ModelMismatch as error:
            if not encoder.is_automatic or precision_of(encoder) == "float32":
                raise
            _log.warning("%s Going on in float32.", error.message)
            exact = encoder.in_float32()
            self._checked[space.content] = _cosine(exact, space)
            self._encoder = encoder = exact
        return encoder

    def encoder_to_write(self, writer: Writer, space: Space) -> CheckedEncoder:
        """Return `encoder_for(space)`, its precision recorded before vectors of it are stored."""
        encoder = self.encoder_for(space)
        name, cosine = precision_of(encoder), self._checked.get(space.content)
        recorded = catalog.precisions(writer.connection)
        mine = recorded.get(str(space.id), {})
        says = encoder.precision is not None
        if says and cosine is not None and cosine < mine.get(name, 2.0):
            known = {str(one.id) for one in catalog.spaces(writer.connection)}
            kept = {key: value for key, value in recorded.items() if key in known}
            kept[str(space.id)] = {**mine, name: cosine}
            with writer.transaction() as change:
                change.put_setting(records.PRECISIONS, json.dumps(kept))
        return encoder

    def knows(self, space: Space) -> bool:
        """Return whether this source has already given an encoder for a space."""
        return space.content in self._checked


def no_encoder(space: Space) -> ModelMismatch:
    """Return the error for what needs a model, of an index that was made without one."""
    return ModelMismatch(
        f"This index holds embeddings of {space.dimension} numbers that came with its documents; "
        "it was made without a model.",
        field=records.VECTORS_ONLY,
        expected=True,
        actual=None,
        hint="Open it without model=, add documents with their embedding and search with vector=; "
        "or have a model encode the texts: rebuild(model=…, discard_embeddings=True).",
    )


def precision_of(encoder: CheckedEncoder) -> str:
    """Return what an encoder computes in; one that does not say computes in float32."""
    return encoder.precision or "float32"


def _checked(model: Any) -> str | Path | CheckedEncoder | None:
    """Return what a caller passed as `model=`: a name, a path, or an encoder that is checked."""
    if isinstance(model, str) and not model.strip():
        raise InvalidConfig(f"model is {model!r}.", hint="Pass a model's name, or its directory.")
    if model is None or isinstance(model, str | Path):
        return model
    return path(model, "model") if isinstance(model, os.PathLike) else plug(model)


def _cosine(encoder: CheckedEncoder, space: Space) -> float:
    """Return the lowest cosine of the canaries, or refuse the encoder; int8 by its own record."""
    least = _LEAST
    if precision_of(encoder) == "int8":
        least = max(LEAST_COSINE["int8"], space.precisions.get("int8", 0.0) - _SLACK)
    return canaries.check_canaries(encoder, space.canary_vectors(), minimum=least)


def space_for_vectors(dimension: int, chunking: Chunking) -> Space:
    """Return a space for embeddings that come with documents; it has no id yet."""
    return Space(
        id=0,
        chunking=StoredChunking(0, "active", chunking, {records.VECTORS_ONLY: True}),
        format=DENSE,
        state="active",
        identity={"name": "no model", records.VECTORS_ONLY: True, "dimension": dimension},
        dimension=dimension,
        canaries=b"",
    )


def cutter_of(encoder: CheckedEncoder, chunking: Chunking) -> dict[str, Any]:
    """Return what chunks depend on besides the options: the tokenizer, and the window in tokens.

    Of an encoder that a caller brought, the tokenizer is known only by the encoder's identity.
    """
    identity = encoder.identity
    tokenizer = identity.get("tokenizer")
    window = chunking.tokens or encoder.max_tokens
    if resolve.is_ours(identity) and isinstance(tokenizer, str):
        return {"tokenizer": tokenizer, "window": window}
    named = {field: value for field, value in identity.items() if field != "name"}
    return {"encoder": named, "window": window}


def new_space(encoder: CheckedEncoder, chunking: Chunking, state: str) -> Space:
    """Return a space for an encoder, its canaries encoded; it has no id yet.

    Raises:
        InvalidConfig: Its identity says that there is no encoder.
        ModelError: As the encoder.
    """
    if records.VECTORS_ONLY in encoder.identity:
        raise InvalidConfig(
            f"The identity of the encoder has {records.VECTORS_ONLY!r}, which marks an index that "
            "has none.",
            hint="Call the field something else.",
        )
    vectors = canaries.encode_canaries(encoder)
    return Space(
        id=0,
        chunking=StoredChunking(0, state, chunking, cutter_of(encoder, chunking)),
        format=DENSE,
        state=state,
        identity=dict(encoder.identity),
        dimension=encoder.dimension,
        canaries=vectors.astype("<f4").tobytes(),
    )
