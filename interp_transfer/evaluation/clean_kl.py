"""Clean KL: what an intervention costs where it is not needed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp_transfer.interventions.intervention import Intervention
from interp_transfer.interventions.predictions import Unsteered, teacher_forced_each
from interp_transfer.models.hooked_model import HookedModel


@dataclass(frozen=True)
class CleanKL:
    """Measures interventions by their divergence on the unsteered model's own answers to clean prompts.

    Attributes:
        prompts: token ids.
        answers: token ids that follow them.
        skip: how many tokens of each answer are a reasoning block, which is not measured; none if empty.
    """

    prompts: tuple[tuple[int, ...], ...]
    answers: tuple[tuple[int, ...], ...]
    skip: tuple[int, ...] = ()

    def __call__(
        self,
        model: HookedModel,
        settings: Sequence[Sequence[Intervention]],
        progress: bool = False,
        unsteered: Unsteered | None = None,
    ) -> list[Float[Tensor, " prompt"]]:
        """Return the divergence from the unsteered model under each setting, in nats per token; 0 without interventions."""
        steered = [setting for setting in settings if setting]
        options: dict[str, Any] = {"skip": self.skip or None, "progress": progress, "unsteered": unsteered}
        each = iter(teacher_forced_each(model, self.prompts, self.answers, steered, **options) if steered else [])
        return [next(each).kl if setting else torch.zeros(len(self.prompts)) for setting in settings]
