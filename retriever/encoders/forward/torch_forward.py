"""A network's operations on torch tensors, the texts of a batch one after the other.

Without padding between texts, everything but attention computes exactly the tokens there are.
Attention keeps texts apart by torch's variable-length kernel. That kernel takes no bias on the
scores; for a network that has one, attention pads to the longest text of the batch, whose texts are
of similar length. Takes torch as an argument. Must not know what becomes of results.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from retriever.encoders.forward.batching import Packed
from retriever.encoders.forward.transformer import Network, outputs

if TYPE_CHECKING:
    from numpy.typing import NDArray

_log = logging.getLogger("retriever")
# The efficient attention kernel wants each row of a bias to begin at a multiple of so many numbers.
_ALIGNED = 16
_PROBE = (5, 3)  # the lengths, in tokens, of the texts that a kernel is tried on
_NEAR = 0.05  # how far a kernel may be off there; bfloat16 rounds to a few thousandths


def current(torch: Any, device: Any) -> contextlib.AbstractContextManager[Any]:
    """Return a context in which torch's streams and events are those of the device."""
    if device.type != "cuda":
        return contextlib.nullcontext()
    context: contextlib.AbstractContextManager[Any] = torch.cuda.device(device)
    return context


def forward(
    torch: Any,
    network: Network,
    weights: Weights,
    attention: Attention,
    packed: Packed,
    modes: tuple[str, ...],
) -> Any:
    """Start computing a batch on the device.

    Returns:
        The pooled vectors side by side, float32 `(texts, len(modes) * hidden)`; without modes
        those of all tokens, `(tokens, hidden)`, in the precision of the weights.
    """
    batch = _Batch(torch, packed, attention, weights.device)
    found = outputs(network, _Arithmetic(torch, weights, batch, attention), modes)
    return torch.cat([one.float() for one in found], dim=1) if modes else found[0]


class Weights:
    """A network's weights on the device.

    The weights of a layer's query, key and value projections are one matrix: one large product is
    faster than three.
    """

    def __init__(self, torch: Any, network: Network, precision: str, device: Any) -> None:
        self.dtype = getattr(torch, precision)
        self.device = device
        self.hidden = network.architecture.hidden
        parts: dict[str, list[NDArray[np.float32]]] = {}
        for name, array in network.weights.items():
            layer, _, rest = name.partition(".")
            kind, _, part = rest.partition(".")
            joins = kind in ("query", "key", "value")
            # `tensor_names` lists query, key and value in this order, which `projections` relies
            # on.
            parts.setdefault(f"{layer}.projections.{part}" if joins else name, []).append(array)
        self._named = {
            name: torch.from_numpy(np.concatenate(arrays) if arrays[1:] else arrays[0]).to(
                device, self.dtype
            )
            for name, arrays in parts.items()
        }

    def __getitem__(self, name: str) -> Any:
        return self._named[name]

    def get(self, name: str) -> Any:
        """Return a tensor, or None where the network has none of that name."""
        return self._named.get(name)


class _Batch:
    """A packed batch on the device, where its arrays arrive in one copy from pinned memory.

    Attributes:
        texts: The number of texts.
        longest: The number of tokens of the longest text.
        ids: int32 `(tokens,)`.
        positions: int32 `(tokens,)`.
        types: int32 `(tokens,)`, or None if all are 0.
        starts: int32 `(texts + 1,)`, as in `Packed`.
        count: 0, 1, …, int32 `(tokens + 1,)`.
        rows: For attention that pads texts of several lengths, the position in `ids` of the token
            that fills each cell of `(texts, longest)`, int32 `(texts * longest,)`; else None.
        places: The cell of each token, int32 `(tokens,)`; None as `rows`.
    """

    def __init__(self, torch: Any, packed: Packed, attention: Attention, device: Any) -> None:
        self.texts, self.longest = len(packed.starts) - 1, packed.longest
        tokens = len(packed.ids)
        parts = {
            "ids": packed.ids,
            "positions": packed.positions,
            "starts": packed.starts,
            "count": np.arange(tokens + 1, dtype=np.int32),
        }
        if packed.types is not None:
            parts["types"] = packed.types
        if attention.pads and tokens < self.texts * self.longest:
            columns = np.arange(self.longest, dtype=np.int32)
            last = np.diff(packed.starts)[:, None] - 1
            # The cells after the end of a text repeat its last token; the mask hides them.
            rows = packed.starts[:-1, None] + np.minimum(columns, last)
            parts["rows"] = rows.ravel()
            parts["places"] = np.flatnonzero((columns <= last).ravel()).astype(np.int32)
        sizes = [len(part) for part in parts.values()]
        host = torch.empty(sum(sizes), dtype=torch.int32, pin_memory=device.type == "cuda")
        np.concatenate(list(parts.values()), out=host.numpy())
        moved = dict(zip(parts, host.to(device, non_blocking=True).split(sizes), strict=True))
        self.ids, self.positions, self.starts, self.count = (
            moved[name] for name in ("ids", "positions", "starts", "count")
        )
        self.types, self.rows, self.places = map(moved.get, ("types", "rows", "places"))


