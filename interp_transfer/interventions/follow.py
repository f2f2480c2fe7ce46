"""Replace a model's activations by those of another model that reads the same text, also during generation.

The paper validates its mappers this way (section 4): at one layer, the target holds nothing but the mapped activations of the
source, at every token of prompt and completion. The source runs next to the target, with a KV cache of its own. If both have
the same tokenizer, the source reads each new token of the target; otherwise it reads the text so far in its own tokens, and the
strategy that the mapper was fitted with pairs them (``streaming_alignment``).
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp_transfer.activations.align import DEFAULT_STRATEGY, SAME_TOKENS, find_strategy
from interp_transfer.activations.positions import Positions
from interp_transfer.interventions.cached_reader import CachedReader
from interp_transfer.interventions.intervention import Intervention
from interp_transfer.interventions.splice import Mapping, check_amount, fused
from interp_transfer.interventions.streaming_alignment import SourceReading, StreamingAligner, TargetTokens, same_tokens
from interp_transfer.interventions.transforms import At
from interp_transfer.models.bypass import is_internal_hook
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.identity import ModelIdentity, Space, identity, tokenizer_hash
from interp_transfer.models.sites import check_site, split_sites
from interp_transfer.models.tokens import tokenizer_of


@dataclass(frozen=True, repr=False, eq=False)
class Following:
    """The mapped rows of another model; tokens without a partner keep their own activation.

    It works inside ``applied`` and ``generate`` alone, because it needs to know the target model.

    Attributes:
        source: the other model.
        from_site: the site where its activations are read.
        mapping: from the source's space to the target's; None for the identity.
        strategy: how tokens are paired if the tokenizers differ.
        amount: the share of the activation that is replaced, 0 to 1.
        cached: keep the source's keys and values from step to step.
    """

    source: HookedModel
    from_site: str
    mapping: Mapping | None
    strategy: str
    amount: float
    cached: bool

    def __repr__(self) -> str:
        pairing = f"{self.strategy} where tokenizers differ"
        return f"Following({identity(self.source).name} at {self.from_site}, {pairing}, amount {self.amount:g})"

    def __call__(self, *_: Any) -> Tensor:
        """Raise an error: only the transform that ``running`` yields can be called."""
        raise ValueError("this transform follows a model step by step: use it in an Intervention, with applied() or generate()")

    @contextmanager
    def running(self, model: HookedModel) -> Iterator["_Run"]:
        """Yield the transform for one block, with its own cache of the source."""
        reader = CachedReader(_copy_without_hooks(model) if model is self.source else self.source, self.from_site, self.cached)
        same = _fingerprint(tokenizer_of(self.source)) == _fingerprint(tokenizer_of(model))
        aligner = None if same else StreamingAligner(tokenizer_of(self.source), tokenizer_of(model), self.strategy)
        yield _Run(reader, aligner, self.mapping, self.amount)


def follow(
    source: HookedModel,
    from_site: str,
    to_site: str,
    mapping: Mapping | None = None,
    positions: Positions = "all",
    *,
    strategy: str | None = None,
    amount: float | int = 1.0,
    cached: bool = True,
) -> Intervention:
    """Replace activations at ``to_site`` by those of another model, at prompt and generated tokens.

    Args:
        source: the other model, unsteered. It may be the target model itself, which then runs twice.
        from_site: the site where its activations are read; for a mapper of several sites, its ``source.site``.
        to_site: the site whose activations are replaced.
        mapping: from the source's space to the target's, rows to rows: a mapper, or any function; the identity by default. A
            mapper refuses models and sites that are not its own; ``lambda rows: mapper(rows)`` accepts any on purpose.
        positions: which tokens are replaced. Tokens without a partner in the source, such as a BOS that the source does not
            have, keep their own activation, and so do, with a warning, generated tokens beyond the source's context.
        strategy: how tokens are paired if the tokenizers differ (see ``activations.align``); by default the mapper's, else
            ``"last_so_far"``. With the same tokenizer each token is paired with itself.
        amount: a in (1 - a) own + a mapped (fused replacement); 1 replaces all of the activation.
        cached: keep the source's keys and values from step to step. Without it, whole texts are read at every step: slower,
            but needed for a source that is steered at the same time.

    Raises:
        ValueError: for an unknown site or strategy, an amount outside of 0 to 1, or a mapper of other spaces.
    """
    for site in split_sites(from_site):
        check_site(source, site)
    fitted = getattr(getattr(mapping, "card", None), "alignment", None)
    fitted = fitted if isinstance(fitted, str) and fitted != SAME_TOKENS else None
    if strategy is not None and fitted not in (None, strategy):
        raise ValueError(
            f"strategy={strategy!r}, but the mapper was fitted on tokens paired by {fitted!r}: leave strategy out, or fit anew"
        )
    chosen = strategy or fitted or DEFAULT_STRATEGY
    find_strategy(chosen)
    target = _check_spaces(mapping, source, from_site, to_site)
    following = Following(source, from_site, mapping, chosen, check_amount(amount), cached)
    return Intervention(to_site, following, positions, model=target)


def _check_spaces(mapping: Any, source: HookedModel, from_site: str, to_site: str) -> ModelIdentity | None:
    """Check the spaces of a mapper and return its target model; None for a mapping without spaces."""
    start, end = getattr(mapping, "source", None), getattr(mapping, "target", None)
    if not (isinstance(start, Space) and isinstance(end, Space)):
        return None
    here = identity(source)
    if start.model.fingerprint != here.fingerprint:
        raise ValueError(
            f"this mapper was fitted on {start.model}, the source is {here}: give that model, or pass "
            "lambda rows: mapper(rows) on purpose"
        )
    if (start.site, end.site) != (from_site, to_site):
        raise ValueError(
            f"this mapper leads from {start.site!r} to {end.site!r}, not from {from_site!r} to {to_site!r}: give its "
            "own sites, or fit one for these"
        )
    return end.model


@dataclass
class _Run:
    """A ``Following`` inside one block. Its state is what the source has read and the decoded text of each row."""

    reader: CachedReader
    aligner: StreamingAligner | None
    mapping: Mapping | None
    amount: float
    warned: bool = False

    def __call__(self, a: Float[Tensor, "n d_target"], at: At) -> Float[Tensor, "n d_target"]:
        """Return the rows, replaced where they have a partner."""
        targets, index_of_position = _targets(at)
        readings = list(map(same_tokens, targets)) if self.aligner is None else self.aligner.pair(targets)
        readings = [self._within_context(target, row) for target, row in zip(targets, readings, strict=True)]
        chosen: list[int] = []
        partners: list[Tensor] = []
        for turn in range(max(map(len, readings), default=0)):
            rows = self.reader.read([row[turn].ids if turn < len(row) else () for row in readings])
            for index, row, activations in zip(index_of_position, readings, rows, strict=True):
                if turn < len(row):
                    chosen += [index[position] for position in row[turn].positions]
                    partners.append(_partner_rows(activations, row[turn]))
        if not chosen:
            return a
        mapped = self._mapped(torch.cat(partners), a)
        index = torch.tensor(chosen, device=a.device)
        return a.index_copy(0, index, fused(a[index], mapped, self.amount))

    def _within_context(self, target: TargetTokens, readings: list[SourceReading]) -> list[SourceReading]:
        """Drop generated tokens beyond the source's context. A prompt beyond it raises an error when it is read."""
        kept = [one for one in readings if len(one.ids) <= self.reader.limit or one.positions[0] < target.prompt]
        if len(kept) < len(readings) and not self.warned:
            self.warned = True
            warnings.warn(
                f"the source's context of {self.reader.limit} tokens is full: tokens that are generated beyond it keep "
                "their own activation (lower max_new_tokens to avoid it)",
                stacklevel=2,
            )
        return kept

    def _mapped(self, rows: Float[Tensor, "n d_source"], a: Float[Tensor, "m d_target"]) -> Float[Tensor, "n d_target"]:
        if isinstance(self.mapping, nn.Module):
            weight = next(iter([*self.mapping.parameters(), *self.mapping.buffers()]), rows)
            rows = rows.to(weight.device)
        out = rows if self.mapping is None else self.mapping(rows)
        if tuple(out.shape) != (len(rows), a.shape[1]):
            raise ValueError(
                f"the mapping made {tuple(out.shape)} of rows of shape {tuple(rows.shape)}, the site has rows of width "
                f"{a.shape[1]}: give a mapping to that site"
            )
        return out.to(a)


