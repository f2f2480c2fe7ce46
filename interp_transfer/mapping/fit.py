"""Fitting mappers.

Every kind (`kinds`) is fitted on some texts and judged on others; the card says how well.

Rows far longer than the others are set apart: some models carry a few directions at the first token, or at a delimiter, that
are hundreds of times as long as all else ("massive activations", Sun et al. 2024), and a squared error would be about them
alone. They are not fitted; a mapper sends each to the mean of the target's rows that stood opposite such rows.

Nothing here holds all rows at once, so that pairs in a store are fitted on as those in memory are: closed forms take one pass
over the rows, those that are trained one more for each epoch, and held-out rows are read once more to judge.
"""

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
from interp_transfer.mapping.kinds import KINDS, RIDGES, Kind, Problem, find_kind
from interp_transfer.mapping.kl_loss import Through
from interp_transfer.mapping.mappers import Card, Mapper, Space
from interp_transfer.mapping.moments import Block, Moments, RunningMoments, all_reduced
from interp_transfer.mapping.pairs import PairedActivations
from interp_transfer.mapping.row_blocks import BLOCK_ROWS, Changed, CollectedPart, Part, regrouped
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.identity import identity
from interp_transfer.names import meant
from interp_transfer.vectors.vector import check_same

__all__ = ["KINDS", "check_kind", "fit", "fit_each"]

