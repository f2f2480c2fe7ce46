"""How far judges agree with the truth, and how sure that is."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from interp_transfer.evaluation.judges import Opinion
from interp_transfer.evaluation.judges.agreement import agreement, kappa, separation
from interp_transfer.stats import rate


def test_a_yes_or_no_judge_by_hand():
    said = [True, True, False, None, False, True]
    truth = [True, False, False, True, True, True]
    found = agreement(said, truth)
    assert found.agree == rate([True, False, True, False, True])
    assert found.sensitivity == rate([True, False, True])
    assert found.specificity == rate([False, True])
    assert found.missing == rate([False, False, False, True, False, False])
    assert found.agree.n == 5


def test_one_sided_truths_and_no_opinions():
    assert agreement([True, False], [True, True]).specificity is None
    assert agreement([True, False], [False, False]).sensitivity is None
    with pytest.raises(ValueError, match="every opinion is missing"):
        agreement([None, None], [True, False])
    with pytest.raises(ValueError, match="2 opinions and 1 truths"):
        agreement([True, False], [True])


def test_scores_by_scikit_learn():
    generator = np.random.default_rng(0)
    truth = generator.random(200) < 0.4
    scores = np.round(generator.normal(size=200) + truth, 1)  # with ties
    opinions = [Opinion(float(s), "") for s in scores]
    found = separation(opinions, truth.tolist())
    assert found.auroc == pytest.approx(roc_auc_score(truth, scores))
    assert (found.n_true, found.n_false) == (int(truth.sum()), int((~truth).sum()))
    assert found.low < found.auroc < found.high
    turned = separation(opinions, truth.tolist(), high_is_true=False)
    assert turned.auroc == pytest.approx(1 - found.auroc)
    assert (turned.low, turned.high) == pytest.approx((1 - found.high, 1 - found.low))
    assert "n=" in str(found)


def test_missing_scores_are_left_out_and_counted():
    opinions = [Opinion(1.0, ""), Opinion(None, ""), Opinion(0.0, ""), Opinion(None, "")]
    found = separation(opinions, [True, False, False, True])
    assert (found.auroc, found.n_true, found.n_false) == (1, 1, 1)
    assert found.missing == rate([False, True, False, True])
    with pytest.raises(ValueError, match="both sides are needed"):
        separation(opinions, [True, False, True, True])
    with pytest.raises(ValueError, match="truths"):
        separation(opinions, [True])


def test_kappa_is_that_of_scikit_learn_and_its_interval_is_over_prompts():
    generator = np.random.default_rng(0)
    truth = generator.integers(3, size=200)
    said = np.where(generator.random(200) < 0.8, truth, generator.integers(3, size=200))
    apart = kappa(said.tolist(), truth.tolist(), list(range(200)))
    assert apart.value == pytest.approx(cohen_kappa_score(said, truth)) and apart.n == 200
    assert apart.low < apart.value < apart.high
    five_times = kappa(said.repeat(5).tolist(), truth.repeat(5).tolist(), list(np.arange(200).repeat(5)))
    assert five_times.value == pytest.approx(apart.value)
    assert five_times.high - five_times.low == pytest.approx(apart.high - apart.low, rel=0.1), "copies are no new evidence"


def test_kappa_of_labels_that_tell_nothing():
    same = kappa(["a"] * 4, ["a"] * 4, [1, 1, 2, 2])
    assert np.isnan(same.value) and np.isnan(same.low)
    assert kappa([True, False] * 8, [True, False] * 8, list(range(16))).value == 1
    assert kappa([True, False] * 8, [False, True] * 8, list(range(16))).value == -1
    for wrong in (([True], [True, False], [1]), ([True], [True], [1, 2]), ([], [], [])):
        with pytest.raises(ValueError, match="opinions|labels"):
            kappa(*wrong)
