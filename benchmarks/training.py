"""Training the autoencoder against a bare PyTorch loop: AdamW, one-cycle rate, the same batches, the held-out error at the end
of each epoch. The bare loop is given rows that are standardised already."""

import copy

import torch
from torch import Tensor, nn

from benchmarks.measure import Result, ratio
from benchmarks.pairs import made, moments
from interp_transfer.mapping.fit import Scales
from interp_transfer.mapping.moments import Block
from interp_transfer.mapping.networks import make_core
from interp_transfer.mapping.row_blocks import BLOCK_ROWS, MemoryPart, Transformed
from interp_transfer.mapping.training import Training, train_by_gradient

SHAPES = {"64 to 128 dimensions": ((64, 128), 16_000, 15), "896 to 1536 dimensions": ((896, 1536), 4_000, 5)}
"""Widths (the first are those of the small and the medium organism), rows, repetitions."""

SETTINGS = Training(epochs=2)
SEED = 0
GOAL = 1.1


def run() -> list[Result]:
    return [measure(name, *shape) for name, shape in SHAPES.items()]


def measure(name: str, widths: tuple[int, int], rows: int, n: int) -> Result:
    pairs = made(rows, widths)
    _, x, y = pairs.rows()
    found = moments([(x, y)], widths)
    standard = Scales(found, whiten=True).into
    judged = pairs.held_out(0.1, SEED)
    train, judge = (pairs.part(which) for which in (~judged, judged))
    assert isinstance(train, MemoryPart) and isinstance(judge, MemoryPart)
    ready, held = standard((train.x, train.y)), standard((judge.x, judge.y))
    torch.manual_seed(SEED)
    core = make_core("autoencoder", widths, {})

    def ours() -> tuple[nn.Module, list[float]]:
        trained = copy.deepcopy(core)
        parts = Transformed(train, standard), Transformed(judge, standard)
        return trained, train_by_gradient(trained, *parts, SETTINGS, SEED, progress=False)

    def theirs() -> tuple[nn.Module, list[float]]:
        trained = copy.deepcopy(core)
        return trained, bare(trained, ready, held)

    (one, curve), (other, errors) = ours(), theirs()
    torch.testing.assert_close(curve, errors, rtol=1e-5, atol=0.0)
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    value, times = ratio(ours, theirs, n)
    steps = SETTINGS.epochs * -(-len(train) // SETTINGS.batch_size)
    note = f"{steps} steps of {SETTINGS.batch_size} rows, {len(judge):,} held-out rows after each of {SETTINGS.epochs} epochs"
    return Result(f"autoencoder training, {name}", value, GOAL, n, f"{note}; {times}")


def bare(core: nn.Module, train: Block, held: Block) -> list[float]:
    """The loop, and no more; the best weights are kept."""
    (x, y), errors = train, []
    best: dict[str, Tensor] = {}
    steps = SETTINGS.epochs * -(-len(x) // SETTINGS.batch_size)
    optimizer = torch.optim.AdamW(core.parameters(), lr=SETTINGS.learning_rate, weight_decay=SETTINGS.weight_decay, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, SETTINGS.learning_rate, total_steps=steps + 1, pct_start=0.1)
    for epoch in range(SETTINGS.epochs):
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(SEED * 10_007 + epoch))
        for chosen in order.split(SETTINGS.batch_size):
            loss = (core(x[chosen]) - y[chosen]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            blocks = zip(held[0].split(BLOCK_ROWS), held[1].split(BLOCK_ROWS), strict=True)
            errors.append(sum(float((core(a) - b).square().mean()) * len(a) for a, b in blocks) / len(held[0]))
        if errors[-1] <= min(errors):
            best = {name: tensor.clone() for name, tensor in core.state_dict().items()}
    core.load_state_dict(best)
    return errors
