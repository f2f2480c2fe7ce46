"""Read what the rows of a batch share once.

What they share depends on the interventions. A prompt under several settings is the same below the first site. Texts that begin
alike, as chats do with a template's system prompt, are the same up to there under every setting that does the same to each
token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interp_transfer.activations.positions import from_last
from interp_transfer.interventions.hooks import TokensRead, attached
from interp_transfer.interventions.intervention import Intervention
from interp_transfer.interventions.transforms import Add, Running, takes_at
from interp_transfer.models.blocks import can_start, recording, same_from, starting_at
from interp_transfer.models.bypass import bypassed
from interp_transfer.models.hooked_model import HookedModel, huggingface_model
from interp_transfer.models.sites import layer_of
from interp_transfer.models.tokens import tokenizer_of

WORTH_SHARING = 8
"""Fewest tokens with which texts begin alike that are read once."""


@dataclass(frozen=True)
class Below:
    """What the blocks before the first site compute.

    Attributes:
        first: the first block that an intervention changes.
        output: what the block before it returns, for each row.
        cache: their keys and values, for each row; None if nobody needs them.
    """

    first: int = 0
    output: Any = None
    cache: Any = None

    def columns(self, begin: int, end: int, rows: int | None = None) -> Any:
        """Return the output at some columns; of the first row alone, repeated, if a number of rows is given."""
        if self.output is None:
            return None
        part = self.output[:, begin:end]
        return part if rows is None else part[:1].expand(rows, -1, -1)


@dataclass(frozen=True)
class _Repeated:
    """Prompts that occur several times in a batch.

    Attributes:
        chosen: a row of each distinct prompt.
        distinct: for each row, which of the distinct prompts it is.
    """

    chosen: Int[Tensor, " prompt"]
    distinct: Int[Tensor, " row"]


def read_prompts(
    model: HookedModel,
    prompts: list[list[int]],
    tokens: Int[Tensor, "row column"],
    real: Bool[Tensor, "row column"],
    interventions: Sequence[Intervention],
    index: Int[Tensor, " row"],
) -> Any:
    """Return the KV cache of all but each prompt's last token, or None if rows share nothing.

    Args:
        model: a bridge without hooks whose cache holds keys and values alone.
        prompts: token ids.
        tokens: the same, padded on the left.
        real: which columns are no padding.
        interventions: applied together; prompts are read under them.
        index: the number of each row, for interventions that differ from row to row.
    """
    repeated = _repeated(prompts)
    tokens, real = tokens[:, :-1], real[:, :-1]
    if repeated is not None and all(from_last(i.positions) for i in interventions):
        with bypassed(model):
            cache = _read(model, tokens[repeated.chosen], real[repeated.chosen]).past_key_values
        cache.batch_select_indices(repeated.distinct)
        return cache
    if not all(map(same_everywhere, interventions)):
        return None
    below = None
    if repeated is not None and (first := first_block(model, [interventions])):
        with bypassed(model):
            below = _read_below(model, tokens, real, repeated, first)
    known = below or Below()
    beginning = read_beginning(model, tokens, real, interventions, index, known, tokens.shape[1] - 1)
    if below is None and beginning is None:
        return None
    tokens_read = TokensRead(tokenizer_of(model), real.sum(dim=1), index)
    cache = read_rest(model, tokens, real, interventions, tokens_read, known, beginning, logits_to_keep=1).past_key_values
    if below is not None:
        cache.layers[: below.first] = below.cache.layers
    return cache


def read_beginning(
    model: HookedModel,
    tokens: Int[Tensor, "row column"],
    real: Bool[Tensor, "row column"],
    interventions: Sequence[Intervention],
    index: Int[Tensor, " row"],
    below: Below,
    most: int,
) -> Any:
    """Return the KV cache of the columns with which all rows begin alike, read once for rows under the same interventions.

    Rows that are padded on the left hold fewer tokens in these columns. Returns None if texts begin alike for few tokens, or
    the model keeps less than all of them.

    Args:
        model: a bridge without hooks whose cache holds keys and values alone.
        tokens: token ids, padded on either side.
        real: which columns are no padding.
        interventions: applied together, see `same_everywhere`.
        index: the number of each row.
        below: what is known for these tokens.
        most: the largest number of columns.
    """
    begins, shortest = real.int().argmax(dim=1), int(real.sum(dim=1).min())
    columns = torch.arange(min(shortest, most), device=tokens.device)
    aligned = tokens.gather(1, begins[:, None] + columns)
    alike = int((aligned == aligned[0]).all(dim=0).int().cumprod(dim=0).sum())
    group, chosen = _groups(interventions, index)
    if alike < WORTH_SHARING or 2 * len(chosen) > len(tokens):
        return None
    texts, lengths, at = aligned[:1, :alike].expand(len(chosen), -1), torch.full((len(chosen),), alike), int(begins[0])
    tokens_read = TokensRead(tokenizer_of(model), lengths, index[chosen])
    output = below.columns(at, at + alike, len(chosen))
    with attached(model, interventions, tokens_read), bypassed(model), starting_at(model, below.first, output):
        cache = _read(model, texts, torch.ones_like(texts, dtype=torch.bool), logits_to_keep=1).past_key_values
    if any(layer.keys.shape[-2] != alike for layer in cache.layers[below.first :]):
        return None
    column = (torch.arange(alike, device=tokens.device) - begins[:, None]).clamp(min=0)
    for layer in cache.layers[below.first :]:
        layer.keys, layer.values = (_shifted(each, group, column) for each in (layer.keys, layer.values))
    # Where transformers looks up how many columns there are; blocks that do not run leave it as it is.
    cache.layers[: below.first] = cache.layers[below.first : below.first + 1] * below.first
    return cache


def read_rest(
    model: HookedModel,
    tokens: Int[Tensor, "row column"],
    real: Bool[Tensor, "row column"],
    interventions: Sequence[Intervention],
    tokens_read: TokensRead,
    below: Below,
    beginning: Any,
    **options: Any,
) -> Any:
    """Return what the transformers model returns for the columns after a beginning, or for all if it is None.

    Args:
        model: as for `read_beginning`.
        tokens: all columns.
        real: which are no padding.
        interventions: as for `read_beginning`.
        tokens_read: a new record.
        below: as for `read_beginning`.
        beginning: what it returned.
        options: of the call.
    """
    past = 0 if beginning is None else beginning.get_seq_length()
    if past:
        tokens_read.begin(tokens[:, :past], real[:, :past])
    output = below.columns(past, tokens.shape[1])
    with attached(model, interventions, tokens_read), bypassed(model), starting_at(model, below.first, output):
        return _read(model, tokens[:, past:], real, beginning, **options)


def first_block(model: HookedModel, settings: Sequence[Sequence[Intervention]]) -> int:
    """Return the first block at which any setting intervenes; 0 if it is not known, or blocks cannot be left out.

    None can where an intervention follows the model itself, which runs all of them for it.
    """
    interventions = [intervention for setting in settings for intervention in setting]
    if any(getattr(each.transform, "source", None) is model for each in interventions):
        return 0
    layers = [layer_of(site) for intervention in interventions for site in sites_of(intervention)]
    known = [layer for layer in layers if layer is not None]
    return min(known) if known and len(known) == len(layers) and can_start(model) else 0


def sites_of(intervention: Intervention) -> Sequence[str]:
    """Return the names of an intervention's sites."""
    return [intervention.site] if isinstance(intervention.site, str) else intervention.site


