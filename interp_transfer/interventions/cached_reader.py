"""Read a site of a model for sequences that grow and may change at their ends, with a KV cache.

Sequences are compared by their tokens, so the cache is never out of date: the tokens of each text that are unchanged stay in
the cache, and the others are read again. Rows of a batch change by different lengths. To share one cache, every row reads as
many tokens as the row that needs most, and the cached columns of each row are moved to where left padding would have put them.
Keys contain their position, and no column between two tokens is empty, so sliding windows stay correct.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp_transfer.activations.capture import forward, pad, pad_token, reading, token_rows
from interp_transfer.models.bypass import bypassed
from interp_transfer.models.exclusive import exclusive
from interp_transfer.models.hooked_model import HookedModel, context_length, device_of, huggingface_model
from interp_transfer.models.sites import hook_points, split_sites


@dataclass
class CachedReader:
    """Activations of one model at one site, and the sequences that it has read.

    Attributes:
        model: the model that reads.
        site: hook-point name, or several sites side by side (``sites.join_sites``).
        cached: keep keys and values from call to call. Without it, or if the model is no bridge, a sequence that changes is
            read again as a whole: slower, and equal up to rounding.
        ids: the tokens that were read of each text.
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
        """Return the activations of each sequence, a row for each token; rows of later tokens that were read before may follow.

        Args:
            sequences: token ids, one sequence for each text, in the same order as in earlier calls. Only tokens after the
                common beginning with the text's previous sequence are read.

        Raises:
            ValueError: for a sequence that exceeds the context, or a site that never fires or has no row for each token.
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
        common = [_common_beginning(old, new) for old, new in zip(self.ids, sequences, strict=True)]
        # A sequence that is a beginning of what was read needs nothing new.
        wanted = [old if n == len(new) else list(new) for old, new, n in zip(self.ids, sequences, common, strict=True)]
        if wanted == self.ids:
            return self.rows
        common = [len(old) if old is new else n for old, new, n in zip(self.ids, wanted, common, strict=True)]
        before, self.ids = self.ids, []  # if reading fails, the next call starts again
        if self.cached and huggingface_model(self.model) is not None:
            self._read_new(before, wanted, common)
        else:
            self._read_all(wanted)
        self.ids = wanted
        return self.rows

    @cached_property
    def limit(self) -> int:
        """The model's context length."""
        return context_length(self.model)

    @cached_property
    def _points(self) -> dict[str, Any]:
        return hook_points(self.model, split_sites(self.site))  # once, because a bridge builds its list at every call

    def _read_all(self, wanted: list[list[int]]) -> None:
        tokens, real = pad([ids or [0] for ids in wanted], pad_token(self.model))
        device = device_of(self.model)
        bridge = huggingface_model(self.model) is not None  # a HookedTransformer needs no mask for padding on the right
        read: dict[str, Tensor] = {}
        with exclusive(self.model), reading(self._points, read, stop=True):
            forward(self.model, tokens.to(device), real.long().to(device) if bridge else None)
        out = self._checked(read, tokens)
        self.rows = [out[i, : len(ids)] for i, ids in enumerate(wanted)]

    def _read_new(self, before: list[list[int]], wanted: list[list[int]], common: list[int]) -> None:
        from transformers import DynamicCache

        # An empty text gets a token, because a row of padding alone would attend to nothing.
        texts = [ids or [0] for ids in wanted]
        width = max(map(len, texts))
        new = max(len(ids) - n for ids, n in zip(texts, common, strict=True))
        if self._cache is None or not self._cache.get_seq_length():  # stays empty if the site is before all attention layers
            self._cache, new = DynamicCache(), width
        lengths = torch.tensor([len(ids) for ids in texts])
        self._align_cache(torch.tensor([len(ids or [0]) for ids in before]), lengths, width - new)
        tokens, _ = pad([ids[-new:] for ids in texts], pad_token(self.model), left=True)
        mask = torch.arange(width) >= (width - lengths)[:, None]
        position = (mask.long().cumsum(dim=1) - 1).clamp(min=0)[:, width - new :]
        device = device_of(self.model)
        inputs = {"input_ids": tokens, "attention_mask": mask.long(), "position_ids": position}
        read: dict[str, Tensor] = {}
        # transformers derives the mask of all layers from the first layer's cache, so stopping early does no harm.
        with exclusive(self.model), reading(self._points, read, stop=True), bypassed(self.model):
            huggingface_model(self.model)(
                **{name: value.to(device) for name, value in inputs.items()}, past_key_values=self._cache, use_cache=True
            )
        out = self._checked(read, tokens)
        for i, (ids, rows) in enumerate(zip(wanted, self.rows, strict=True)):
            fresh = out[i, -min(new, len(ids)) :] if ids else out[i, :0]
            kept = len(ids) - len(fresh)
            self.rows[i] = torch.cat([rows[:kept], fresh]) if kept else fresh

    def _align_cache(self, old: Int[Tensor, " row"], new: Int[Tensor, " row"], kept: int) -> None:
        """Cut the cache to ``kept`` columns, and move each row from the left padding of old lengths to that of new ones."""
        if not kept:
            from transformers import DynamicCache

            self._cache = DynamicCache()
            return
        shift = (old.max() - old) - (new.max() - new)
        columns = (torch.arange(kept) + shift[:, None]).clamp(0, int(old.max()) - 1)  # clamped ones are padding
        unmoved = not shift.any()
        for layer in self._cache.layers:
            if not layer.is_initialized:
                continue
            for name in ("keys", "values"):
                tensor = getattr(layer, name)
                if unmoved:
                    setattr(layer, name, tensor[:, :, :kept])
                else:
                    index = columns.to(tensor.device)[:, None, :, None].expand(-1, tensor.shape[1], -1, tensor.shape[3])
                    setattr(layer, name, tensor.gather(2, index))

    def _checked(self, read: dict[str, Tensor], tokens: Tensor) -> Float[Tensor, "row column d"]:
        return torch.cat([token_rows(site, read, tokens) for site in self._points], dim=2)


def _common_beginning(old: Sequence[int], new: Sequence[int]) -> int:
    """How many tokens the common beginning of two sequences has."""
    short = min(len(old), len(new))
    if list(old[:short]) == list(new[:short]):
        return short
    return next(i for i in range(short) if old[i] != new[i])
