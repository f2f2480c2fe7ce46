"""Logistic regression on standardised rows, by scikit-learn: the direction of probes and of one way to extract a vector."""

import torch
from jaxtyping import Float
from torch import Tensor

PENALTY = 1.0
"""scikit-learn's ``C``: the inverse weight of the squared norm, on standardised coordinates."""


def logistic(
    positive: Float[Tensor, "n d_model"], negative: Float[Tensor, "m d_model"], penalty: float = PENALTY
) -> tuple[Float[Tensor, " d_model"], float]:
    """Return the weights and the intercept of a logistic regression, in units of the rows before standardisation.

    Raises:
        ValueError: for an empty side.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    if not len(positive) or not len(negative):
        raise ValueError(f"{len(positive)} positive and {len(negative)} negative rows: a probe needs some of both")
    rows = torch.cat([positive, negative]).double().numpy()
    labels = [1] * len(positive) + [0] * len(negative)
    scaler = StandardScaler().fit(rows)
    fitted = LogisticRegression(C=penalty, max_iter=2000).fit(scaler.transform(rows), labels)
    weights = fitted.coef_[0] / scaler.scale_
    return torch.from_numpy(weights).to(positive.dtype), float(fitted.intercept_[0] - weights @ scaler.mean_)
