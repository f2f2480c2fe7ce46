"""The kinds of mappers: the settings of each, and how it is fitted.

A kind maps standardised rows by a network, its core. Closed forms need only the moments of the rows; other kinds are trained on
the rows (`training`).
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from interp_transfer.io import locked_folder
from interp_transfer.mapping import closed_form
from interp_transfer.mapping.distributed import rank_and_size
from interp_transfer.mapping.embeddings import embedding_rows
from interp_transfer.mapping.kl_loss import KLLoss
from interp_transfer.mapping.moments import Moments, RunningMoments
from interp_transfer.mapping.networks import Residual, Width, make_core
from interp_transfer.mapping.row_blocks import Part
from interp_transfer.mapping.training import Training, train_by_gradient
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.names import find

RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
_TOKENS_HELD_OUT = 0.1
_RANK_SLACK = 1.01  # the smallest rank whose held-out error is within one per cent of the best


@dataclass(frozen=True)
class Problem:
    """The data of a fit, standardised.

    Attributes:
        train: rows to fit.
        judge: held-out rows.
        fitted: moments of the rows to fit.
        judged: moments of the held-out rows.
        seed: of the initial weights and the order of batches.
        checkpoint: folder for the state of training, if any.
        progress: show bars.
        shuffled: whether partners were exchanged, as a control.
        models: source and target, for kinds that need them.
        kl_loss: a loss that is added to the squared error, if any.
    """

    train: Part
    judge: Part
    fitted: Moments
    judged: Moments
    seed: int
    checkpoint: Path | None
    progress: bool
    shuffled: bool = False
    models: tuple[HookedModel, HookedModel] | None = None
    kl_loss: KLLoss | None = None

    @property
    def widths(self) -> tuple[int, int]:
        """Width of the source's rows and of the target's."""
        return len(self.fitted.mean_x), len(self.fitted.mean_y)


@dataclass(frozen=True)
class NoSettings:
    """Settings of kinds that have none."""


@dataclass(frozen=True)
class AffineSettings:
    """Settings of the closed-form affine map.

    Attributes:
        ridge: penalty as a share of the mean variance of the (standardised) source dimensions; the one of ``RIDGES`` with the
            smallest held-out error if None.
    """

    ridge: float | None = None

    def __post_init__(self) -> None:
        if self.ridge is not None and not self.ridge >= 0:
            raise ValueError(f"ridge={self.ridge}: give a penalty of zero or more")


@dataclass(frozen=True)
class LowRankSettings(AffineSettings):
    """Settings of the maps of low rank.

    Attributes:
        rank: rank of the matrix; if None, the smallest power of two whose held-out error is within 1% of the best.
    """

    rank: int | None = None


@dataclass(frozen=True)
class AutoencoderSettings(Training):
    """Settings of the paper's autoencoder.

    Attributes:
        width: hidden units; four times the target's dimensions if None, int(sqrt(d_source * d_target)) if "paper".
    """

    width: Width = None


PAPER: Mapping[str, Any] = MappingProxyType(
    {"width": "paper", "epochs": 3, "learning_rate": 1e-4, "weight_decay": 0.01, "batch_size": 2048}
)
"""The paper's settings of the autoencoder (its Table 22), for tens of millions of tokens; its 64 texts a step as rows."""


@dataclass(frozen=True)
class ResidualSettings(Training):
    """Settings of the residual map.

    Attributes:
        width: hidden units of the MLP, as for the autoencoder.
        ridge: penalty of the affine part, as in ``AffineSettings``.
    """

    width: Width = None
    ridge: float | None = None


Solved = tuple[nn.Module, Any, list[float]]
"""Core, settings as used, held-out loss after each epoch."""


@dataclass(frozen=True)
class Kind:
    """One kind of mapper.

    Attributes:
        description: one line.
        settings: dataclass of its settings.
        solve: fits the core.
        whiten: whether each source dimension is scaled to unit spread. Otherwise all are scaled by the target's scale, which
            keeps angles and the ratios of lengths.
        needs_models: whether it needs the models themselves.
        regression: whether it is fitted on all rows, so that it needs several for each dimension of the source.
    """

    description: str
    settings: type
    solve: Callable[[Problem, Any], Solved]
    whiten: bool = True
    needs_models: bool = False
    regression: bool = True


def find_kind(name: str) -> Kind:
    """Return a kind by name.

    Raises:
        ValueError: naming the closest.
    """
    return find(name, KINDS, "mapper", cutoff=0.4)


def _shift(problem: Problem, settings: NoSettings) -> Solved:
    source, target = problem.widths
    if source != target:
        raise ValueError(
            f"mean_shift adds one vector, so both sides must be equally wide, not {source} and {target}: use affine"
        )
    return make_core("mean_shift", problem.widths, {}), settings, []


def _affine(problem: Problem, settings: AffineSettings) -> Solved:
    (weight, bias), ridge = _ridge_by(problem.fitted, problem.judged, settings.ridge)
    return _filled(make_core("affine", problem.widths, {}), weight.T, bias), replace(settings, ridge=ridge), []


def _procrustes(problem: Problem, settings: NoSettings) -> Solved:
    weight, bias = closed_form.procrustes(problem.fitted)
    return _filled(make_core("procrustes", problem.widths, {}), weight.T, bias), settings, []


def _low_rank(problem: Problem, settings: LowRankSettings) -> Solved:
    core, used = _of_low_rank("low_rank", problem.fitted, problem.judged, settings)
    return core, used, []


def _low_rank_update(problem: Problem, settings: LowRankSettings) -> Solved:
    source, target = problem.widths
    if source != target:
        raise ValueError(
            f"low_rank_update adds to the activation itself, so both sides must be equally wide, not {source} and {target}: "
            "use low_rank"
        )
    core, used = _of_low_rank("low_rank_update", problem.fitted.of_change(), problem.judged.of_change(), settings)
    return core, used, []