def same_everywhere(intervention: Intervention) -> bool:
    """Return whether an intervention does the same to every token of a row, wherever it is and whatever came before.

    None at the logits does: they are not computed for every token.
    """
    transform, where = intervention.transform, intervention.positions
    if any(site.startswith("unembed") for site in sites_of(intervention)):
        return False
    plain = isinstance(transform, Add) or not (isinstance(transform, Running) or takes_at(transform))
    return plain and isinstance(where, str) and where == "all"


def has_plain_cache(hf: Any) -> bool:
    """Return whether a model's cache holds keys and values alone, from which rows can be selected."""
    from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

    if not hf._supports_default_dynamic_cache():
        return False
    layers = DynamicCache(config=hf.config).layers
    return len(layers) > 0 and all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)


def _repeated(prompts: list[list[int]]) -> _Repeated | None:
    """The prompts that are repeated; None if few are."""
    first: dict[tuple[int, ...], int] = {}
    distinct = [first.setdefault(tuple(prompt), len(first)) for prompt in prompts]
    if 2 * len(first) > len(prompts):
        return None
    return _Repeated(torch.tensor([distinct.index(k) for k in range(len(first))]), torch.tensor(distinct))


def _read(model: HookedModel, tokens: Tensor, real: Tensor, cache: Any = None, **options: Any) -> Any:
    """Read tokens, after those that a cache holds."""
    position = (real.long().cumsum(dim=1) - 1).clamp(min=0)[:, real.shape[1] - tokens.shape[1] :]
    places = {"attention_mask": real.long(), "position_ids": position, "past_key_values": cache, "use_cache": True}
    return huggingface_model(model)(tokens, **places, **options)


def _read_below(model: HookedModel, tokens: Tensor, real: Tensor, repeated: _Repeated, first: int) -> Below | None:
    """What blocks before ``first`` compute; None if later blocks read more of them than the output of the last."""
    rows = tokens[repeated.chosen], real[repeated.chosen]
    with recording(model, first) as outputs:
        whole = _read(model, *rows, logits_to_keep=1)
    if not isinstance(outputs[0], Tensor):
        return None
    if not same_from(model, first, outputs[0], whole.logits, lambda: _read(model, *rows, logits_to_keep=1).logits):
        return None
    cache = whole.past_key_values
    del cache.layers[first:]
    cache.batch_select_indices(repeated.distinct)
    return Below(first, outputs[0][repeated.distinct.to(outputs[0].device)], cache)


def _shifted(each: Tensor, group: Tensor, column: Tensor) -> Tensor:
    """Keys or values ``(group, head, column, d)`` for each row, whose tokens begin at other columns."""
    rows = each[group.to(each.device)]
    return rows.gather(2, column.to(each.device)[:, None, :, None].expand_as(rows))


def _groups(interventions: Sequence[Intervention], index: Int[Tensor, " row"]) -> tuple[Tensor, Tensor]:
    """For each row which group of rows under the same interventions it is in, and a row of each group."""
    added = [torch.zeros(len(index), 1)]
    for transform in (i.transform for i in interventions):
        if isinstance(transform, Add):
            by_text = torch.as_tensor(transform.strength).float().cpu().reshape(-1, 1) * transform.direction.float().cpu()
            rows = index if len(by_text) > 1 else torch.zeros_like(index)
            if int(rows.max()) >= len(by_text):  # too few for the rows, which the hook refuses
                return torch.arange(len(index)), torch.arange(len(index))
            added.append(by_text[rows])
    group = torch.cat(added, dim=1).unique(dim=0, return_inverse=True)[1]
    return group, torch.stack([(group == k).nonzero()[0, 0] for k in range(int(group.max()) + 1)])