class _Arithmetic:
    """`Operations` on tensors `(tokens of all texts, hidden)`."""

    def __init__(self, torch: Any, weights: Weights, batch: _Batch, attention: Attention) -> None:
        self._function = torch.nn.functional
        self._weights = weights
        self._batch = batch
        self._attend = attention
        self._mask = attention.mask(weights, batch)
        self._asks_first = False

    def embeddings(self) -> Any:
        batch, look_up = self._batch, self._function.embedding
        x = look_up(batch.ids, self._weights["words"])
        x += look_up(batch.positions, self._weights["positions"])
        types = self._weights.get("types")
        if types is not None:
            x += types[0] if batch.types is None else look_up(batch.types, types)
        return x

    def linear(self, x: Any, name: str) -> Any:
        return self._function.linear(
            x, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        )

    def projections(self, asking: Any, x: Any, layer: int) -> tuple[Any, Any, Any]:
        # The rows of the joint matrix are those of query, key and value, in this order.
        if asking is x:
            query, key, value = self.linear(x, f"{layer}.projections").chunk(3, dim=-1)
            return query, key, value
        linear, hidden = self._function.linear, self._weights.hidden
        weight, bias = (self._weights[f"{layer}.projections.{part}"] for part in ("weight", "bias"))
        key, value = linear(x, weight[hidden:], bias[hidden:]).chunk(2, dim=-1)
        return linear(asking, weight[:hidden], bias[:hidden]), key, value

    def norm(self, x: Any, name: str, epsilon: float) -> Any:
        weight, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        return self._function.layer_norm(x, (x.shape[-1],), weight, bias, epsilon)

    def add(self, x: Any, y: Any) -> Any:
        return x + y

    def activation(self, x: Any, kind: str) -> Any:
        if kind == "relu":
            return self._function.relu(x)
        return self._function.gelu(x, approximate="tanh" if kind == "gelu_tanh" else "none")

    def attention(self, query: Any, key: Any, value: Any, heads: int) -> Any:
        query, key, value = (x.unflatten(-1, (heads, -1)) for x in (query, key, value))
        found = self._attend(
            self._batch, query, key, value, self._mask, asks_first=self._asks_first
        )
        return found.flatten(-2)

    def first(self, x: Any) -> Any:
        self._asks_first = True
        return x.index_select(0, self._batch.starts[:-1])

    def pool(self, x: Any, mode: str) -> Any:
        # embedding_bag reduces runs of rows, here those of each text, without padding them: row i
        # of the table is token i.
        batch = self._batch
        kind = mode if mode in ("mean", "max") else "sum"
        pooled = self._function.embedding_bag(
            batch.count[:-1], x.float(), offsets=batch.starts[:-1], mode=kind
        )
        if mode != "mean_sqrt_len_tokens":
            return pooled
        return pooled / batch.starts.diff().sqrt()[:, None]


# ---- attention


class Attention(Protocol):
    """A method of computing attention within each text of a batch.

    Attributes:
        name: `packed`, `padded`, or `plain`, for which torch chooses the kernel.
        pads: Whether texts are padded to the longest of their batch.
    """

    name: str
    pads: bool

    def mask(self, weights: Weights, batch: _Batch) -> Any:
        """Return what the attention of every layer needs of a batch; computed once for all."""
        ...

    def __call__(
        self, batch: _Batch, query: Any, key: Any, value: Any, mask: Any, *, asks_first: bool
    ) -> Any:
        """Return a tensor like `query`; all are `(tokens, heads, width)`.

        With `asks_first`, `query` has only the first token of each text.
        """
        ...


class _Packed:
    """torch's variable-length attention, for half precision, without bias, on recent GPUs."""

    name, pads = "packed", False

    def __init__(self) -> None:
        """Import it. An older torch has none, and an older GPU fails when it is tried."""
        from torch.nn.attention.varlen import varlen_attn

        self._attend: Any = varlen_attn

    def mask(self, weights: Weights, batch: _Batch) -> None:
        return None

    def __call__(
        self, batch: _Batch, query: Any, key: Any, value: Any, mask: Any, *, asks_first: bool
    ) -> Any:
        attend = self._attend
        starts, longest = batch.starts, batch.longest
        if asks_first:
            ones = batch.count[: batch.texts + 1]
            return attend(query, key, value, ones, starts, 1, longest)
        return attend(query, key, value, starts, starts, longest, longest)


