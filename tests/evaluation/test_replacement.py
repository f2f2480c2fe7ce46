"""Full replacement: figures by hand, and a model in place of itself."""

import math
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy.stats import binomtest

import interp_transfer as it
from interp_transfer.evaluation.replacement import closer, validate_replacement
from interp_transfer.evaluation.rouge import rouge
from interp_transfer.interventions.follow import follow
from interp_transfer.interventions.predictions import teacher_forced_each
from interp_transfer.interventions.transforms import MeanAblate
from interp_transfer.models.tokens import tokenize
from tests.checkpoints import TEXTS, WIDTH

SITE = "blocks.2.hook_resid_pre"
NEW = 6


def test_rouge_by_hand() -> None:
    scores = rouge(["The cat sat", "one", "", "a b c"], ["the cat ran off", "one", "", "c b a"])
    assert scores["rouge1"] == pytest.approx([2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4), 1, 0, 1])
    assert scores["rouge2"] == pytest.approx([2 * (1 / 2) * (1 / 3) / (1 / 2 + 1 / 3), 0, 0, 0])
    assert scores["rougeL"] == pytest.approx([4 / 7, 1, 0, 1 / 3])
    with pytest.raises(ValueError, match="give as many"):
        rouge(["a"], [])


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
    with pytest.raises(ImportError, match=r"interp-transfer\[rouge\]"):
        rouge(["a"], ["a"])


def test_ties_count_as_not_closer() -> None:
    found = closer([0.5, 0.2, 1.0, 0.0, 0.9], [0.4, 0.2, 1.0, 0.3, 0.1])
    exact = binomtest(2, 5).proportion_ci(0.95, method="exact")
    assert (found.share.value, found.share.n, found.ties) == (0.4, 5, 2)
    assert (found.share.low, found.share.high) == pytest.approx((exact.low, exact.high))
    assert found.decided is not None
    assert (found.decided.value, found.decided.n) == (pytest.approx(2 / 3), 3)
    assert closer([1.0], [1.0]).decided is None


@torch.no_grad()
def test_agreement_and_divergence_by_hand(wrapped: Callable[[str], Any]) -> None:
    model = wrapped("qwen2")
    prompts, answers = tokenize(model, TEXTS), [[7, 8, 9], [10], [11, 12], [13, 14, 15, 16]]
    shift = it.Intervention(SITE, MeanAblate(torch.ones(WIDTH)), "generated")
    [found] = teacher_forced_each(model, prompts, answers, [(shift,)])
    assert 0 < float(found.agreement.mean()) < 1 and float(found.kl[0]) > 0
    for i, (p, a) in enumerate(zip(prompts, answers, strict=True)):
        plain = model(torch.tensor([[*p, *a]]))[0].log_softmax(-1)[len(p) - 1 : -1]
        with it.applied(model, shift, prompt_lengths=torch.tensor([len(p)])):
            other = model(torch.tensor([[*p, *a]]))[0].log_softmax(-1)[len(p) - 1 : -1]
        assert float(found.agreement[i]) == pytest.approx(float((plain.argmax(-1) == other.argmax(-1)).float().mean()))
        kl = (plain.exp() * (plain - other)).sum(-1).mean()
        assert float(found.kl[i]) == pytest.approx(float(kl), abs=1e-4)
        assert len(a) > 1 or float(found.kl[i]) == pytest.approx(0, abs=1e-6), "the first token is predicted from the prompt"


