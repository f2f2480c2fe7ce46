"""Completions of the same prompts under several settings."""

from collections.abc import Sequence

from interp_transfer.evaluation.reasoning import without_reasoning
from interp_transfer.interventions.generation import generate
from interp_transfer.interventions.intervention import Intervention
from interp_transfer.interventions.merging import can_share, merged
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.prompts.chats import Prompt


def completions_each(
    model: HookedModel,
    prompts: Sequence[Prompt],
    settings: Sequence[Sequence[Intervention]],
    max_new_tokens: int,
    progress: bool = True,
) -> list[list[str]]:
    """Complete the same prompts under each of several settings; those that add vectors at the same sites share batches.

    Completions are returned without their reasoning blocks.

    Args:
        model: any hooked model.
        prompts: texts or chats.
        settings: for each setting, interventions that are applied together.
        max_new_tokens: maximum length of a completion.
        progress: show bars when it takes longer than two seconds.
    """
    completions: list[list[str]] = [[] for _ in settings]
    n = len(prompts)
    for group in _batched(settings):
        steer = settings[group[0]] if len(group) == 1 else merged([settings[k] for k in group], n)
        texts = generate(model, [*prompts] * len(group), *steer, max_new_tokens=max_new_tokens, progress=progress)
        for block, k in enumerate(group):
            completions[k] = without_reasoning(model, prompts, texts[block * n : block * n + n])
    return completions


def _batched(settings: Sequence[Sequence[Intervention]]) -> list[list[int]]:
    """Group the indices of settings that can share batches."""
    groups: list[list[int]] = []
    for k, setting in enumerate(settings):
        group = next((g for g in groups if can_share(setting, settings[g[0]])), None)
        if group is None:
            groups.append([k])
        else:
            group.append(k)
    return groups