MASSIVE = 10.0
"""Rows longer than so many times the median length are set apart."""


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

    Fewer rows than dimensions are fitted too: the ridge, the rank and the moment to stop are chosen on held-out texts, and
    the card's ``fvu``, which is of those, says what came of it. Only ``ridge=0`` needs more rows than the source has
    dimensions.

    Several processes (``processes``) that make this call share the work, and all get the same mapper: each passes over its
    share of the rows for the moments and for the errors, and in training takes its share of every batch, whose gradients are
    averaged. So it is the mapper of one process, but for the order in which numbers are added.

    Args:
        pairs: from ``collect``, in memory or in a store; ``pairs.shuffled(seed)`` for the control.
        kind: one of ``kinds.KINDS``: "autoencoder" (the paper's), "affine", "procrustes", "low_rank",
            "low_rank_update", "residual", "embeddings", "mean_shift", "untrained" (a control).
        sites: which site pair, when several were collected.
        seed: of the split, the initial weights and the order of batches.
        held_out: share of the texts that it is judged on and not fitted on.
        massive: rows longer than so many times the median length are not fitted; ``float("inf")`` fits all. Of pairs in a
            store it is the median of a sample.
        checkpoint: folder in which training keeps its state after each epoch; an interrupted one is gone on with. Of several
            processes the first reads and writes it.
        models: source and target, for what looks at the models themselves: the kind "embeddings", and ``kl`` above zero.
        texts: what the pairs were collected from, for ``kl`` above zero.
        progress: show a bar when it takes longer than two seconds.
        settings: of the kind, see ``kinds``.

    Raises:
        ProcessError: if another process is gone, or stopped with an error.
        ValueError: for an unknown kind or setting, rows that hold NaN or infinity, too few of them, widths that the kind
            cannot join, or models that are needed and missing, or others than the pairs are of.
    """
    known = find_kind(kind)
    chosen = _settings(known, kind, settings)
    looks_through = getattr(chosen, "kl", 0) > 0
    _check_models(pairs, kind, models, texts, known.looks, looks_through)
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

    beside = None
    if looks_through and models is not None and texts is not None:
        beside = Through(models, assemble, texts, judged, pairs.alignment.strategy)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        problem = Problem(
            Changed(ordinary, scales.into),
            Changed(held, scales.into),
            scales.of(seen.moments),
            scales.of(seen_held.moments),
            seed,
            folder,
            progress,
            pairs.is_shuffled,
            models,
            beside,
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


def fit_each(
    pairs: PairedActivations,
    kind: str = "affine",
    *,
    site_pairs: Sequence[tuple[str, str]] | None = None,
    ridge: float | None = None,
    **options: Any,
) -> dict[tuple[str, str], Mapper]:
    """A mapper for each of several site pairs, under one penalty that they share.

    To be used together, maps should shrink alike: each by its own penalty, the one that is surest of its rows would speak
    loudest. Kinds without a ridge have no penalty to share, and are fitted each by itself.

    Args:
        pairs: from ``collect`` with several sites.
        kind: as for ``fit``.
        site_pairs: which; all that were collected, unless said.
        ridge: the penalty; the one of ``kinds.RIDGES`` with the smallest sum of held-out FVUs of affine maps if None.
        options: as for ``fit``.

    Raises:
        ValueError: as ``fit``.
    """
    chosen = list(pairs.site_pairs if site_pairs is None else site_pairs)
    known = find_kind(kind)
    if "ridge" not in [f.name for f in fields(known.settings)] or known.looks:
        if ridge is not None:
            raise ValueError(f"{kind!r} has no ridge to share: leave it out, or choose affine, low_rank or residual")
        return {pair: fit(pairs, kind, sites=pair, **options) for pair in chosen}
    if ridge is None:
        shared = {name: options[name] for name in ("seed", "held_out", "massive") if name in options}
        errors = {r: sum(fit(pairs, "affine", sites=pair, ridge=r, **shared).card.fvu for pair in chosen) for r in RIDGES}
        ridge = min(errors, key=lambda r: errors[r])
    return {pair: fit(pairs, kind, sites=pair, ridge=ridge, **options) for pair in chosen}


def check_kind(kind: str, settings: Mapping[str, Any] | None = None) -> str:
    """Return ``kind`` if there is such a mapper and it has these settings.

    Raises:
        ValueError: naming the closest.
    """
    _settings(find_kind(kind), kind, dict(settings or {}))
    return kind


def _check_models(
    pairs: PairedActivations, kind: str, models: Any, texts: Sequence[str] | None, looks: bool, looks_through: bool
) -> None:
    if texts is not None and not looks_through:
        raise ValueError("texts are for a loss that looks through the target: give kl=0.1, say, or leave texts out")
    if looks and models is None:
        raise ValueError(f"{kind!r} is fitted on the models' embeddings: give models=(source, target)")
    if looks_through and (models is None or texts is None):
        raise ValueError("kl above zero looks through the target: give models=(source, target) and texts, as for collect")
    if looks_through and pairs.is_shuffled:
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
    """How long a row has to be on either side to be set apart, from the median of a sample."""

    def __init__(self, train: CollectedPart, multiple: float) -> None:
        lengths = zip(*((x.norm(dim=1), y.norm(dim=1)) for x, y in train.sample()), strict=True)
        longest = tuple(multiple * float(torch.cat(side).median()) for side in lengths)
        self.longest = from_first(longest)

    def long(self, rows: Tensor, side: int) -> Bool[Tensor, " row"]:
        """Which rows of the source (0) or of the target (1) are."""
        return rows.norm(dim=1) > self.longest[side]

    def ordinary(self, block: Block) -> Bool[Tensor, " row"]:
        """Pairs of which neither is."""
        return ~(self.long(block[0], 0) | self.long(block[1], 1))


class _Seen:
    """What one pass over a part shows; of several processes, each passes over its share, and all know the whole.

    Attributes:
        rows: how many there are.
        moments: of the ordinary ones.
        bad: how many rows hold NaN or infinity, on either side.
        apart: how many pairs are massive.
        long: how many of them on the source's side.
        opposite: sum of the target's rows opposite those.
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
        self.part: Part = part.where(massive.ordinary, self.moments.rows) if self.apart else part

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
        raise ValueError(f"massive={massive} leaves no row to fit: raise it")
    d_source = len(seen.moments.mean_x)
    if getattr(settings, "ridge", None) == 0 and seen.moments.rows <= d_source:
        raise ValueError(
            f"{seen.moments.rows} rows of {d_source} dimensions leave the map open when ridge=0: collect more texts, or give "
            "ridge=None to have one chosen on held-out texts"
        )


class Scales:
    """How rows are standardised: each source dimension to spread one (or all by the target's scale), the target by one scale.

    One scale for all target dimensions, so that the squared error that is minimised is the one that is measured.
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
        self._applied = tuple(value.float() for value in exact)  # as rows are: once, not for every batch

    def into(self, block: Block) -> Block:
        """A block, standardised."""
        x, y = block
        offset_x, factor_x, offset_y, factor_y = (value.to(x) for value in self._applied)
        return torch.addcmul(offset_x, x, factor_x), torch.addcmul(offset_y, y, factor_y)

    def of(self, found: Moments) -> Moments:
        """The moments of standardised rows."""
        return found.scaled(self.shift_x, self.scale_x, self.shift_y, self.scale_y)

    def write(self, mapper: Mapper) -> None:
        """Into a mapper's buffers."""
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
            raise ValueError(f"unknown setting {name!r} of {kind!r}: {meant(name, names)}{has}")
    return known.settings(**given)
