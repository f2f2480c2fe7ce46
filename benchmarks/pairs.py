"""Pairs of made-up activations: the target's rows are a planted map of the source's, with noise, and all means are large."""

from collections.abc import Iterable

import torch

from interp_transfer.activations.align import AlignmentReport
from interp_transfer.mapping.moments import Block, Moments, RunningMoments
from interp_transfer.mapping.pairs import PairedActivations
from interp_transfer.models.identity import ModelIdentity

SITE = "blocks.0.hook_resid_pre"
_ROWS_PER_TEXT = 20


def moments(blocks: Iterable[Block], widths: tuple[int, int]) -> Moments:
    """Of all rows of the blocks."""
    running = RunningMoments(*widths)
    for x, y in blocks:
        running.update(x, y)
    return running.result()


def made(rows: int, widths: tuple[int, int], seed: int = 0) -> PairedActivations:
    """The same every time."""
    generator = torch.Generator().manual_seed(seed)
    d_source, d_target = widths
    x = torch.randn(rows, d_source, generator=generator)
    y = x @ torch.randn(d_source, d_target, generator=generator) / d_source**0.5
    y += 0.1 * torch.randn(rows, d_target, generator=generator)
    return PairedActivations(
        {SITE: x + 3},
        {SITE: y - 2},
        ((SITE, SITE),),
        torch.arange(rows) // _ROWS_PER_TEXT,
        torch.zeros(rows, dtype=torch.long),
        ModelIdentity("source", ""),
        ModelIdentity("target", ""),
        AlignmentReport("same_tokens", rows, rows, 0, 0),
    )
