"""Steering vectors from contrasts.

By default, the direction of a contrast is the difference in means: the mean activation over the prompts that show the wanted
behaviour, minus the mean over those that show its opposite (Rimsky et al. 2024; Arditi et al. 2024; the paper's section 2, with
the opposite sign). Other methods compute another direction from the same activations. It is scaled to the length that the
difference in means has along it, so that strength 1.0 means the contrast's own difference for all methods.

Prompts are read in portions, of which only sums and a sample are kept, so memory does not grow with the contrast.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp_transfer.activations.capture import capture
from interp_transfer.activations.positions import Positions, describe
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.identity import identity
from interp_transfer.models.sites import check_site, head_parts
from interp_transfer.names import find
from interp_transfer.prompts.chats import PromptLike
from interp_transfer.prompts.contrast import Pairs, sides
from interp_transfer.vectors.logistic import logistic
from interp_transfer.vectors.vector import Contrast, SteeringVector

Method = Callable[[Float[Tensor, "n d_model"], Float[Tensor, "m d_model"]], Float[Tensor, " d_model"]]

EVIDENCE_ROWS = 1024
"""Activations of each side of the contrast that a vector keeps."""

METHOD_ROWS = 8192
"""Maximum number of activations of each side, a random sample, that methods other than the difference in means use."""

TAIL, WIDE = 0.05, 5.0
"""Of `robust`: the quantile at which dimensions are cut, and the multiple of the median spread that none exceeds."""

FEW, MOST, WIDTH = 3, 0.5, 256
"""Of `warn_of_few`: so few dimensions, this share of the squared length, and the least width."""

PORTION = 512
"""Prompts that are read at a time."""


def difference_in_means(
    positive: Float[Tensor, "n d_model"], negative: Float[Tensor, "m d_model"]
) -> Float[Tensor, " d_model"]:
    """mean(positive) - mean(negative), the means taken in float64."""
    return (positive.double().mean(dim=0) - negative.double().mean(dim=0)).to(positive.dtype)


def pca(positive: Float[Tensor, "n d_model"], negative: Float[Tensor, "m d_model"]) -> Float[Tensor, " d_model"]:
    """First principal component of the differences of pairs, with both signs (RepE, Zou et al. 2023).

    With both signs the differences have mean zero, so their common direction counts as variance.

    Raises:
        ValueError: if the two sides have different numbers of rows.
    """
    if positive.shape != negative.shape:
        raise ValueError(
            f"{len(positive)} positive and {len(negative)} negative rows: pca takes the differences of pairs, so read as many "
            "tokens on one side as on the other (positions='last')"
        )
    from sklearn.decomposition import PCA

    differences = (positive.double() - negative.double()).numpy()
    fitted = PCA(n_components=1, svd_solver="covariance_eigh").fit(np.concatenate([differences, -differences]))
    return torch.from_numpy(np.asarray(fitted.components_)[0]).to(positive.dtype)


def probe_direction(positive: Float[Tensor, "n d_model"], negative: Float[Tensor, "m d_model"]) -> Float[Tensor, " d_model"]:
    """Weights of a logistic regression between the two sides (``features.probes``)."""
    return logistic(positive, negative)[0]


def robust(positive: Float[Tensor, "n d_model"], negative: Float[Tensor, "m d_model"]) -> Float[Tensor, " d_model"]:
    """The difference in means on a robust scale, for models with massive activations in a few dimensions.

    In some models a few dimensions spread a hundred times as far as the others, and their noise alone decides where a
    difference in means points. Here each dimension is cut at its 5% and 95% quantiles, and one that spreads more than ``WIDE``
    times as far as the median is scaled down to that. Without such dimensions it is nearly the difference in means.
    """
    both = torch.cat([positive, negative]).double()
    low, high = (both.quantile(q, dim=0) for q in (TAIL, 1 - TAIL))
    difference = positive.double().clamp(low, high).mean(dim=0) - negative.double().clamp(low, high).mean(dim=0)
    spread = high - low
    return (difference * (WIDE * spread.median() / spread.clamp(min=1e-30)).clamp(max=1.0)).to(positive.dtype)


METHODS: dict[str, Method] = {
    "difference_in_means": difference_in_means,
    "pca": pca,
    "probe": probe_direction,
    "robust": robust,
}

MEAN_CENTRING = "mean_centring"
"""The method that subtracts the mean over other texts instead of the contrast's negative side (Jorgensen et al. 2023)."""


