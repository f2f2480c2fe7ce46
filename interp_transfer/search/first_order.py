"""What adding a vector would do to the first token of the answers, to first order (attribution patching, Nanda 2023)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from interp_transfer.activations.capture import TOKENS_PER_BATCH, by_length, logits_of
from interp_transfer.evaluation.evaluator import draw
from interp_transfer.evaluation.task import Task
from interp_transfer.interventions.generation import generate_tokens
from interp_transfer.interventions.hooks import applied
from interp_transfer.interventions.intervention import add
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.identity import identity
from interp_transfer.models.tokens import tokenize, tokenizer_of
from interp_transfer.vectors.vector import SteeringVector


def first_order(
    model: HookedModel, task: Task, sites: Sequence[str], n: int = 60, seed: int = 0
) -> dict[str, Float[Tensor, " d_model"]]:
    """What adding a vector at each site would do to the first token of the answer, to first order.

    The metric is the logit of the right answer's first token less that of the token that the model says by itself, behind
    the prompt; prompts on which the two are the same say nothing and are left out.

    Args:
        model: that is steered.
        task: prompts, answers and positions.
        sites: where.
        n: validation prompts.
        seed: draws them.

    Returns:
        By site, the mean over prompts of the metric's gradient in a vector that is added at the task's positions, in logits
        per unit of the activation. All of them take one forward and one backward pass.

    Raises:
        ValueError: for fewer prompts than n, or when the model says the right first token to all of them.
    """
    prompts = draw(task.prompts("validation"), n, seed, f"validation prompts of {task.name}")
    tok = tokenizer_of(model)
    right = [ids[0] for ids in tok(task.answers(prompts), add_special_tokens=False)["input_ids"]]
    said = [ids[0] for ids in generate_tokens(model, prompts, max_new_tokens=1, progress=False)]
    asked = [k for k in range(n) if right[k] != said[k]]
    if not asked:
        raise ValueError(f"{identity(model)} begins every answer as it should: there is nothing to predict for {task.name}")
    rows = tokenize(model, prompts)
    added = {site: torch.zeros(int(model.cfg.d_model), requires_grad=True) for site in sites}
    steer = [add(SteeringVector(v, site, identity(model)), 1.0, task.positions) for site, v in added.items()]
    total = {site: torch.zeros(int(model.cfg.d_model)) for site in sites}
    for batch in by_length([len(rows[k]) for k in asked], TOKENS_PER_BATCH):
        chosen = [asked[b] for b in batch]
        with torch.enable_grad(), applied(model, *steer, rows=torch.tensor(chosen)):
            logits, real = logits_of(model, [rows[k] for k in chosen])
        last = (real.sum(dim=1) - 1).to(logits.device)
        behind = logits[torch.arange(len(chosen), device=logits.device), last].float()
        which = torch.arange(len(chosen))
        metric = behind[which, [right[k] for k in chosen]] - behind[which, [said[k] for k in chosen]]
        for (site, _), slope in zip(added.items(), torch.autograd.grad(metric.sum(), list(added.values())), strict=True):
            total[site] += slope
    return {site: slope / len(asked) for site, slope in total.items()}
