"""Figures of the harness as estimates."""

import pytest

from interp_transfer.evaluation.capability import tasks
from interp_transfer.evaluation.capability.tasks import Capability
from interp_transfer.stats import Estimate


def test_metrics_that_are_no_shares() -> None:
    one = {"filter": "none", "metrics": ["f1", "em"], "f1": 0.5, "em": (1, 2)}
    samples = {"a": [one, {"filter": "x", "metrics": ["em"], "em": 1.0}], "b": [{**one, "f1": 1.0, "em": (3, 4)}] * 3}
    results = {"a": {"em,none": 1.0, "em,x": 1.0}, "b": {"em,none": 0.2}}
    scores, whole = tasks._scores({"samples": samples, "results": results}, ["a", "b"])
    assert isinstance(scores["f1"], Estimate) and (scores["f1"].value, scores["f1"].n) == (0.875, 4)
    assert isinstance(scores["em,x"], Estimate) and (scores["em,x"].value, scores["em,x"].n) == (1.0, 1)
    assert whole == {"em": pytest.approx((2 * 1.0 + 3 * 0.2) / 5)}
    found = Capability({"t": {}, "u": scores}, {"t": whole, "u": {}}, {})
    assert found["u"] == scores["f1"] and "t: em" in str(found) and found.to_dict()["whole"]["t"] == whole
    with pytest.raises(KeyError, match="only .*em"):
        found["t"]
    with pytest.raises(KeyError, match="was not run"):
        found["v"]
