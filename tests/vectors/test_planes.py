"""The planes of the picture of a transfer, against points that were put into a plane."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from interp_transfer.models.identity import ModelIdentity
from interp_transfer.vectors.planes import POINTS, transfer_planes
from interp_transfer.vectors.vector import Contrast, Reference, SteeringVector

D = 7
MODEL, OTHER = ModelIdentity("a", "1" * 16), ModelIdentity("b", "2" * 16)


def basis(seed: int) -> torch.Tensor:
    """An orthonormal basis of D dimensions, a row each."""
    return torch.linalg.qr(torch.randn(D, D, generator=torch.Generator().manual_seed(seed)))[0]


def vector_of(positive: torch.Tensor, negative: torch.Tensor, model: ModelIdentity = MODEL) -> SteeringVector:
    evidence = (Contrast(positive, negative),)
    return SteeringVector(evidence[0].difference(), "blocks.1.hook_resid_pre", model, evidence)


def planted(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two sides that differ by 3 along one direction and vary along another, far from the origin; and both directions."""
    along, other = basis(1)[:2]
    negative = 50 + torch.outer(torch.randn(n, generator=torch.Generator().manual_seed(seed)), other)
    return negative + 3 * along, negative, along, other


def test_planted_points_and_the_vector_lie_in_the_plane() -> None:
    positive, negative, _, other = planted(40)
    vector = vector_of(positive, negative)
    plane = transfer_planes(vector, vector)["source"]
    height = (negative - negative.mean(dim=0)) @ other
    for side, across in (("positive", 3.0), ("negative", 0.0)):
        x, y = np.array(plane["points"][f"source, {side}"]).T
        np.testing.assert_allclose(x, across, atol=1e-3)
        np.testing.assert_allclose(np.abs(y), height.abs().numpy(), atol=1e-3)  # the sign of a component is free
    assert plane["arrows"]["source"] == {"from": [0.0, 0.0], "to": [3.0, 0.0], "in_plane": pytest.approx(1.0, abs=1e-4)}
    assert (plane["model"], plane["site"]) == ("a", "blocks.1.hook_resid_pre")


def test_the_targets_plane_is_that_of_the_native_vector_where_there_is_one() -> None:
    positive, negative, along, other = planted(30)
    native = vector_of(positive, negative, OTHER)
    third = basis(1)[2]
    moved = vector_of(negative + 2 * along + 2 * third, negative + 0.5 * other, OTHER)  # its evidence is elsewhere
    drawn = transfer_planes(vector_of(positive, negative), moved, native)["target"]
    assert set(drawn["points"]) == {f"{whose}, {side}" for whose in ("moved", "native") for side in ("positive", "negative")}
    assert drawn["arrows"]["native"] == {"from": [0.0, 0.0], "to": [3.0, 0.0], "in_plane": pytest.approx(1.0, abs=1e-4)}
    arrow = drawn["arrows"]["moved"]
    assert abs(arrow["from"][1]) == pytest.approx(0.5, abs=0.05) and arrow["from"][0] == pytest.approx(0, abs=1e-3)
    assert arrow["to"][0] - arrow["from"][0] == pytest.approx(2, abs=1e-3)
    assert 0.6 < arrow["in_plane"] < 0.9  # its third direction is not in the plane
    alone = transfer_planes(vector_of(positive, negative), moved)["target"]
    assert set(alone["arrows"]) == {"moved"} and alone["arrows"]["moved"]["in_plane"] == pytest.approx(1.0, abs=1e-4)


def test_many_rows_are_thinned_evenly_with_their_texts() -> None:
    n = 3 * POINTS
    positive, negative, _, other = planted(n)
    texts = ([f"p{i}" for i in range(n)], [f"n{i}" for i in range(n)])
    drawn = transfer_planes(vector_of(positive, negative), vector_of(positive, negative), None, texts)
    kept = [int(text[1:]) for text in drawn["texts"]["negative"]]
    assert len(kept) == POINTS and kept[0] == 0 and kept[-1] == n - 1 and max(np.diff(kept)) <= 4
    y = np.array(drawn["source"]["points"]["source, negative"])[:, 1]
    height = ((negative - negative.mean(dim=0)) @ other)[kept].numpy()
    np.testing.assert_allclose(y * np.sign(y[0] * height[0]), height, atol=1e-3)  # a text belongs to its point
    fewer = transfer_planes(vector_of(positive, negative), vector_of(positive, negative), None, (texts[0][1:], texts[1]))
    assert fewer["texts"] == {"positive": [], "negative": []}  # several tokens of each prompt were read


def test_rows_along_the_vector_alone_have_no_other_direction() -> None:
    along = basis(1)[0]
    vector = vector_of(torch.outer(torch.arange(1.0, 4.0), along), torch.outer(torch.arange(-3.0, 0.0), along))
    points = transfer_planes(vector, vector)["source"]["points"]["source, positive"]
    assert np.isfinite(points).all() and np.abs(np.array(points)[:, 1]).max() < 1e-3


def test_what_is_no_contrast_is_refused() -> None:
    positive, negative, _, _ = planted(5)
    vector = vector_of(positive, negative)
    for evidence in (Reference(positive), (), (*vector.evidence, *vector.evidence)):  # pyright: ignore[reportGeneralTypeIssues]
        with pytest.raises(ValueError, match="no single contrast"):
            transfer_planes(replace(vector, evidence=evidence), vector)
