"""Extraction where a few dimensions are massive."""

import warnings

import pytest
import torch

from interp_transfer.models.identity import ModelIdentity
from interp_transfer.studies.options import RunOptions
from interp_transfer.vectors.extract import METHODS, difference_in_means, robust, warn_of_few
from interp_transfer.vectors.vector import SteeringVector


def two_sides(massive: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows of both sides with a planted difference, and two dimensions of another spread whose difference is noise."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.zeros(64)
    truth[3:11] = 1.0
    rows = torch.randn(2, 64, 64, generator=generator)
    rows[:, :, 40:42] *= massive
    rows[0] += truth
    return rows[0], rows[1], truth


def cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(one, other, dim=0))


def test_a_massive_dimension_hides_the_difference_in_means_alone():
    positive, negative, truth = two_sides(300.0)
    assert cosine(difference_in_means(positive, negative), truth) < 0.2
    assert cosine(robust(positive, negative), truth) > 0.8


def test_without_one_it_is_nearly_the_difference_in_means():
    positive, negative, _ = two_sides(1.0)
    assert cosine(robust(positive, negative), difference_in_means(positive, negative)) > 0.97


def test_a_few_massive_rows_do_not_decide():
    positive, negative, truth = two_sides(1.0)
    positive[:2, 50] += 2000.0
    assert cosine(difference_in_means(positive, negative), truth) < 0.2
    assert cosine(robust(positive, negative), truth) > 0.8


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_dimensions_that_never_change_are_left(value: float):
    positive, negative, _ = two_sides(1.0)
    positive[:, 20] = negative[:, 20] = value
    found = robust(positive, negative)
    assert torch.isfinite(found).all() and found[20] == 0


@pytest.mark.parametrize(("width", "massive", "warned"), [(256, True, True), (256, False, False), (255, True, False)])
def test_a_vector_of_few_dimensions_is_warned_of(width: int, massive: bool, warned: bool):
    direction = torch.ones(width)
    direction[:3] = 20.0 if massive else 1.0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_few(SteeringVector(direction, "blocks.1.hook_resid_pre", ModelIdentity("tiny", "0")))
    assert len(caught) == warned
    if warned:
        assert "3 of the 256 dimensions at blocks.1.hook_resid_pre hold 83%" in str(caught[0].message)


def test_it_has_a_name():
    assert METHODS["robust"] is robust


def test_a_run_can_ask_for_it():
    assert RunOptions(method="robust").to_dict()["method"] == "robust"
    with pytest.raises(ValueError, match="robust"):
        RunOptions(method="robst")