def _partner_rows(rows: Float[Tensor, "token d"], reading: SourceReading) -> Float[Tensor, "n d"]:
    """The rows of each token's partner, or the mean over its partners."""
    first, stop = torch.tensor(reading.first), torch.tensor(reading.stop)
    if bool((stop - first == 1).all()):
        return rows[first.to(rows.device)]
    means = [rows[i:j].float().mean(dim=0) for i, j in zip(reading.first, reading.stop, strict=True)]
    return torch.stack(means).to(rows.dtype)


def _targets(at: At) -> tuple[list[TargetTokens], list[dict[int, int]]]:
    """For each row of the batch, the tokens that need partners, and the index of the selected row for each position.

    Raises:
        ValueError: if the ids of the tokens are unknown.
    """
    layout = at.layout
    index_of_position: list[dict[int, int]] = [{} for _ in layout.tokens]
    rows: Sequence[int] = at.index[0].tolist()
    for index, (row, position) in enumerate(zip(rows, at.position.tolist(), strict=True)):
        index_of_position[row][position] = index
    targets = []
    for row, positions in enumerate(index_of_position):
        ids = layout.tokens[row, layout.real[row]].tolist() if positions else []
        if any(token < 0 for token in ids):
            raise ValueError(
                "the tokens that this model reads are not known, so the source cannot read along: give token ids and not "
                "embeddings, and start the KV cache inside the block"
            )
        targets.append(TargetTokens(ids, int(layout.prompt_lengths[row]), sorted(positions)))
    return targets, index_of_position


@lru_cache(maxsize=16)
def _fingerprint(tokenizer: Any) -> str:
    """The tokenizer's fingerprint, computed once: it is slow for a large vocabulary."""
    return tokenizer_hash(tokenizer, specials=True)


def _copy_without_hooks(model: Any) -> Any:
    """A copy of a model with the same weights and without hooks, which can run inside a forward pass of the model."""
    shared = {id(x): x for x in (*model.parameters(), *model.buffers(), model.tokenizer)}
    copy = deepcopy(model, shared)
    copy.__dict__.pop("forward", None)  # replaced while interventions are applied
    for point in copy.hook_dict.values():
        point.fwd_hooks.clear()
        point.bwd_hooks.clear()
    for module in {*copy.modules(), *getattr(copy, "original_model", copy).modules()}:
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            for key in [key for key, hook in hooks.items() if not is_internal_hook(hook)]:
                del hooks[key]
    return copy