class _Padded:
    """Attention over `(texts, heads, longest, width)`; tokens are packed before and after it."""

    pads = True

    def __init__(self, torch: Any, name: str, attend: Callable[..., Any]) -> None:
        self.name = name
        self._torch = torch
        self._attend = attend

    def mask(self, weights: Weights, batch: _Batch) -> Any:
        """Return what is added to scores, `(1 or texts, 1 or heads, 1 or longest, longest)`.

        It is -inf for padding, plus the relative bias if the network has one; None without both.
        """
        torch, device = self._torch, weights.device
        # Rows are made wider than needed and sliced at the end, so that each begins at the
        # alignment that the kernels want.
        wide = -(-batch.longest // _ALIGNED) * _ALIGNED
        columns = torch.arange(wide, dtype=torch.int32, device=device)
        mask = bias = None
        if batch.rows is not None:
            mask = torch.zeros((batch.texts, wide), dtype=weights.dtype, device=device)
            mask.masked_fill_(columns >= batch.starts.diff()[:, None], -torch.inf)
            mask = mask[:, None, None]
        table = weights.get("relative")
        if table is not None:
            # The table is by distance, key minus query, with distance 0 in its middle column.
            # Columns beyond `longest` would read past its end; they are sliced off below.
            middle, last = table.shape[1] // 2, table.shape[1] - 1
            distance = middle + columns - columns[: batch.longest, None]
            bias = table.index_select(1, distance.clamp_(max=last).flatten())
            bias = bias.view(1, -1, batch.longest, wide)
        both = [x for x in (mask, bias) if x is not None]
        return sum(both[1:], both[0])[..., : batch.longest] if both else None

    def __call__(
        self, batch: _Batch, query: Any, key: Any, value: Any, mask: Any, *, asks_first: bool
    ) -> Any:
        def laid_out(x: Any, *, moves: bool = True) -> Any:
            # Texts of one length are a rectangle already; others are copied into one.
            if moves and batch.rows is not None:
                x = x.index_select(0, batch.rows)
            return x.unflatten(0, (batch.texts, -1)).transpose(1, 2)

        query = laid_out(query, moves=not asks_first)
        key, value = laid_out(key), laid_out(value)
        if mask is not None:
            rows = mask[:, :, :1] if asks_first else mask
            mask = rows.expand(batch.texts, query.shape[1], query.shape[2], key.shape[2])
        found = self._attend(query, key, value, mask).transpose(1, 2).flatten(0, 1)
        if asks_first or batch.places is None:
            return found
        return found.index_select(0, batch.places)


def choose_attention(torch: Any, network: Network, weights: Weights) -> Attention:
    """Return the fastest attention that the device supports and that is right on two texts.

    Kernels differ between versions of torch and kinds of GPU, and a wrong one need not fail.
    """
    plain = _Padded(torch, "plain", torch.nn.functional.scaled_dot_product_attention)
    if weights.device.type != "cuda":
        return plain

    def efficient(query: Any, key: Any, value: Any, mask: Any) -> Any:
        # Called by its own name, because torch may otherwise choose cuDNN's kernel, which makes a
        # plan for every new shape. To rule that out there is only a setting of the whole process.
        attend = torch.ops.aten._scaled_dot_product_efficient_attention
        return attend(query, key, value, mask, False)[0]

    kinds: dict[str, Callable[[], Attention]] = {
        "padded": lambda: _Padded(torch, "padded", efficient)
    }
    if not network.architecture.buckets and weights.dtype != torch.float32:
        kinds = {"packed": _Packed, **kinds}
    wanted = _tried(torch, network, weights, plain)
    for name, make in kinds.items():
        try:
            attention = make()
            off = float((_tried(torch, network, weights, attention) - wanted).abs().max())
        except (ImportError, RuntimeError, AttributeError, TypeError) as error:
            _log.info("There is no %s attention here: %s", name, error)
            continue
        if off < _NEAR:
            return attention
        _log.warning("The %s attention here is wrong by %.3f; it is not used.", name, off)
    return plain


def _tried(torch: Any, network: Network, weights: Weights, attention: Attention) -> Any:
    """Return the output of an attention for short texts with random vectors, float32."""
    shape = network.architecture
    starts = np.cumsum((0, *_PROBE), dtype=np.int32)
    ids = np.zeros(starts[-1], np.int32)
    numbers = np.random.default_rng(0).standard_normal((len(ids), 3 * shape.hidden), np.float32)
    packed = Packed(ids, ids, None, starts, max(_PROBE))
    with torch.inference_mode(), current(torch, weights.device):
        batch = _Batch(torch, packed, attention, weights.device)
        operations = _Arithmetic(torch, weights, batch, attention)
        x = torch.from_numpy(numbers).to(weights.device, weights.dtype)
        query, key, value = x.chunk(3, dim=-1)
        return operations.attention(query, key, value, shape.heads).float()
