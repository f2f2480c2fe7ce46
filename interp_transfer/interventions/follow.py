"""Replace a model's activations by those of another model that reads along, through generation too.

The paper validates its mappers so (section 4): one layer of the target holds nothing but what the mapper makes of the
source's activations, at every token of prompt and completion. Here the source runs beside the target, under a KV cache of
its own. With one tokenizer, each new token of the target is fed to the source as well; with two, the source reads the text
so far as its own tokenizer cuts it, and the strategy that the mapper was fitted with says whose activation a token gets
(`partners` tells how a growing text is paired).
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp_transfer.activations.align import DEFAULT_STRATEGY, find_strategy
from interp_transfer.activations.positions import Positions
from interp_transfer.interventions.cached_reader import ReadAlong
from interp_transfer.interventions.intervention import Intervention
from interp_transfer.interventions.splice import Mapping, check_amount, fused
from interp_transfer.interventions.streaming_alignment import Asked, Found, Partners, same_partners
from interp_transfer.interventions.transforms import At
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.identity import ModelIdentity, identity
from interp_transfer.models.sites import apart, check_site
from interp_transfer.models.tokens import tokenizer_fingerprint, tokenizer_of

SAME_TOKENS = "same_tokens"
"""How tokens are paired where the two tokenizers are alike, whatever strategy is named."""


@runtime_checkable
class Space(Protocol):
    """Where rows come from or go to."""

    @property
    def model(self) -> ModelIdentity:
        """Whose activations they are."""
        ...

    @property
    def site(self) -> str:
        """The hook point."""
        ...


@dataclass(frozen=True, repr=False, eq=False)
class Following:
    """Rows of another model that reads along, mapped; tokens that have no partner keep their own activation.

    Works inside ``applied`` and ``generate`` alone, because it has to know which model it is in.

    Attributes:
        source: the model that reads along.
        from_site: where its activations are read.
        mapping: from the source's space to the target's; None for the identity.
        strategy: how tokens are paired where the tokenizers differ.
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
        """What it does needs a source that runs, see ``running``."""
        raise ValueError("this transform follows a model step by step: use it in an Intervention, with applied() or generate()")

    @contextmanager
    def running(self, model: HookedModel) -> Iterator["_Run"]:
        """The transform for one block, with a cache of the source that lasts as long."""
        reader = ReadAlong(_twin(model) if model is self.source else self.source, self.from_site, self.cached)
        alike = _fingerprint(self.source) == _fingerprint(model)
        partners = None if alike else Partners(tokenizer_of(self.source), tokenizer_of(model), self.strategy)
        yield _Run(reader, partners, self.mapping, self.amount)


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
    """Replace activations at ``to_site`` by those of a model that reads along, at prompt and generated tokens alike.

    Args:
        source: the model that reads along, unsteered. May be the very model that is acted on, which then runs a second time.
        from_site: where its activations are read; for a mapper of several sites together, its ``source.site``.
        to_site: where they go.
        mapping: from the source's space to the target's, rows to rows: a mapper, or any function. The identity if not
            given. A mapper refuses other models and sites than its own; ``lambda rows: mapper(rows)`` takes any on purpose.
        positions: which tokens are replaced. Those that have no partner in the source, such as a BOS that the source does not
            have, keep their own activation, and so do, with a warning, generated tokens beyond the source's context.
        strategy: how tokens are paired where the tokenizers differ (see ``activations.align``); that of the mapper if it
            tells, else ``"last_so_far"``. Alike tokenizers pair each token with itself.
        amount: a in (1 - a) own + a mapped (fused replacement); 1 replaces all of the activation.
        cached: keep the source's keys and values from step to step. Without, it reads whole texts anew: slower, and for
            sources that are steered at the same time, whose positions count from where a pass begins.

    Raises:
        ValueError: for an unknown site or strategy, an amount outside of 0 to 1, or a mapper of other spaces.
    """
    for site in apart(from_site):
        check_site(source, site)
    fitted = getattr(getattr(mapping, "card", None), "alignment", None)
    fitted = fitted if isinstance(fitted, str) and fitted != SAME_TOKENS else None
    if strategy is not None and fitted not in (None, strategy):
        raise ValueError(
            f"strategy={strategy!r}, but the mapper was fitted on tokens paired by {fitted!r}: leave strategy out, or fit anew"
        )
    chosen = strategy or fitted or DEFAULT_STRATEGY
    find_strategy(chosen)
    meant_for = _check_spaces(mapping, source, from_site, to_site)
    return Intervention(
        to_site,
        Following(source, from_site, mapping, chosen, check_amount(amount), cached),
        positions,
        model=meant_for,
    )


def _check_spaces(mapping: Any, source: HookedModel, from_site: str, to_site: str) -> ModelIdentity | None:
    """The model that a mapping which knows its spaces leads to."""
    ends = getattr(mapping, "source", None), getattr(mapping, "target", None)
    if not (isinstance(ends[0], Space) and isinstance(ends[1], Space)):
        return None
    here = identity(source)
    if ends[0].model.fingerprint != here.fingerprint:
        raise ValueError(
            f"this mapper was fitted on {ends[0].model}, the source is {here}: give that model, or pass "
            "lambda rows: mapper(rows) on purpose"
        )
    if (ends[0].site, ends[1].site) != (from_site, to_site):
        raise ValueError(
            f"this mapper leads from {ends[0].site!r} to {ends[1].site!r}, not from {from_site!r} to {to_site!r}: give its "
            "own sites, or fit one for these"
        )
    return ends[1].model


