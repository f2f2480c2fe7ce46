"""How far judges agree with the truth, and how sure that is."""

import json

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from interp_transfer.evaluation.judges import Opinion
from interp_transfer.evaluation.judges.agreement import agreement, auroc_interval, mean_over_prompts, separation
from interp_transfer.stats import rate


def test_a_yes_or_no_judge_by_hand():
    said = [True, True, False, None, False, True]
    truth = [True, False, False, True, True, True]
    found = agreement(said, truth)
    assert found.agree == rate([True, False, True, False, True])
    assert found.sensitivity == rate([True, False, True])
    assert found.specificity == rate([False, True])
    assert found.missing == rate([False, False, False, True, False, False])
    assert json.loads(json.dumps(found.to_dict()))["agree"]["n"] == 5


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


def test_a_perfect_area_is_not_certain():
    low, high = auroc_interval(1.0, 20, 20)
    assert (0.8 < low < 0.95, high) == (True, 1.0)
    assert auroc_interval(0.0, 20, 20) == pytest.approx((0.0, 1 - low))
    lows = [auroc_interval(1.0, n, n)[0] for n in (5, 20, 100, 1000)]
    assert lows == sorted(lows)
    assert lows[-1] < 1
    for bad in ((1.1, 5, 5), (0.5, 0, 5)):
        with pytest.raises(ValueError, match="an area of"):
            auroc_interval(*bad)


def test_the_interval_covers_as_often_as_it_says():
    generator = np.random.default_rng(1)
    n, m, shift = 30, 40, 1.2
    true = float(norm.cdf(shift / 2**0.5))
    hits = []
    for _ in range(600):
        one, other = generator.normal(shift, 1, n), generator.normal(0, 1, m)
        area = float((one[:, None] > other[None]).mean())
        low, high = auroc_interval(area, n, m)
        hits.append(low <= true <= high)
    assert 0.93 < np.mean(hits) <= 0.985


def test_large_samples_have_the_usual_interval():
    area, n = 0.8, 5000
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    half = 1.96 * ((area * (1 - area) + (n - 1) * (q1 + q2 - 2 * area**2)) / n**2) ** 0.5
    assert auroc_interval(area, n, n) == pytest.approx((area - half, area + half), abs=5e-4)


def test_a_mean_over_prompts():
    values = np.random.default_rng(0).exponential(size=300)
    mean, low, high = mean_over_prompts(values.tolist())
    assert mean == pytest.approx(values.mean())
    half = 1.96 * values.std(ddof=1) / 300**0.5
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=0.25 * half)
    assert mean_over_prompts(values.tolist()) == (mean, low, high)
    assert mean_over_prompts([2.0, 2.0]) == (2, 2, 2)
    with pytest.raises(ValueError, match="mean of nothing"):
        mean_over_prompts([])