def _of_low_rank(kind: str, fitted: Moments, judged: Moments, settings: LowRankSettings) -> tuple[nn.Module, LowRankSettings]:
    """Fit a core of that kind with the smallest rank that is good enough; return it with the settings as used."""
    _, ridge = _ridge_by(fitted, judged, settings.ridge)
    widths = len(fitted.mean_x), len(fitted.mean_y)
    widest = min(widths)
    ranks = [2**k for k in range(widest.bit_length()) if 2**k < widest] + [widest]
    tried: Sequence[int] = ranks if settings.rank is None else (settings.rank,)
    maps = {rank: closed_form.low_rank(fitted, rank, ridge) for rank in tried}
    errors = {rank: judged.squared_error(*map_) for rank, map_ in maps.items()}
    rank = next(rank for rank in tried if errors[rank] <= _RANK_SLACK * min(errors.values()))
    weight, bias = maps[rank]
    left, size, right = torch.linalg.svd(weight, full_matrices=False)
    core: Any = make_core(kind, widths, {"rank": rank})
    with torch.no_grad():
        core[0].weight.copy_((left[:, :rank] * size[:rank]).T)
    _filled(core[1], right[:rank].T, bias)
    return core, replace(settings, rank=rank, ridge=ridge)


def _autoencoder(problem: Problem, settings: AutoencoderSettings) -> Solved:
    core = make_core("autoencoder", problem.widths, asdict(settings))
    used = replace(settings, width=core.get_parameter("0.weight").shape[0])
    return core, used, _trained(core, problem, used)


def _residual(problem: Problem, settings: ResidualSettings) -> Solved:
    (weight, bias), ridge = _ridge_by(problem.fitted, problem.judged, settings.ridge)
    core: Any = make_core("residual", problem.widths, {"width": settings.width})
    assert isinstance(core, Residual)
    _filled(core.affine, weight.T, bias)
    core.affine.requires_grad_(False)
    used = replace(settings, width=core.get_parameter("mlp.0.weight").shape[0], ridge=ridge)
    return core, used, _trained(core, problem, used)


def _trained(core: nn.Module, problem: Problem, settings: Training) -> list[float]:
    how: dict[str, Any] = {"checkpoint": problem.checkpoint, "kl_loss": problem.kl_loss, "progress": problem.progress}
    folder = problem.checkpoint if rank_and_size()[0] == 0 else None
    with nullcontext() if folder is None else locked_folder(folder):
        return train_by_gradient(core, problem.train, problem.judge, settings, problem.seed, **how)


def _untrained(problem: Problem, settings: NoSettings) -> Solved:
    return make_core("untrained", problem.widths, {}), settings, []


def _embeddings(problem: Problem, settings: AffineSettings) -> Solved:
    assert problem.models is not None
    x, y = embedding_rows(*problem.models)
    if problem.widths != (x.shape[1], y.shape[1]):
        raise ValueError(
            f"the embeddings are {x.shape[1]} and {y.shape[1]} wide and the rows {problem.widths[0]} and {problem.widths[1]}: "
            "this map is for sites of the residual stream"
        )
    generator = torch.Generator().manual_seed(problem.seed)
    chosen = torch.randperm(len(x), generator=generator)
    x, y = x[chosen], y[chosen[torch.randperm(len(chosen), generator=generator)] if problem.shuffled else chosen]
    held = max(1, round(_TOKENS_HELD_OUT * len(x)))
    fitted, judged = RunningMoments(*problem.widths), RunningMoments(*problem.widths)
    fitted.update(x[held:], y[held:])
    judged.update(x[:held], y[:held])
    (weight, _), ridge = _ridge_by(fitted.result(), judged.result(), settings.ridge)
    core = _filled(make_core("embeddings", problem.widths, {}), weight.T, torch.zeros(weight.shape[1]))
    return core, replace(settings, ridge=ridge), []


def _ridge_by(fitted: Moments, judged: Moments, penalty: float | None) -> tuple[closed_form.Affine, float]:
    """The affine map with this penalty, or with the one of the smallest held-out error."""
    maps = {r: closed_form.ridge(fitted, r) for r in (RIDGES if penalty is None else (penalty,))}
    best = min(maps, key=lambda r: judged.squared_error(*maps[r]))
    return maps[best], best


def _filled(layer: Any, weight: torch.Tensor, bias: torch.Tensor) -> nn.Module:
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "autoencoder": Kind("the paper's: linear, ReLU, linear, trained", AutoencoderSettings, _autoencoder),
        "affine": Kind("closed-form ridge regression", AffineSettings, _affine),
        "procrustes": Kind("the best rotation with one scale", NoSettings, _procrustes, whiten=False),
        "low_rank": Kind("reduced-rank regression", LowRankSettings, _low_rank),
        "low_rank_update": Kind(
            "the activation itself and, added to it, a map of low rank (equal widths): for models of one family",
            LowRankSettings,
            _low_rank_update,
            whiten=False,
        ),
        "residual": Kind("affine plus a small MLP, trained on the residual", ResidualSettings, _residual),
        "embeddings": Kind(
            "closed-form ridge regression between the unembeddings of shared tokens; reads no text",
            AffineSettings,
            _embeddings,
            whiten=False,
            needs_models=True,
            regression=False,
        ),
        "mean_shift": Kind(
            "adds the difference of the means (equal widths)", NoSettings, _shift, whiten=False, regression=False
        ),
        "untrained": Kind("control: the autoencoder at its initial weights", NoSettings, _untrained, regression=False),
    }
)
"""Every kind, by name."""
