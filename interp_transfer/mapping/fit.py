"""Fitting mappers.

Every kind (`kinds`) is fitted on some texts and judged on others; the card says how well.

Rows far longer than the others are set apart: some models carry a few directions at the first token, or at a delimiter, that
are hundreds of times as long as all else ("massive activations", Sun et al. 2024), and a squared error would be about them
alone. They are not fitted; a mapper sends each to the mean of the target's rows that stood opposite such rows.
"""

import difflib
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp_transfer.evaluation.metrics import fvu, mean_cosine, norm_ratio
from interp_transfer.mapping.collect import PairedActivations
from interp_transfer.mapping.kinds import KINDS, Kind, Problem, find_kind
from interp_transfer.mapping.mappers import Card, Mapper, Space
from interp_transfer.mapping.moments import Block, Moments, moments
from interp_transfer.mapping.parts import Changed, MemoryPart

__all__ = ["KINDS", "check_kind", "fit"]

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
    progress: bool = True,
    **settings: Any,
) -> Mapper:
    """Fit a mapper on paired activations.

    Args:
        pairs: from ``collect``; ``pairs.shuffled(seed)`` for the control.
        kind: one of ``kinds.KINDS``: "autoencoder" (the paper's), "affine", "procrustes", "low_rank", "residual",
            "mean_shift", "untrained" (a control).
        sites: which site pair, when several were collected.
        seed: of the split, the initial weights and the order of batches.
        held_out: share of the texts that it is judged on and not fitted on.
        massive: rows longer than so many times the median length are not fitted; ``float("inf")`` fits all.
        checkpoint: folder in which training keeps its state after each epoch; an interrupted one is gone on with.
        progress: show a bar when it takes longer than two seconds.
        settings: of the kind, see ``kinds``.

    Raises:
        ValueError: for an unknown kind or setting, rows that hold NaN or infinity, too few of them, or widths that the kind
            cannot join.
    """
    known = find_kind(kind)
    chosen = _settings(known, kind, settings)
    if not massive > 1:
        raise ValueError(f"massive={massive}: give a multiple of the median length above 1")
    (source_site, target_site), x, y = pairs.rows(sites)
    for side, rows in ((source_site, x), (target_site, y)):
        bad = int((~torch.isfinite(rows).all(dim=1)).sum())
        if bad:
            raise ValueError(f"{bad} of {len(rows)} rows at {side!r} hold NaN or infinity: collect in float32, or drop texts")
    x, y = x.float(), y.float()
    train, judge = pairs.split(held_out, seed)
    source, target = Space(pairs.source_model, source_site, x.shape[1]), Space(pairs.target_model, target_site, y.shape[1])
    longest = [massive * float(rows[train].norm(dim=1).median()) for rows in (x, y)]
    apart = (x.norm(dim=1) > longest[0]) | (y.norm(dim=1) > longest[1])
    ordinary = MemoryPart(x[train[~apart[train]]], y[train[~apart[train]]])
    held = MemoryPart(x[judge[~apart[judge]]], y[judge[~apart[judge]]])
    if not len(ordinary) or not len(held):
        raise ValueError(f"massive={massive} leaves no row to fit: raise it")

    fitted = moments(ordinary.blocks())
    scales = _Scales(fitted, known.whiten)
    folder = None if checkpoint is None else Path(checkpoint)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        problem = Problem(
            Changed(ordinary, scales.into),
            Changed(held, scales.into),
            scales.of(fitted),
            scales.of(moments(held.blocks())),
            seed,
            folder,
            progress,
        )
        core, used, curve = known.solve(problem, chosen)
    blank = Card(kind, 0, 0.0, 0.0, 0.0, len(ordinary), len(held), seed)
    mapper = Mapper(core, source, target, blank).eval().requires_grad_(False)
    scales.write(mapper)
    lengthy = train[x[train].norm(dim=1) > longest[0]]
    if len(lengthy):
        mapper.massive_norm.fill_(longest[0])
        mapper.massive_out.copy_(y[lengthy].mean(dim=0))
    truth, guess = held.y, torch.cat([mapper(block) for block, _ in held.blocks()])
    mapper.card = replace(
        blank,
        parameters=sum(parameter.numel() for parameter in core.parameters()) or target.d,
        fvu=fvu(truth, guess),
        cosine=mean_cosine(truth, guess),
        norm_ratio=norm_ratio(truth, guess),
        settings=asdict(used),
        curve=curve,
        shuffled=pairs.is_shuffled,
        alignment=pairs.alignment.strategy,
        massive_rows=int(apart.sum()),
    )
    return mapper


def check_kind(kind: str) -> str:
    """Return ``kind`` if there is such a mapper.

    Raises:
        ValueError: naming the closest.
    """
    find_kind(kind)
    return kind


class _Scales:
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

    def into(self, block: Block) -> Block:
        """A block, standardised."""
        x, y = block
        return _scaled(x, self.shift_x, self.scale_x), _scaled(y, self.shift_y, self.scale_y)

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


def _scaled(rows: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return (rows - shift.to(rows)) / scale.to(rows)


def _settings(known: Kind, kind: str, given: dict[str, Any]) -> Any:
    names = [f.name for f in fields(known.settings)]
    for name in given:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            has = f"there are {', '.join(names)}" if names else f"{kind!r} has none"
            raise ValueError(f"unknown setting {name!r} of {kind!r}: {hint}{has}")
    return known.settings(**given)
