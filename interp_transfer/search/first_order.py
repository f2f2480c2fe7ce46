"""The first-order effect of adding a vector on the first token of the answers (attribution patching, Nanda 2023)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from interp_transfer.activations.capture import by_length, logits_of
from interp_transfer.evaluation.baselines import answer_tokens
from interp_transfer.evaluation.evaluator import draw
from interp_transfer.evaluation.task import Task
from interp_transfer.interventions.generation import generate_tokens
from interp_transfer.interventions.hooks import applied
from interp_transfer.interventions.intervention import add
from interp_transfer.models.hooked_model import HookedModel, require_gradients
from interp_transfer.models.identity import identity
from interp_transfer.models.tokens import tokenize
from interp_transfer.prompts.chats import Prompt
from interp_transfer.vectors.vector import SteeringVector

TOKENS_PER_BATCH = 512
"""Tokens of a batch, fewer than of a forward pass: the backward pass keeps the activations of all blocks."""


class NothingToPredict(ValueError):
    """The wanted first token is the model's own on every prompt."""


def first_order(
    model: HookedModel, task: Task, sites: Sequence[str], n: int = 60, seed: int = 0
) -> dict[str, Float[Tensor, " d_model"]]:
    """Return the gradient of the wanted first token in a vector that is added at each site.

    The metric is the logit of the wanted first token minus that of the token that the unsteered model predicts, after the
    prompt. Wanted is the first token of the right answer; for a task without answers, the token that the model predicts after
    the positive prompt of the pair. Prompts on which the two tokens are equal are left out. All sites take one forward and one
    backward pass.

    Args:
        model: the model that is steered.
        task: prompts with answers, or else contrast pairs; and positions.
        sites: hook-point names.
        n: number of validation prompts.
        seed: draws the prompts.

    Returns:
        By site, the mean gradient over prompts, in logits per unit of the activation.

    Raises:
        ValueError: for fewer prompts than n, or a quantized model.
        NothingToPredict: when the model predicts the wanted first token on all of them.
    """
    require_gradients(model, "the first-order effect")
    prompts, right = _wanted(model, task, n, seed)
    own = [ids[0] for ids in generate_tokens(model, prompts, max_new_tokens=1, progress=False)]
    kept = [k for k in range(len(prompts)) if right[k] != own[k]]
    if not kept:
        raise NothingToPredict(
            f"{identity(model)} begins every answer as it should: there is nothing to predict for {task.name}"
        )
    rows = tokenize(model, prompts)
    added = {site: torch.zeros(int(model.cfg.d_model), requires_grad=True) for site in sites}
    steer = [add(SteeringVector(v, site, identity(model)), 1.0, task.positions) for site, v in added.items()]
    total = {site: torch.zeros(int(model.cfg.d_model)) for site in sites}
    for batch in by_length([len(rows[k]) for k in kept], TOKENS_PER_BATCH):
        chosen = [kept[b] for b in batch]
        with torch.enable_grad(), applied(model, *steer, rows=torch.tensor(chosen)):
            logits, real = logits_of(model, [rows[k] for k in chosen])
        last = (real.sum(dim=1) - 1).to(logits.device)
        after_prompt = logits[torch.arange(len(chosen), device=logits.device), last].float()
        row = torch.arange(len(chosen))
        metric = after_prompt[row, [right[k] for k in chosen]] - after_prompt[row, [own[k] for k in chosen]]
        for site, gradient in zip(added, torch.autograd.grad(metric.sum(), list(added.values())), strict=True):
            total[site] += gradient
    return {site: gradient / len(kept) for site, gradient in total.items()}


def _wanted(model: HookedModel, task: Task, n: int, seed: int) -> tuple[list[Prompt], list[int]]:
    """Prompts, and the wanted first token of each."""
    if task.answers is not None:
        prompts = draw(task.prompts("validation"), n, seed, f"validation prompts of {task.name}")
        return prompts, [ids[0] for ids in answer_tokens(model, task, prompts)]
    every = task.contrast("validation")
    pairs = draw(every, min(n, len(every)), seed, f"validation pairs of {task.name}")
    wanted = generate_tokens(model, [pair.positive for pair in pairs], max_new_tokens=1, progress=False)
    return [pair.negative for pair in pairs], [ids[0] for ids in wanted]
