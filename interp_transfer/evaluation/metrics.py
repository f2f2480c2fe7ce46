"""Measures: how well activations are reproduced, what an intervention costs, and how sure a rate is."""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from scipy.stats import beta
from torch import Tensor
from tqdm.auto import tqdm

from interp_transfer.activations.capture import SECONDS_BEFORE_PROGRESS, by_length, logits_of
from interp_transfer.interventions.apply import Intervention, applied
from interp_transfer.models.sites import HookedModel

CONFIDENCE = 0.95
LOGITS_PER_BATCH = 50_000_000
"""Padding included."""


@dataclass(frozen=True)
class Rate:
    """A share with its exact 95% interval.

    Attributes:
        rate: the share, 0 to 1.
        low: lower end of the interval.
        high: upper end.
        n: how many trials; where trials repeat the same prompts, all of them.
    """

    rate: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.rate:.2f} [{self.low:.2f}, {self.high:.2f}] n={self.n}"

    def to_dict(self) -> dict[str, float | int]:
        """As JSON holds it."""
        return asdict(self)


def rate(outcomes: Sequence[bool]) -> Rate:
    """Share of true outcomes with its Clopper-Pearson interval.

    Raises:
        ValueError: when there are no outcomes.
    """
    if not len(outcomes):
        raise ValueError("a rate of no outcomes: give at least one")
    hits = sum(map(bool, outcomes))
    return Rate(hits / len(outcomes), *_clopper_pearson(hits, len(outcomes)), len(outcomes))


def clustered_rate(outcomes: Sequence[Sequence[bool]]) -> Rate:
    """Share of true outcomes when each prompt was tried several times.

    Trials of one prompt resemble each other, so the interval is that of an effective sample size: the number of trials that
    would have the observed variance between prompts (Korn and Graubard 1998). It lies between the number of prompts and the
    number of trials, and is the number of prompts when they do not vary at all.

    Args:
        outcomes: for each prompt, the outcomes of its trials.
    """
    if not len(outcomes) or not len(outcomes[0]):
        raise ValueError("a rate of no outcomes: give at least one prompt with one trial")
    by_prompt = torch.tensor([[float(x) for x in trials] for trials in outcomes], dtype=torch.float64)
    prompts, trials = by_prompt.shape
    share = float(by_prompt.mean())
    variance = float(by_prompt.mean(dim=1).var()) / prompts if prompts > 1 else 0.0
    effective = prompts if variance == 0 else share * (1 - share) / variance
    effective = min(max(effective, prompts), prompts * trials)
    return Rate(share, *_clopper_pearson(share * effective, effective), prompts * trials)


def _clopper_pearson(hits: float | int, n: float | int) -> tuple[float, float]:
    tail = (1 - CONFIDENCE) / 2
    low = 0.0 if hits <= 0 else float(beta.ppf(tail, hits, n - hits + 1))
    high = 1.0 if hits >= n else float(beta.ppf(1 - tail, hits + 1, n - hits))
    return low, high


def fvu(truth: Float[Tensor, "row d"], guess: Float[Tensor, "row d"]) -> float:
    """Fraction of variance unexplained: squared error over squared distance from the mean of each dimension.

    0 is perfect, 1 is as good as the mean. The mean is taken for each dimension; one number for all dimensions, as the
    paper's code has it, makes the denominator larger and the figure prettier.
    """
    truth, guess = truth.double(), guess.double()
    return float((truth - guess).square().sum() / (truth - truth.mean(dim=0)).square().sum())


def mean_cosine(truth: Float[Tensor, "row d"], guess: Float[Tensor, "row d"]) -> float:
    """Mean over rows of the cosine between the two."""
    return float(torch.nn.functional.cosine_similarity(truth.double(), guess.double(), dim=1).mean())


def norm_ratio(truth: Float[Tensor, "row d"], guess: Float[Tensor, "row d"]) -> float:
    """Mean length of the guesses over mean length of the truth; below 1, a map shrinks."""
    return float(guess.double().norm(dim=1).mean() / truth.double().norm(dim=1).mean())


@dataclass(frozen=True)
class TeacherForced:
    """What interventions do to predictions when the tokens are given.

    Attributes:
        kl: divergence from the model to the model under interventions, in nats per token, for each text.
        agreement: share of the answer's tokens for which both hold the same next token for the likeliest, for each text.
        loss: mean negative log-likelihood of the answer's tokens under interventions, nats per token, for each text.
        loss_before: the same of the model as it is.
    """

    kl: Float[Tensor, " text"]
    agreement: Float[Tensor, " text"]
    loss: Float[Tensor, " text"]
    loss_before: Float[Tensor, " text"]


def predicted(
    model: HookedModel,
    texts: Sequence[Sequence[int]],
    asked: Bool[Tensor, "text column"],
    *interventions: Intervention,
    **placed: Tensor,
) -> Float[Tensor, "row token"]:
    """Log-probabilities of the next token behind some tokens, a row for each token that is asked for, text by text.

    Args:
        model: any hooked model.
        texts: token ids, padded on the right here.
        asked: behind which tokens.
        interventions: what to do.
        placed: ``prompt_lengths`` and ``rows``, as ``applied`` takes them.
    """
    with applied(model, *interventions, **placed) if interventions else nullcontext():
        logits, _ = logits_of(model, texts)
    return logits[asked.to(logits.device)].float().log_softmax(dim=-1)


def divergence(before: Float[Tensor, "row token"], after: Float[Tensor, "row token"]) -> Float[Tensor, " row"]:
    """KL divergence from the one prediction to the other, in nats."""
    return (before.exp() * (before - after)).sum(dim=-1)