def extract(
    model: HookedModel,
    contrast: Pairs,
    site: str | int,
    positions: Positions = "last",
    *,
    method: str | Method = "difference_in_means",
    reference: Sequence[PromptLike] | None = None,
    head: int | None = None,
    evidence_rows: int = EVIDENCE_ROWS,
    seed: int = 0,
    progress: bool = True,
) -> SteeringVector:
    """The steering vector of a contrast at one site.

    Args:
        model: any hooked model.
        contrast: pairs of prompts, (positive, negative); positive shows the wanted behaviour.
        site: hook-point name, or the number of a block for its input.
        positions: the tokens of each prompt that are read.
        method: a name in ``METHODS`` ("difference_in_means", "pca", "probe", "robust"), scaled to the length that the
            difference in means has along its direction; "mean_centring": the positive side against the mean over
            ``reference``; or a function of the positive and the negative rows, whose length is kept. All but the means use a
            sample of at most ``METHOD_ROWS`` of each side, the same indices for both.
        reference: prompts for "mean_centring".
        head: at sites of attention heads (``hook_z``): the vector of this head alone, zero elsewhere.
        evidence_rows: maximum number of rows of each side that the vector keeps.
        seed: of the sample of rows.
        progress: show a bar when it takes longer than two seconds.

    Warns:
        UserWarning: where a few massive dimensions hold most of a difference in means.

    Raises:
        ValueError: for an empty contrast, one whose two sides are the same, an unknown site or method, and whatever
            ``capture`` refuses.
    """
    options: dict[str, Any] = {"method": method, "reference": reference, "head": head, "progress": progress}
    (vector,) = extract_each(model, contrast, [site], positions, evidence_rows=evidence_rows, seed=seed, **options).values()
    if method == "difference_in_means":
        warn_of_few(vector)
    return vector


def warn_of_few(vector: SteeringVector) -> None:
    """Warn of a vector that lies in a few dimensions, as in models whose activations are massive there (Sun et al. 2024)."""
    squares = vector.direction.double().square()
    if len(squares) < WIDTH:
        return
    share = float(squares.topk(FEW).values.sum() / squares.sum().clamp(min=1e-30))
    if share > MOST:
        warnings.warn(
            f"{FEW} of the {len(squares)} dimensions at {vector.site} hold {share:.0%} of the vector's squared length: such "
            "massive dimensions may say little of the contrast; compare method='robust'",
            UserWarning,
            stacklevel=3,
        )


def extract_each(
    model: HookedModel,
    contrast: Pairs,
    sites: Sequence[str | int],
    positions: Positions = "last",
    *,
    method: str | Method = "difference_in_means",
    reference: Sequence[PromptLike] | None = None,
    head: int | None = None,
    evidence_rows: int = EVIDENCE_ROWS,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, SteeringVector]:
    """``extract`` at several sites, by name of the site; the prompts are read once for all of them."""
    positive, negative = sides(contrast)
    if positive == negative:
        raise ValueError(
            f"both sides of every pair are the same, such as {str(positive[0])[:80]!r}: a contrast needs two different prompts"
        )
    names = [check_site(model, site) for site in sites]
    if (method == MEAN_CENTRING) != (reference is not None):
        raise ValueError(
            "mean_centring needs reference texts, and other methods take none: method='mean_centring', reference=texts"
        )
    if reference is not None:
        if isinstance(reference, str) or not len(reference):
            raise ValueError("reference is a list of texts, at least one")
        negative, method = list(reference), "difference_in_means"
    find_direction = _method(method)
    rows = evidence_rows if find_direction is difference_in_means else max(evidence_rows, METHOD_ROWS)
    parts = {site: slice(None) if head is None else _part_of(model, head, site) for site in names}
    (plus, plus_counts), (minus, minus_counts) = (
        _read_side(model, prompts, parts, positions, rows, seed, progress) for prompts in (positive, negative)
    )
    if find_direction is pca and not torch.equal(plus_counts, minus_counts):
        raise ValueError(
            "pca takes the differences of pairs, but one has more tokens on a side: read as many of both (positions='last')"
        )
    name = method if isinstance(method, str) else getattr(method, "__name__", "custom")
    name = MEAN_CENTRING if reference is not None else name
    vectors = {}
    for site in names:
        p, n = plus[site], minus[site]
        difference = (p.mean - n.mean).to(p.rows.dtype)
        if find_direction is not difference_in_means:
            direction = find_direction(p.rows, n.rows)
            if direction.shape != difference.shape or not torch.isfinite(direction).all():
                raise ValueError(
                    f"{name} returned {tuple(direction.shape)}, not {len(difference)} finite numbers: a vector is one row"
                )
            difference = _projected(difference, direction) if isinstance(method, str) else direction
        kept = [_embedded(side.sample(evidence_rows), parts[site], p.width) for side in (p, n)]
        difference = _embedded(difference[None], parts[site], p.width)[0]
        vectors[site] = SteeringVector(
            difference, site, identity(model), (Contrast(kept[0], kept[1]),), name, describe(positions)
        )
    return vectors


