"""A second model that reads along: its activations at a site, for sequences that grow and may change at their ends.

The model keeps its own KV cache. What has been read is known by its tokens, so a cache is never out of step: for each text,
the tokens that are still the same stay in the cache and the others are read anew. The rows of a batch grow and change by
different lengths; so that they stay in one cache, every row reads as many tokens anew as the row that needs most, and the
cached columns of each row are moved to where left padding would have put them. Keys carry their position with them, and no
column lies empty between two tokens, so sliding windows stay what they were.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp_transfer.activations.capture import forward, pad, pad_token, reading
from interp_transfer.models.bypass import bypassed
from interp_transfer.models.hooked_model import HookedModel, context_length, device_of, huggingface_model
from interp_transfer.models.sites import apart, hook_points


@dataclass
class ReadAlong:
    """One model, one site, and what it has read so far; a cache that may be thrown away at any time.

    Attributes:
        model: who reads.
        site: where its activations are read, or several sites side by side (``sites.together``).
        cached: keep keys and values from call to call. Without it, or where the model is no bridge, whole sequences are read
            anew whenever they change: slower, and the same to rounding.
        ids: what has been read of each text.
        rows: the activations of each text.
    """

    model: HookedModel
    site: str
    cached: bool = True
    ids: list[list[int]] = field(default_factory=list)
    rows: list[Float[Tensor, "token d"]] = field(default_factory=list)
    _cache: Any = None

    @torch.no_grad()
    def read(self, sequences: Sequence[Sequence[int]]) -> list[Float[Tensor, "token d"]]:
        """Activations of each sequence, a row for each token; there may be more of them, from what was read before.

        Args:
            sequences: token ids, one sequence for each text, in the same order as in earlier calls. What begins like a
                sequence of an earlier call costs only its end.

        Raises:
            ValueError: for a sequence that exceeds the context, a site that never fires or has no row for each token.
        """
        if len(sequences) != len(self.ids):
            self.ids, self.rows, self._cache = [[] for _ in sequences], [torch.empty(0, 0)] * len(sequences), None
        limit = self.limit
        for index, ids in enumerate(sequences):
            if len(ids) > limit:
                raise ValueError(
                    f"the source reads text {index} as {len(ids)} tokens, its context is {limit}: shorten the prompt or "
                    "max_new_tokens"
                )
        shared = [_shared(old, new) for old, new in zip(self.ids, sequences, strict=True)]
        wanted = [old if n == len(new) else list(new) for old, new, n in zip(self.ids, sequences, shared, strict=True)]
        if wanted == self.ids:
            return self.rows
        shared = [len(old) if old is new else n for old, new, n in zip(self.ids, wanted, shared, strict=True)]
        before, self.ids = self.ids, []  # if reading fails, nothing is known any more
        if self.cached and huggingface_model(self.model) is not None:
            self._read_on(before, wanted, shared)
        else:
            self._read_anew(wanted)
        self.ids = wanted
        return self.rows

    @cached_property
    def limit(self) -> int:
        """Tokens that the model can read of a text."""
        return context_length(self.model)

    @cached_property
    def _points(self) -> dict[str, Any]:
        return hook_points(self.model, apart(self.site))  # once, because a bridge lists its hook points anew each time

    def _read_anew(self, wanted: list[list[int]]) -> None:
        tokens, real = pad([ids or [0] for ids in wanted], pad_token(self.model))
        device = device_of(self.model)
        bridge = huggingface_model(self.model) is not None  # the others need no mask for padding on the right
        read: dict[str, Tensor] = {}
        with reading(self._points, read, stop=True):
            forward(self.model, tokens.to(device), real.long().to(device) if bridge else None)
        out = self._checked(read, tokens)
        self.rows = [out[i, : len(ids)] for i, ids in enumerate(wanted)]

    def _read_on(self, before: list[list[int]], wanted: list[list[int]], shared: list[int]) -> None:
        from transformers import DynamicCache

        # An empty text is given a token: a row of nothing but padding attends to nothing.
        texts = [ids or [0] for ids in wanted]
        width = max(map(len, texts))
        new = max(len(ids) - n for ids, n in zip(texts, shared, strict=True))
        if self._cache is None or not self._cache.get_seq_length():  # empty where the site comes before any attention
            self._cache, new = DynamicCache(), width
        lengths = torch.tensor([len(ids) for ids in texts])
        self._move(torch.tensor([len(ids or [0]) for ids in before]), lengths, width - new)
        tokens, _ = pad([ids[-new:] for ids in texts], pad_token(self.model), left=True)
        mask = torch.arange(width) >= (width - lengths)[:, None]
        position = (mask.long().cumsum(dim=1) - 1).clamp(min=0)[:, width - new :]
        device = device_of(self.model)
        given = {"input_ids": tokens, "attention_mask": mask.long(), "position_ids": position}
        read: dict[str, Tensor] = {}
        # transformers makes a mask for all layers from the first one's cache, so it need not know that reading stops early.
        with reading(self._points, read, stop=True), bypassed(self.model):
            huggingface_model(self.model)(
                **{name: value.to(device) for name, value in given.items()}, past_key_values=self._cache, use_cache=True
            )
        out = self._checked(read, tokens)
        for i, (ids, rows) in enumerate(zip(wanted, self.rows, strict=True)):
            fresh = out[i, -min(new, len(ids)) :] if ids else out[i, :0]
            kept = len(ids) - len(fresh)
            self.rows[i] = torch.cat([rows[:kept], fresh]) if kept else fresh

    def _move(self, old: Int[Tensor, " row"], new: Int[Tensor, " row"], kept: int) -> None:
        """Cut the cache to ``kept`` columns, each row's tokens where they belong among the longer ones."""
        if not kept:
            from transformers import DynamicCache

            self._cache = DynamicCache()
            return
        shift = (old.max() - old) - (new.max() - new)
        columns = (torch.arange(kept) + shift[:, None]).clamp(0, int(old.max()) - 1)  # beyond them is padding
        straight = not shift.any()
        for layer in self._cache.layers:
            if not layer.is_initialized:
                continue
            for name in ("keys", "values"):
                held = getattr(layer, name)
                if straight:
                    setattr(layer, name, held[:, :, :kept])
                else:
                    index = columns.to(held.device)[:, None, :, None].expand(-1, held.shape[1], -1, held.shape[3])
                    setattr(layer, name, held.gather(2, index))

    def _checked(self, read: dict[str, Tensor], tokens: Tensor) -> Float[Tensor, "row column d"]:
        found = [_rows_at(site, read, tokens) for site in self._points]
        return found[0] if len(found) == 1 else torch.cat(found, dim=2)


def _rows_at(site: str, read: dict[str, Tensor], tokens: Tensor) -> Float[Tensor, "row column d"]:
    if site not in read:
        raise ValueError(f"hook {site!r} never fired in the source (a use_... switch may be off)")
    out = read[site]
    if out.ndim >= 3 and out.shape[0] == 1:  # position embeddings come once for the whole batch
        out = out.expand(len(tokens), *out.shape[1:])
    if out.ndim < 3 or tuple(out.shape[:2]) != tuple(tokens.shape):
        raise ValueError(f"{site!r} has shape {tuple(out.shape)}, not (text, token, ...): it has no row for each token")
    return out.flatten(2)


def _shared(old: Sequence[int], new: Sequence[int]) -> int:
    """How many tokens two sequences begin with alike."""
    short = min(len(old), len(new))
    if list(old[:short]) == list(new[:short]):
        return short
    return next(i for i in range(short) if old[i] != new[i])