def teacher_forced(
    model: HookedModel,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    *interventions: Intervention,
) -> TeacherForced:
    """How the model and the model under interventions predict the same tokens.

    Both read the same tokens, prompt and answer; the figures are averaged over the predictions of the answer's tokens.

    Args:
        model: any hooked model.
        prompts: token ids.
        answers: token ids that follow them.
        interventions: their positions count the answer's tokens as generated.

    Raises:
        ValueError: when an answer is empty or nothing was given.
    """
    return teacher_forced_each(model, prompts, answers, [interventions])[0]


@torch.no_grad()
def teacher_forced_each(
    model: HookedModel,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    settings: Sequence[Sequence[Intervention]],
    *,
    within: Callable[[], AbstractContextManager[Any]] = nullcontext,
    progress: bool = False,
) -> list[TeacherForced]:
    """``teacher_forced`` for each of several settings; the model as it is predicts once for all of them.

    Args:
        model: any hooked model.
        prompts: token ids.
        answers: token ids that follow them.
        settings: interventions that are applied together, for each setting.
        within: makes a block around every reading under a setting, for what is no intervention: ``weights_from``, say.
        progress: show a bar when it takes longer than two seconds.

    Raises:
        ValueError: when an answer is empty or nothing was given.
    """
    if not len(prompts) or any(not len(answer) for answer in answers):
        raise ValueError("the divergence needs at least one text, and a token in each answer")
    kl, agreement, loss = torch.zeros(3, len(settings), len(prompts)).unbind()
    loss_before = torch.zeros(len(prompts))
    rows = [[*p, *a] for p, a in zip(prompts, answers, strict=True)]
    batches = by_length([len(row) for row in rows], LOGITS_PER_BATCH // int(model.cfg.d_vocab))
    total = len(batches) * len(settings)
    with tqdm(total=total, desc="clean KL", delay=SECONDS_BEFORE_PROGRESS, disable=not progress, leave=False) as bar:
        for batch in batches:
            lengths = torch.tensor([len(prompts[i]) for i in batch])
            read = [rows[i] for i in batch]
            ends = torch.tensor([len(rows[i]) for i in batch])
            column = torch.arange(int(ends.max()))
            scored = (column >= lengths[:, None] - 1) & (column < ends[:, None] - 1)  # column t predicts token t + 1
            placed = {"prompt_lengths": lengths, "rows": torch.tensor(batch)}
            row, at = scored.nonzero().T
            text = torch.tensor(batch)[row]
            said = torch.tensor([read[r][c + 1] for r, c in zip(row.tolist(), at.tolist(), strict=True)])
            before = predicted(model, read, scored)
            loss_before.index_add_(0, text, -_of(before, said))
            for index, interventions in enumerate(settings):
                with within():
                    after = predicted(model, read, scored, *interventions, **placed)
                kl[index].index_add_(0, text, divergence(before, after).cpu())
                loss[index].index_add_(0, text, -_of(after, said))
                agreement[index].index_add_(0, text, (before.argmax(dim=-1) == after.argmax(dim=-1)).float().cpu())
                bar.update()
    scores = torch.tensor([len(answer) for answer in answers])
    each = zip(kl, agreement, loss, strict=True)
    return [TeacherForced((k / scores).clamp(min=0), a / scores, x / scores, loss_before / scores) for k, a, x in each]


def _of(predictions: Float[Tensor, "row token"], tokens: Int[Tensor, " row"]) -> Float[Tensor, " row"]:
    """The log-probability of one token in each row."""
    return predictions.gather(1, tokens.to(predictions.device)[:, None])[:, 0].cpu()


def perplexity(loss: float) -> float:
    """Of a mean loss in nats per token: among how many equally likely tokens the model would be as unsure."""
    return math.exp(loss)


@dataclass(frozen=True)
class Recovered:
    """What is left of a model's predictions when something stands in for a site's activations.

    Attributes:
        loss: of given answers, mean over texts, nats per token, under the replacement.
        plain: of the model as it is.
        ablated: with the site's mean activation in place of each.
    """

    loss: float
    plain: float
    ablated: float

    @property
    def share(self) -> float | None:
        """See ``recovered``; None where ablation costs nothing."""
        return recovered(self.loss, self.plain, self.ablated) if self.ablated > self.plain else None

    def to_dict(self) -> dict[str, float | None]:
        """As JSON holds it."""
        return {**asdict(self), "share": self.share}


def loss_recovered(
    model: HookedModel,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    replacement: Intervention,
    ablation: Intervention,
) -> Recovered:
    """The loss of given answers under a replacement, between those of the model as it is and of the mean-ablated one.

    Args:
        model: any hooked model.
        prompts: token ids.
        answers: token ids that follow them.
        replacement: an SAE's reconstruction, or what a mapper makes of another model's activations.
        ablation: the site's mean activation at the same tokens.

    Raises:
        ValueError: when an answer is empty or nothing was given.
    """
    put, gone = teacher_forced_each(model, prompts, answers, [(replacement,), (ablation,)])
    return Recovered(*(float(each.mean()) for each in (put.loss, put.loss_before, gone.loss)))


def recovered(loss: float, plain: float, ablated: float) -> float:
    """How much of what mean ablation costs is kept: 1 is the loss of the model as it is, 0 that of the ablated one.

    The "CE recovered" of the SAE literature, with the mean activation for the worst case. All losses are of the same tokens;
    a loss above that of the ablated model is below 0.

    Raises:
        ValueError: where ablation costs nothing, so that nothing can be recovered.
    """
    if not ablated > plain:
        raise ValueError(f"ablation takes the loss from {plain:.4g} to {ablated:.4g}: where it costs nothing there is no share")
    return (ablated - loss) / (ablated - plain)
