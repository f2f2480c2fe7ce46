"""Perplexity, and how much of the loss that mean ablation costs is recovered."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from interp_transfer.interventions.intervention import Intervention
from interp_transfer.interventions.predictions import teacher_forced_each
from interp_transfer.models.hooked_model import HookedModel


def perplexity(loss: float) -> float:
    """Of a mean loss in nats per token: among how many equally likely tokens the model would be as unsure."""
    return math.exp(loss)


@dataclass(frozen=True)
class Recovered:
    """What is left of a model's predictions when something stands in for a site's activations.

    Attributes:
        loss: of given answers, mean over texts, nats per token, under the replacement.
        plain: of the model as it is.
        ablated: with the site's mean activation in place of each.
    """

    loss: float
    plain: float
    ablated: float

    @property
    def share(self) -> float | None:
        """See ``recovered``; None where ablation costs nothing."""
        return recovered(self.loss, self.plain, self.ablated) if self.ablated > self.plain else None

    def to_dict(self) -> dict[str, float | None]:
        """As JSON holds it."""
        return {**asdict(self), "share": self.share}


def loss_recovered(
    model: HookedModel,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    replacement: Intervention,
    ablation: Intervention,
) -> Recovered:
    """The loss of given answers under a replacement, between those of the model as it is and of the mean-ablated one.

    Args:
        model: any hooked model.
        prompts: token ids.
        answers: token ids that follow them.
        replacement: an SAE's reconstruction, or what a mapper makes of another model's activations.
        ablation: the site's mean activation at the same tokens.

    Raises:
        ValueError: when an answer is empty or nothing was given.
    """
    put, gone = teacher_forced_each(model, prompts, answers, [(replacement,), (ablation,)])
    return Recovered(*(float(each.mean()) for each in (put.loss, put.loss_before, gone.loss)))


def recovered(loss: float, plain: float, ablated: float) -> float:
    """How much of what mean ablation costs is kept: 1 is the loss of the model as it is, 0 that of the ablated one.

    The "CE recovered" of the SAE literature, with the mean activation for the worst case. All losses are of the same tokens;
    a loss above that of the ablated model is below 0.

    Raises:
        ValueError: where ablation costs nothing, so that nothing can be recovered.
    """
    if not ablated > plain:
        raise ValueError(f"ablation takes the loss from {plain:.4g} to {ablated:.4g}: where it costs nothing there is no share")
    return (ablated - loss) / (ablated - plain)
