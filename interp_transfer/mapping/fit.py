"""Fitting mappers.

Every kind is fitted on some texts and judged on others; the card says how well. Closed-form maps are solved in float64.
Trained ones minimise the mean squared error over real tokens by AdamW, stop when the held-out error no longer falls, and
keep the weights that were best on it.
"""

import difflib
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm.auto import tqdm

from interp_transfer.activations.capture import SECONDS_BEFORE_PROGRESS
from interp_transfer.evaluation.metrics import fvu, mean_cosine, norm_ratio
from interp_transfer.mapping.collect import PairedActivations
from interp_transfer.mapping.mappers import CORES, Card, Mapper, Space

Rows = tuple[Float[Tensor, "_ d_source"], Float[Tensor, "_ d_target"]]
"""Standardised source rows with their target rows."""


@dataclass(frozen=True)
class AutoencoderSettings:
    """How the paper's autoencoder is trained.

    The paper trains for 3 epochs at 1e-4 on tens of millions of tokens (its Table 22); here there are tens of thousands, so
    there are more epochs at a higher rate.

    Attributes:
        width: hidden units; int(sqrt(d_source * d_target)) if None.
        epochs: passes over the rows, at most.
        learning_rate: of AdamW at its peak; it falls to zero along a cosine.
        weight_decay: of AdamW.
        batch_size: rows in a step.
        patience: epochs without a better held-out error before training stops.
    """

    width: int | None = None
    epochs: int = 20
    learning_rate: float = 3e-3
    weight_decay: float = 0.0
    batch_size: int = 256
    patience: int = 6

    def __post_init__(self) -> None:
        for name in ("epochs", "learning_rate", "batch_size", "patience"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)}: give a number above zero")


@dataclass(frozen=True)
class AffineSettings:
    """How the closed-form affine map is fitted.

    Attributes:
        ridge: penalty, as a share of the mean variance of the (standardised) source dimensions; the one of ``RIDGES`` with
            the smallest held-out error if None.
    """

    ridge: float | None = None

    def __post_init__(self) -> None:
        if self.ridge is not None and not self.ridge >= 0:
            raise ValueError(f"ridge={self.ridge}: give a penalty of zero or more")


RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


