"""How much of the loss that mean ablation costs is recovered by a replacement of activations."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from interp_transfer.interventions.intervention import Intervention
from interp_transfer.interventions.predictions import teacher_forced_each
from interp_transfer.models.hooked_model import HookedModel


@dataclass(frozen=True)
class Recovered:
    """The loss of a model's predictions when something replaces a site's activations.

    Attributes:
        loss: of given answers under the replacement, mean over texts, in nats per token.
        plain: of the unchanged model.
        ablated: with the site's mean activation in place of each.
    """

    loss: float
    plain: float
    ablated: float

    @property
    def share(self) -> float | None:
        """The share of the ablation's cost that is recovered; None where ablation costs nothing.

        The "CE recovered" of the SAE literature, with the mean activation as the worst case: 1 for the loss of the unchanged
        model, 0 for that of the ablated one, below 0 for a higher loss.
        """
        cost = self.ablated - self.plain
        return (self.ablated - self.loss) / cost if cost > 0 else None

    def to_dict(self) -> dict[str, float | None]:
        """Return the fields and the share as JSON stores them."""
        return {**asdict(self), "share": self.share}


def loss_recovered(
    model: HookedModel,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    replacement: Intervention,
    ablation: Intervention,
) -> Recovered:
    """Measure the loss of given answers under a replacement and under mean ablation.

    Args:
        model: any hooked model.
        prompts: token ids.
        answers: token ids that follow them.
        replacement: an SAE's reconstruction, or another model's mapped activations.
        ablation: the site's mean activation at the same tokens.

    Raises:
        ValueError: when an answer is empty or there are none.
    """
    replaced, ablated = teacher_forced_each(model, prompts, answers, [(replacement,), (ablation,)])
    return Recovered(*(float(each.mean()) for each in (replaced.loss, replaced.loss_before, ablated.loss)))