def test_a_model_in_place_of_itself(wrapped: Callable[[str], Any]) -> None:
    model = wrapped("qwen2")
    made = it.generate(model, TEXTS, max_new_tokens=NEW)
    found = validate_replacement(
        model,
        model,
        follow(model, SITE, SITE),
        TEXTS,
        oracle=lambda prompt, completion: completion == made[TEXTS.index(prompt)],
        group=lambda prompt: "long" if len(prompt) > 20 else "short",
        max_new_tokens=NEW,
    )
    assert found.completions["target"] == found.completions["mapped"] == found.completions["source"] == tuple(made)
    assert set(found.slices) == {"all", "long", "short"} and found.count("long") + found.count("short") == len(TEXTS)
    whole = found.slices["all"]
    assert whole["mapped"].means["kl"].value == pytest.approx(0, abs=1e-4) and whole["mapped"].means["agreement"].value == 1
    ablated = whole["mean_ablated"].means["kl"]
    assert ablated.low < ablated.value < ablated.high and ablated.value > 0.01 and ablated.n == len(TEXTS)
    assert whole["target"].valid is not None and whole["target"].valid.value == 1
    assert "kl" not in whole["source"].means and not whole["mean_ablated"].mva
    assert set(whole["mapped"].tvs) == {"rouge1", "rouge2", "rougeL", "oracle"}
    assert set(whole["mapped"].mva) == {*whole["mapped"].tvs, "kl"}
    assert whole["mapped"].mva["kl"].share.value == 1
    # The source says what the target says: TvS knows no difference, and every prompt is a tie.
    assert whole["mapped"].tvs["rouge1"].ties == len(TEXTS) and whole["mapped"].tvs["rouge1"].share.value == 0
    lost = [x != y for x, y in zip(found.completions["mean_ablated"], made, strict=True)]
    assert whole["mapped"].mva["oracle"].share.value == sum(lost) / len(lost) > 0
    frame = found.to_frame()
    assert len(frame) == 3 * 4 and frame.loc[("all", "mapped"), "mva_oracle"] == sum(lost) / len(lost)
    assert math.isnan(float(frame.loc[("all", "source"), "kl"]))  # type: ignore[arg-type]
    assert "mva_rouge1" in repr(found)


def test_a_control_is_validated_in_the_same_way(wrapped: Callable[[str], Any]) -> None:
    target, source = wrapped("qwen2"), wrapped("llama")
    control = it.Intervention(SITE, MeanAblate(torch.zeros(WIDTH)))
    found = validate_replacement(source, target, control, TEXTS, max_new_tokens=NEW)
    assert list(found.completions["mapped"]) == it.generate(target, TEXTS, control, max_new_tokens=NEW)
    kl = found.slices["all"]["mapped"].means["kl"]
    assert kl.low < kl.value < kl.high and kl.value > 0.01


def test_shares_are_those_of_the_completions(wrapped: Callable[[str], Any]) -> None:
    target, source = wrapped("qwen2"), wrapped("llama")
    found = validate_replacement(source, target, follow(source, SITE, SITE), TEXTS, max_new_tokens=NEW, texts=["some", "texts"])
    said = found.completions
    assert list(said["source"]) == it.generate(source, TEXTS, max_new_tokens=NEW)
    mean = it.capture(target, ["some", "texts"], SITE)[SITE].mean(dim=0)
    ablated = it.Intervention(SITE, MeanAblate(mean))
    assert list(said["mean_ablated"]) == it.generate(target, TEXTS, ablated, max_new_tokens=NEW)
    score = {
        n: rouge(said["mapped"] if n != "ablated" else said["mean_ablated"], said["source" if n == "source" else "target"])
        for n in ("target", "ablated", "source")
    }
    for kind in ("rouge1", "rougeL"):
        mva = [a > b for a, b in zip(score["target"][kind], score["ablated"][kind], strict=True)]
        tvs = [a > b for a, b in zip(score["target"][kind], score["source"][kind], strict=True)]
        figures = found.slices["all"]["mapped"]
        assert figures.mva[kind].share.value == sum(mva) / len(mva)
        assert figures.tvs[kind].share.value == sum(tvs) / len(tvs)
        assert figures.means[kind].value == pytest.approx(sum(score["target"][kind]) / len(TEXTS))
    assert figures.valid is None


def test_what_cannot_be_validated(wrapped: Callable[[str], Any]) -> None:
    model = wrapped("qwen2")
    same = follow(model, SITE, SITE)
    with pytest.raises(ValueError, match="no prompts"):
        validate_replacement(model, model, same, [])
    with pytest.raises(ValueError, match="2 sites"):
        validate_replacement(model, model, it.Intervention((SITE, SITE), same.transform), TEXTS)