def _method(method: str | Method) -> Method:
    if not isinstance(method, str):
        return method
    return find(method, METHODS, "method", more=f", {MEAN_CENTRING}, or give a function", cutoff=0.3)


class _SideStatistics:
    """Mean and random sample of one side's rows at one site; the sample does not depend on the size of the portions."""

    def __init__(self, limit: int, seed: int) -> None:
        self._limit, self._generator = limit, torch.Generator().manual_seed(seed)
        self._sum: Tensor | None = None
        self._count = 0
        self._keys = torch.empty(0, dtype=torch.float64)
        self.rows = torch.empty(0, 0)
        self.width = 0

    def add(self, rows: Tensor) -> None:
        """Add rows. Each gets a random key; those with the smallest keys form the sample, in their original order."""
        total = rows.double().sum(dim=0)
        self._sum = total if self._sum is None else self._sum + total
        self._count += len(rows)
        keys = torch.cat([self._keys, torch.rand(len(rows), dtype=torch.float64, generator=self._generator)])
        both = torch.cat([self.rows, rows]) if self.rows.numel() else rows
        if len(keys) > self._limit:
            chosen = keys.argsort()[: self._limit].sort().values
            keys, both = keys[chosen], both[chosen]
        self._keys, self.rows = keys, both

    @property
    def mean(self) -> Tensor:
        """Mean over all rows, in float64."""
        assert self._sum is not None
        return self._sum / self._count

    def sample(self, limit: int) -> Tensor:
        """The sample, or a part of it."""
        return self.rows if len(self.rows) <= limit else self.rows[self._keys.argsort()[:limit].sort().values]


def _read_side(
    model: HookedModel,
    prompts: Sequence[PromptLike],
    parts: Mapping[str, slice],
    positions: Positions,
    rows: int,
    seed: int,
    progress: bool,
) -> tuple[dict[str, _SideStatistics], Int[Tensor, " prompt"]]:
    """Statistics of one side's rows at each site, and how many rows each prompt has.

    The n-th row's key is the same for every site and for both sides.
    """
    statistics = {site: _SideStatistics(rows, seed) for site in parts}
    counts = []
    for start in range(0, len(prompts), PORTION):
        portion = prompts[start : start + PORTION]
        acts = capture(model, portion, list(parts), positions, first_text=start, progress=progress)
        counts.append(torch.bincount(acts.text_index - start, minlength=len(portion)))
        for site, part in parts.items():
            statistics[site].width = acts[site].shape[1]
            statistics[site].add(acts[site][:, part])
    return statistics, torch.cat(counts)


def _projected(difference: Tensor, direction: Tensor) -> Tensor:
    """The projection of a difference in means onto a direction."""
    unit = direction.double() / direction.double().norm().clamp(min=1e-30)
    return ((difference.double() @ unit) * unit).to(difference.dtype)


def _part_of(model: HookedModel, head: int, site: str) -> slice:
    """The columns of one head."""
    parts = head_parts(model, site)
    if not 0 <= head < len(parts):
        raise ValueError(f"head={head}: {site!r} has {len(parts)} heads, 0 to {len(parts) - 1}")
    return parts[head]


def _embedded(rows: Tensor, part: slice, width: int) -> Tensor:
    """Rows of one part of a site's columns as rows of the whole site, zero elsewhere."""
    if rows.shape[1] == width:
        return rows
    out = rows.new_zeros(len(rows), width)
    out[:, part] = rows
    return out
