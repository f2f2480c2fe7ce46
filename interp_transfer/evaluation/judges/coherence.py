"""Measures of coherence: the perplexity of a completion under a reference model, and its repetition.

`PerplexityJudge` measures the mean negative log-probability of the completion's tokens, teacher-forced after the prompt, in
nats per token; perplexity is its exponential. It measures fluency: a broken answer has a high value, but so has a right one
that the reference model did not expect, and a fluent wrong one has not.

`RepetitionShare` is the share of a completion's n-grams that occurred in it before, 1 - distinct-n (Li et al. 2016, "A
Diversity-Promoting Objective Function for Neural Conversation Models"). `distinct_n` is distinct-n over many completions.
"""

import math
import re
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from interp_transfer.evaluation.capability.harness import continuations
from interp_transfer.evaluation.judges.local import PORTION
from interp_transfer.evaluation.judges.opinion import Item, Opinion
from interp_transfer.evaluation.judges.rules import RepetitionJudge
from interp_transfer.models.hooked_model import HookedModel, context_length
from interp_transfer.models.identity import identity
from interp_transfer.models.tokens import tokenize


@dataclass(frozen=True)
class PerplexityJudge:
    """Nats per token of completions under a reference model; low is good.

    Missing for a completion without a token, and for one that exceeds the model's context with its prompt.

    Attributes:
        model: any hooked model but the one that was steered, which predicts its own behaviour.
    """

    model: HookedModel = field(repr=False)
    name: str = "perplexity"
    scale: str = "nats per token under a reference model, 0 or more, low is fluent"
    needs_reference: bool = False

    @property
    def identity(self) -> Mapping[str, Any]:
        """The reference model."""
        here = identity(self.model)
        return {"judge": "perplexity/1", "model": here.name, "fingerprint": here.fingerprint}

    def opinions(self, items: Sequence[Item]) -> Generator[tuple[int, Opinion], None, None]:
        """Yield opinions in portions, within which completions of similar length are read together."""
        spans, limit = [], context_length(self.model)
        for index, item in enumerate(items):
            ids, start = _tokens(self.model, item)
            if start >= len(ids):
                yield index, Opinion(None, "empty: the completion has no token to predict")
            elif len(ids) > limit:
                yield index, Opinion(None, f"too long: {len(ids)} tokens with its prompt, the model's context is {limit}")
            else:
                spans.append((index, ids[:start], ids[start:]))
        for first in range(0, len(spans), PORTION):
            portion = spans[first : first + PORTION]
            likelihoods = continuations(self.model, [(prompt, completion) for _, prompt, completion in portion])
            for (index, _, completion), (log_probability, _) in zip(portion, likelihoods, strict=True):
                yield index, _surprise(-log_probability / len(completion), len(completion))


def _tokens(model: HookedModel, item: Item) -> tuple[list[int], int]:
    """Token ids of prompt and completion as one text, and the index of the completion's first token.

    A token that spans the boundary belongs to the completion. The first token of the text is not predicted.
    """
    if not item.prompt + item.completion:
        return [], 0
    rows = tokenize(model, [item.prompt + item.completion, item.prompt or item.completion], any_length=True)
    whole, prompt = rows[0], rows[1] if item.prompt else []
    shared = next((i for i, (a, b) in enumerate(zip(whole, prompt, strict=False)) if a != b), min(len(whole), len(prompt)))
    return whole, max(shared, 1) if item.completion else len(whole)


def _surprise(nats: float, tokens: int) -> Opinion:
    if not math.isfinite(nats):
        return Opinion(None, "not a number: the reference model's prediction is not finite")
    return Opinion(nats, f"perplexity {math.exp(min(nats, 700)):.4g} over {tokens} tokens")


@dataclass(frozen=True)
class RepetitionShare:
    """The share of a completion's n-grams of words that occurred in it before; low is good. Needs no model.

    Missing for a completion of fewer than ``n`` words.

    Attributes:
        n: number of words in an n-gram.
    """

    n: int = 2
    name: str = "repetition"
    scale: str = "share of n-grams that occurred before in the same completion, 0 to 1, low is varied"
    needs_reference: bool = False

    def __post_init__(self) -> None:
        """Reject n below 1."""
        if self.n < 1:
            raise ValueError(f"n={self.n}: an n-gram has at least one word")

    @property
    def identity(self) -> Mapping[str, Any]:
        """The size of the n-grams."""
        return {"judge": "repetition/1", "n": self.n}

    def opinions(self, items: Sequence[Item]) -> Generator[tuple[int, Opinion], None, None]:
        """Yield opinions in order. The reason also has the verdict of `RepetitionJudge`."""
        verdicts = RepetitionJudge()([item.prompt for item in items], [item.completion for item in items])
        for index, (item, verdict) in enumerate(zip(items, verdicts, strict=True)):
            grams = _grams(item.completion, self.n)
            if not grams:
                yield index, Opinion(None, f"too short: it has no {self.n} words")
                continue
            yield (
                index,
                Opinion(1 - len(set(grams)) / len(grams), f"{len(set(grams))} of {len(grams)} differ; {verdict.reason}"),
            )


def distinct_n(completions: Iterable[str], n: int) -> float:
    """Return the share of distinct n-grams of words in all completions together, 0 to 1. Falls with the number of completions.

    Raises:
        ValueError: when no completion has as many words.
    """
    grams = [gram for text in completions for gram in _grams(text, n)]
    if not grams:
        raise ValueError(f"distinct-{n} of nothing: no completion has {n} words")
    return len(set(grams)) / len(grams)


def _grams(text: str, n: int) -> list[tuple[str, ...]]:
    words = re.findall(r"\w+|[^\w\s]", text)
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