@dataclass
class _Run:
    """A ``Following`` inside one block: the only state is what the source has read and what has been decoded."""

    reader: ReadAlong
    partners: Partners | None
    mapping: Mapping | None
    amount: float
    full: bool = False

    def __call__(self, a: Float[Tensor, "n d_target"], at: At) -> Float[Tensor, "n d_target"]:
        """The rows, those that have a partner replaced."""
        asked, places = _asked(at)
        found = [same_partners(one) for one in asked] if self.partners is None else self.partners.find(asked)
        found = [self._readable(*one) for one in zip(asked, found, strict=True)]
        index: list[int] = []
        pieces: list[Tensor] = []
        for turn in range(max(map(len, found), default=0)):
            rows = self.reader.read([of[turn].ids if turn < len(of) else () for of in found])
            for place, of, have in zip(places, found, rows, strict=True):
                if turn < len(of):
                    index += [place[position] for position in of[turn].positions]
                    pieces.append(_gathered(have, of[turn]))
        if not index:
            return a
        mapped = self._mapped(torch.cat(pieces), a)
        chosen = torch.tensor(index, device=a.device)
        return a.index_copy(0, chosen, fused(a[chosen], mapped, self.amount))

    def _readable(self, asked: Asked, found: list[Found]) -> list[Found]:
        """Without generated tokens that lie beyond the source's context; a prompt that does is refused when it is read."""
        within = [one for one in found if len(one.ids) <= self.reader.limit or one.positions[0] < asked.prompt]
        if len(within) < len(found) and not self.full:
            self.full = True
            warnings.warn(
                f"the source's context of {self.reader.limit} tokens is full: tokens that are generated beyond it keep "
                "their own activation (lower max_new_tokens to avoid it)",
                stacklevel=2,
            )
        return within

    def _mapped(self, rows: Float[Tensor, "n d_source"], a: Float[Tensor, "m d_target"]) -> Float[Tensor, "n d_target"]:
        if isinstance(self.mapping, nn.Module):
            own = next(iter([*self.mapping.parameters(), *self.mapping.buffers()]), rows)
            rows = rows.to(own.device)
        out = rows if self.mapping is None else self.mapping(rows)
        if tuple(out.shape) != (len(rows), a.shape[1]):
            raise ValueError(
                f"the mapping made {tuple(out.shape)} of rows of shape {tuple(rows.shape)}, the site has rows of width "
                f"{a.shape[1]}: give a mapping to that site"
            )
        return out.to(a)


def _gathered(rows: Float[Tensor, "token d"], found: Found) -> Float[Tensor, "n d"]:
    """The partners of each token, or their mean."""
    first, behind = torch.tensor(found.first), torch.tensor(found.behind)
    if bool((behind - first == 1).all()):
        return rows[first.to(rows.device)]
    means = [rows[i:j].float().mean(dim=0) for i, j in zip(found.first, found.behind, strict=True)]
    return torch.stack(means).to(rows.dtype)


def _asked(at: At) -> tuple[list[Asked], list[dict[int, int]]]:
    """What is asked of each row of the batch, and which of the selected rows each position is.

    Raises:
        ValueError: where the tokens are not known.
    """
    layout = at.layout
    places: list[dict[int, int]] = [{} for _ in layout.tokens]
    rows: Sequence[int] = at.index[0].tolist()
    for index, (row, position) in enumerate(zip(rows, at.position.tolist(), strict=True)):
        places[row][position] = index
    asked = []
    for row, place in enumerate(places):
        ids = layout.tokens[row, layout.real[row]].tolist() if place else []
        if any(token < 0 for token in ids):
            raise ValueError(
                "the tokens that this model reads are not known, so the source cannot read along: give token ids and not "
                "embeddings, and start the KV cache inside the block"
            )
        asked.append(Asked(ids, int(layout.prompt_lengths[row]), sorted(place)))
    return asked, places


_FINGERPRINTS: "WeakKeyDictionary[Any, str]" = WeakKeyDictionary()


def _fingerprint(model: HookedModel) -> str:
    """The tokenizer's fingerprint, taken once for each tokenizer: for a large vocabulary it takes a while."""
    tokenizer = tokenizer_of(model)
    if tokenizer not in _FINGERPRINTS:
        _FINGERPRINTS[tokenizer] = tokenizer_fingerprint(model)
    return _FINGERPRINTS[tokenizer]


def _twin(model: Any) -> Any:
    """The same model over again, on the same weights and without hooks, so that it can run while the first one does."""
    shared = {id(x): x for x in (*model.parameters(), *model.buffers(), model.tokenizer)}
    twin = deepcopy(model, shared)
    twin.__dict__.pop("forward", None)  # shadowed while interventions are applied
    for point in twin.hook_dict.values():
        point.fwd_hooks.clear()
        point.bwd_hooks.clear()
    inner = getattr(twin, "original_model", twin)
    for module in {*twin.modules(), *inner.modules()}:
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            for key in [key for key, hook in hooks.items() if _foreign(hook)]:
                del hooks[key]
    return twin


def _foreign(hook: Any) -> bool:
    """Whether a hook is none of those that a bridge and transformers keep on their modules for themselves."""
    return not getattr(hook, "__qualname__", "").startswith(("BlockBridge.", "install_output_"))