def fit(
    pairs: PairedActivations,
    kind: str = "autoencoder",
    *,
    sites: tuple[str, str] | None = None,
    seed: int = 0,
    held_out: float = 0.1,
    progress: bool = True,
    **settings: Any,
) -> Mapper:
    """Fit a mapper on paired activations.

    Args:
        pairs: from ``collect``; ``pairs.shuffled(seed)`` for the control.
        kind: "autoencoder" (the paper's) or "affine" (closed form).
        sites: which site pair, when several were collected.
        seed: of the split, the initial weights and the order of batches.
        held_out: share of the texts that it is judged on and not fitted on.
        progress: show a bar when it takes longer than two seconds.
        settings: of the kind: ``AutoencoderSettings`` or ``AffineSettings``.

    Raises:
        ValueError: for an unknown kind or setting, rows that hold NaN or infinity, or too few of them.
    """
    make, solve = _kind(kind)
    chosen = _settings(make, kind, settings)
    (source_site, target_site), x, y = pairs.rows(sites)
    for side, rows in ((source_site, x), (target_site, y)):
        bad = int((~torch.isfinite(rows).all(dim=1)).sum())
        if bad:
            raise ValueError(f"{bad} of {len(rows)} rows at {side!r} hold NaN or infinity: collect in float32, or drop texts")
    train, judge = pairs.split(held_out, seed)
    x, y = x.float(), y.float()
    spaces = Space(pairs.source_model, source_site, x.shape[1]), Space(pairs.target_model, target_site, y.shape[1])
    blank = Card(kind, 0, 0.0, 0.0, 0.0, len(train), len(judge), seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        width = {"width": chosen.width} if isinstance(chosen, AutoencoderSettings) else {}
        mapper = Mapper(CORES[kind](x.shape[1], y.shape[1], **width), *spaces, blank)
        _standardise(mapper, x[train], y[train])
        inside = (x - mapper.shift_in) / mapper.scale_in, (y - mapper.shift_out) / mapper.scale_out
        used, curve = solve(
            mapper.core, (inside[0][train], inside[1][train]), (inside[0][judge], inside[1][judge]), chosen, progress
        )
    mapper.eval().requires_grad_(False)
    guess = mapper(x[judge])
    mapper.card = replace(
        blank,
        parameters=sum(parameter.numel() for parameter in mapper.core.parameters()),
        fvu=fvu(y[judge], guess),
        cosine=mean_cosine(y[judge], guess),
        norm_ratio=norm_ratio(y[judge], guess),
        settings=asdict(used),
        curve=curve,
        shuffled=pairs.is_shuffled,
        alignment=pairs.alignment.strategy,
    )
    return mapper


def _standardise(mapper: Mapper, x: Tensor, y: Tensor) -> None:
    mapper.shift_in.copy_(x.mean(dim=0))
    spread = x.std(dim=0)
    mapper.scale_in.copy_(torch.where(spread > 1e-6 * spread.max(), spread, torch.ones_like(spread)))
    mapper.shift_out.copy_(y.mean(dim=0))
    scale = (y - y.mean(dim=0)).square().mean().sqrt()
    mapper.scale_out.copy_(scale if scale > 0 else torch.ones_like(scale))


def train_by_gradient(
    core: nn.Module, train: Rows, judge: Rows, settings: AutoencoderSettings, progress: bool
) -> tuple[AutoencoderSettings, list[float]]:
    """Minimise the mean squared error; leaves the best weights in ``core`` and returns the held-out errors."""
    x, y = train
    steps = -(-len(x) // settings.batch_size)
    optimizer = torch.optim.AdamW(core.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=steps * settings.epochs + 1, pct_start=0.1
    )
    curve: list[float] = []
    best: dict[str, Tensor] = {}
    bar = {"unit": "epoch", "delay": SECONDS_BEFORE_PROGRESS, "disable": not progress, "leave": False}
    epochs = tqdm(range(settings.epochs), desc="fit", **bar)
    for _ in epochs:
        core.train()
        for batch in torch.randperm(len(x)).split(settings.batch_size):
            loss = (core(x[batch]) - y[batch]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        core.eval()
        with torch.no_grad():
            curve.append(float((core(judge[0]) - judge[1]).square().mean()))
        epochs.set_postfix(held_out=f"{curve[-1]:.4f}")
        if curve[-1] <= min(curve):
            best = {name: tensor.clone() for name, tensor in core.state_dict().items()}
        elif len(curve) - 1 - curve.index(min(curve)) >= settings.patience:
            break
    if not best:
        raise ValueError("training diverged to NaN: lower learning_rate")
    core.load_state_dict(best)
    return settings, curve


def solve_ridge(
    core: nn.Module, train: Rows, judge: Rows, settings: AffineSettings, progress: bool
) -> tuple[AffineSettings, list[float]]:
    """Ridge regression in closed form and float64; the bias is not penalised."""
    del progress
    assert isinstance(core, nn.Linear)
    x, y = (rows.double() for rows in train)
    centre_x, centre_y = x.mean(dim=0), y.mean(dim=0)
    x, y = x - centre_x, y - centre_y
    gram, cross = x.T @ x, x.T @ y
    unit = torch.eye(len(gram), dtype=gram.dtype) * gram.diagonal().mean()
    best: tuple[float, float, Tensor, Tensor] | None = None
    for ridge in RIDGES if settings.ridge is None else (settings.ridge,):
        # lstsq, not solve: constant dimensions make the matrix singular when there is no penalty.
        weight = torch.linalg.lstsq(gram + ridge * unit, cross, driver="gelsd").solution
        bias = centre_y - centre_x @ weight
        error = float((judge[0].double() @ weight + bias - judge[1].double()).square().mean())
        if best is None or error < best[0]:
            best = (error, ridge, weight, bias)
    assert best is not None
    with torch.no_grad():
        core.weight.copy_(best[2].T)
        core.bias.copy_(best[3])
    return replace(settings, ridge=best[1]), []


Solve = Callable[[nn.Module, Rows, Rows, Any, bool], tuple[Any, list[float]]]
KINDS: dict[str, tuple[type, Solve]] = {
    "autoencoder": (AutoencoderSettings, train_by_gradient),
    "affine": (AffineSettings, solve_ridge),
}


def _kind(kind: str) -> tuple[type, Solve]:
    if kind not in KINDS:
        close = difflib.get_close_matches(kind, KINDS, n=1, cutoff=0.4)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(f"unknown mapper {kind!r}: {hint}there are {', '.join(KINDS)}")
    return KINDS[kind]


def check_kind(kind: str) -> str:
    """Return ``kind`` if there is such a mapper.

    Raises:
        ValueError: naming the closest.
    """
    _kind(kind)
    return kind


def _settings(make: type, kind: str, given: dict[str, Any]) -> Any:
    known = [f.name for f in fields(make)]
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ValueError(f"unknown setting {name!r} of {kind!r}: {hint}there are {', '.join(known)}")
    return make(**given)
