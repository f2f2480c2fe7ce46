"""Fit mappers.

Every kind (`kinds`) is fitted on some texts and tested on others; the card holds the held-out figures.

Rows that are far longer than the others are left out of the fit: in some models a few activations at the first token, or at a
delimiter, are hundreds of times as long as all others ("massive activations", Sun et al. 2024), and they alone would determine
a squared error. A mapper sends each of them to the mean of the target's rows that were paired with such rows.

Nothing here holds all rows at once, so pairs in a store are fitted like those in memory: closed forms take one pass over the
rows, training takes one more pass for each epoch, and held-out rows are read once more for the figures.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields, replace
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from interp_transfer.activations.agreement import Agreement
from interp_transfer.activations.finite import all_finite
from interp_transfer.io import hashed
from interp_transfer.mapping.distributed import check_same as check_same_in_all_ranks
from interp_transfer.mapping.distributed import from_first, gathered, rank_and_size, summed
from interp_transfer.mapping.kinds import KINDS, Kind, Problem, find_kind
from interp_transfer.mapping.kl_loss import KLLoss
from interp_transfer.mapping.mappers import Card, Mapper
from interp_transfer.mapping.moments import Block, Moments, RunningMoments, all_reduced
from interp_transfer.mapping.pairs import PairedActivations
from interp_transfer.mapping.row_blocks import BLOCK_ROWS, CollectedPart, Transformed, regrouped
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.identity import Space, identity
from interp_transfer.names import did_you_mean, misplaced
from interp_transfer.vectors.vector import check_same

__all__ = ["KINDS", "check_kind", "fit"]

MASSIVE = 10.0
"""Rows longer than so many times the median length count as massive."""
ENOUGH = 10
"""Rows for each dimension of the source from which a regression is trusted without a warning."""


def fit(
    pairs: PairedActivations,
    kind: str = "autoencoder",
    *,
    sites: tuple[str, str] | None = None,
    seed: int = 0,
    held_out: float = 0.1,
    massive: float = MASSIVE,
    checkpoint: str | Path | None = None,
    models: tuple[HookedModel, HookedModel] | None = None,
    texts: Sequence[str] | None = None,
    progress: bool = True,
    **settings: Any,
) -> Mapper:
    """Fit a mapper on paired activations.

    Fewer rows than dimensions can be fitted, with a warning below ten for each dimension of the source: the ridge, the rank and
    the epoch to stop at are chosen on held-out texts, and the card's ``fvu`` is of those texts. Only ``ridge=0`` needs more
    rows than the source has dimensions.

    Ranks (``distributed``) share the work: each reads its share of the rows for the moments and the errors, and in training its
    share of every batch. All return the mapper that one process returns, up to rounding.

    Args:
        pairs: from ``collect``, in memory or in a store; ``pairs.shuffled(seed)`` for the control.
        kind: one of ``kinds.KINDS``: "autoencoder" (the paper's), "affine", "procrustes", "low_rank",
            "low_rank_update", "residual", "embeddings", "mean_shift", "untrained" (a control).
        sites: the site pair, when several were collected.
        seed: of the split, the initial weights and the order of batches.
        held_out: share of the texts that the mapper is tested on.
        massive: rows longer than so many times the median length are not fitted; ``float("inf")`` fits all. For pairs in a
            store it is the median of a sample.
        checkpoint: folder in which training keeps its state after each epoch, and from which it resumes. All ranks share it.
        models: source and target, for the kind "embeddings" and for ``kl`` above zero.
        texts: the texts that the pairs were collected from, for ``kl`` above zero.
        progress: show a bar when it takes longer than two seconds.
        settings: settings of the kind, see ``kinds``.

    Raises:
        ValueError: for anything but pairs, an unknown kind or setting, rows that hold NaN or infinity, too few rows,
            widths that the kind cannot map between, missing models, or other models than those of the pairs.
    """
    known = find_kind(kind)
    chosen = _settings(known, kind, settings)
    if not isinstance(pairs, PairedActivations):
        raise misplaced(pairs, "pairs", "collect them with it.collect(source, target, texts, source_site, target_site)")
    uses_kl = getattr(chosen, "kl", 0) > 0
    _check_models(pairs, kind, models, texts, known.needs_models, uses_kl)
    if not massive > 1:
        raise ValueError(f"massive={massive}: give a multiple of the median length above 1")
    pair, x, y = pairs.rows(sites)
    source, target = Space(pairs.source_model, pair[0], x.shape[1]), Space(pairs.target_model, pair[1], y.shape[1])
    judged = pairs.held_out(held_out, seed)
    if rank_and_size()[1] > 1:
        check_same_in_all_ranks(_request(pairs, pair, kind, chosen) | {"seed": seed, "held_out": held_out, "massive": massive})
    train, judge = pairs.part(~judged, pair), pairs.part(judged, pair)
    apart = _Massive(train, massive)
    seen, seen_held = (_Seen(part, apart, (source.d, target.d)) for part in (train, judge))
    _check(seen, seen_held, pair, massive, chosen)
    ordinary, held = seen.part, seen_held.part
    if known.regression and len(ordinary) < ENOUGH * source.d:
        warnings.warn(
            f"{len(ordinary)} pairs of tokens for the {source.d} dimensions of {pair[0]}: with fewer than {ENOUGH} for each "
            "dimension the map is uncertain; give more texts, or compare seeds",
            stacklevel=2,
        )

    scales = Scales(seen.moments, known.whiten)
    folder = None if checkpoint is None else Path(checkpoint)
    blank = Card(kind, 0, 0.0, 0.0, 0.0, len(ordinary), len(held), seed)

    def assemble(core: nn.Module) -> Mapper:
        mapper = Mapper(core, source, target, blank)
        scales.write(mapper)
        if seen.long:
            mapper.massive_norm.fill_(apart.longest[0])
            mapper.massive_out.copy_(seen.opposite / seen.long)
        return mapper

    kl_loss = None
    if uses_kl and models is not None and texts is not None:
        kl_loss = KLLoss(models, assemble, texts, judged, pairs.alignment.strategy)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        problem = Problem(
            Transformed(ordinary, scales.into),
            Transformed(held, scales.into),
            scales.of(seen.moments),
            scales.of(seen_held.moments),
            seed,
            folder,
            progress,
            pairs.is_shuffled,
            models,
            kl_loss,
        )
        core, used, curve = from_first(known.solve(problem, chosen))
    mapper = assemble(core).eval().requires_grad_(False)
    agreement = Agreement()
    for rows, truth in held.blocks(*rank_and_size()):
        agreement.update(truth, mapper(rows))
    agreement = reduce(Agreement.add, gathered(agreement))
    mapper.card = replace(
        blank,
        parameters=sum(parameter.numel() for parameter in core.parameters()) or target.d,
        fvu=agreement.fvu,
        cosine=agreement.cosine,
        norm_ratio=agreement.norm_ratio,
        settings=asdict(used),
        curve=curve,
        shuffled=pairs.is_shuffled,
        alignment=pairs.alignment.strategy,
        massive_rows=seen.apart + seen_held.apart,
    )
    return mapper


def check_kind(kind: str, settings: Mapping[str, Any] | None = None) -> str:
    """Return ``kind`` if such a mapper exists and has these settings.

    Raises:
        ValueError: naming the closest.
    """
    _settings(find_kind(kind), kind, dict(settings or {}))
    return kind


def _check_models(
    pairs: PairedActivations, kind: str, models: Any, texts: Sequence[str] | None, needs_models: bool, uses_kl: bool
) -> None:
    if texts is not None and not uses_kl:
        raise ValueError("texts are for the KL loss of the target: give kl=0.1, for example, or leave texts out")
    if needs_models and models is None:
        raise ValueError(f"{kind!r} is fitted on the models' embeddings: give models=(source, target)")
    if uses_kl and (models is None or texts is None):
        raise ValueError("kl above zero runs the target: give models=(source, target) and texts, as for collect")
    if uses_kl and pairs.is_shuffled:
        raise ValueError("kl above zero has no control of exchanged partners, because it reads the texts themselves: give kl=0")
    for side, model, known in zip(("source", "target"), models or (), (pairs.source_model, pairs.target_model), strict=False):
        check_same(identity(model), known, f"the {side} given and that of the pairs are")


def _request(pairs: PairedActivations, pair: tuple[str, str], kind: str, settings: Any) -> dict[str, Any]:
    """Arguments that must agree across ranks."""
    plain = {name: value for name, value in vars(settings).items() if isinstance(value, int | float | str | None)}
    ends = [column[at].tolist() for column in pairs.rows(pair)[1:] for at in (0, -1)]
    models = pairs.source_model.fingerprint, pairs.target_model.fingerprint
    return {"kind": kind, **plain, "sites": pair, "models": models, "rows": len(pairs), "first and last row": hashed(ends)}


class _Massive:
    """The length from which a row counts as massive, on either side, from the median of a sample."""

    def __init__(self, train: CollectedPart, multiple: float) -> None:
        lengths = zip(*((x.norm(dim=1), y.norm(dim=1)) for x, y in train.sample()), strict=True)
        longest = tuple(multiple * float(torch.cat(side).median()) for side in lengths)
        self.longest = from_first(longest)

    def long(self, rows: Tensor, side: int) -> Bool[Tensor, " row"]:
        """Return which rows of the source (side 0) or of the target (side 1) are massive."""
        return rows.norm(dim=1) > self.longest[side]

    def ordinary(self, block: Block) -> Bool[Tensor, " row"]:
        """Return which pairs have no massive row."""
        return ~(self.long(block[0], 0) | self.long(block[1], 1))


class _Seen:
    """Statistics of a part of the rows, from one pass; each rank passes over its share, and all have the totals.

    Attributes:
        rows: number of rows.
        moments: moments of the ordinary rows.
        bad: number of rows with NaN or infinity, on each side.
        apart: number of pairs with a massive row.
        long: number of pairs with a massive source row.
        opposite: sum of the target rows of these.
        part: the ordinary rows.
    """

    def __init__(self, part: CollectedPart, massive: _Massive, widths: tuple[int, int]) -> None:
        self.rows, self.bad, self.apart, self.long = len(part), [0, 0], 0, 0
        self.opposite = torch.zeros(widths[1], dtype=torch.float64)
        running = RunningMoments(*widths)
        for x, y in regrouped(self._ordinary(part, massive), BLOCK_ROWS):
            running.update(x, y)
        self.moments = all_reduced(running.result())
        *self.bad, self.apart, self.long = summed(torch.tensor([*self.bad, self.apart, self.long])).tolist()
        self.opposite = summed(self.opposite)
        self.part: CollectedPart = part.where(massive.ordinary, self.moments.rows) if self.apart else part

    def _ordinary(self, part: CollectedPart, massive: _Massive) -> Iterator[Block]:
        for x, y in part.blocks(*rank_and_size()):
            for side, rows in enumerate((x, y)):
                if not all_finite(rows):
                    self.bad[side] += int((~torch.isfinite(rows).all(dim=1)).sum())
            keep, long = massive.ordinary((x, y)), massive.long(x, 0)
            self.apart += int((~keep).sum())
            self.long += int(long.sum())
            self.opposite = self.opposite + y[long].double().sum(dim=0)
            yield (x, y) if keep.all() else (x[keep], y[keep])


def _check(seen: _Seen, held: _Seen, pair: tuple[str, str], massive: float, settings: Any) -> None:
    for side, site in enumerate(pair):
        if bad := seen.bad[side] + held.bad[side]:
            raise ValueError(
                f"{bad} of {seen.rows + held.rows} rows at {site!r} hold NaN or infinity: collect from models in float32, or "
                "collect with drop_bad=True"
            )
    if not seen.moments.rows or not held.moments.rows:
        raise ValueError(f"massive={massive} leaves no row to fit: increase it")
    d_source = len(seen.moments.mean_x)
    if getattr(settings, "ridge", None) == 0 and seen.moments.rows <= d_source:
        raise ValueError(
            f"{seen.moments.rows} rows of {d_source} dimensions leave the map open when ridge=0: collect more texts, or give "
            "ridge=None to have one chosen on held-out texts"
        )


class Scales:
    """Standardisation of rows: each source dimension to unit spread (or all by the target's scale), the target by one scale.

    The target has one scale for all dimensions, so that the squared error that is minimised is the one that is reported.
    """

    def __init__(self, fitted: Moments, whiten: bool) -> None:
        spread = fitted.spread_x()
        scale = (fitted.yy.sum() / (fitted.rows * len(fitted.yy))).sqrt()
        self.scale_y = scale if scale > 0 else torch.ones_like(scale)
        constant = spread <= 1e-6 * spread.max()
        each = torch.where(constant, torch.ones_like(spread), spread)
        self.scale_x = each if whiten else torch.full_like(spread, float(self.scale_y))
        self.shift_x, self.shift_y = fitted.mean_x, fitted.mean_y
        exact = (-self.shift_x / self.scale_x, 1 / self.scale_x, -self.shift_y / self.scale_y, 1 / self.scale_y)
        self._applied = tuple(value.float() for value in exact)  # in the dtype of the rows

    def into(self, block: Block) -> Block:
        """Standardise a block."""
        x, y = block
        offset_x, factor_x, offset_y, factor_y = (value.to(x) for value in self._applied)
        return torch.addcmul(offset_x, x, factor_x), torch.addcmul(offset_y, y, factor_y)

    def of(self, raw: Moments) -> Moments:
        """Return the moments of standardised rows."""
        return raw.scaled(self.shift_x, self.scale_x, self.shift_y, self.scale_y)

    def write(self, mapper: Mapper) -> None:
        """Write the standardisation into a mapper's buffers."""
        for name, value in (
            ("shift_in", self.shift_x),
            ("scale_in", self.scale_x),
            ("shift_out", self.shift_y),
            ("scale_out", self.scale_y),
        ):
            getattr(mapper, name).copy_(value)


def _settings(known: Kind, kind: str, given: dict[str, Any]) -> Any:
    names = [f.name for f in fields(known.settings)]
    for name in given:
        if name not in names:
            has = f"there are {', '.join(names)}" if names else f"{kind!r} has none"
            raise ValueError(f"unknown setting {name!r} of {kind!r}: {did_you_mean(name, names)}{has}")
    return known.settings(**given)
