import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
from sklearn.linear_model import Ridge

from interp_transfer.activations.agreement import fvu
from interp_transfer.activations.align import same_tokens
from interp_transfer.mapping.collect import PairedActivations
from interp_transfer.mapping.fit import fit
from interp_transfer.mapping.mappers import Mapper
from interp_transfer.models.identity import ModelIdentity
from interp_transfer.vectors.vector import Contrast, Reference, SteeringVector

SOURCE, TARGET = ModelIdentity("a", "1" * 16), ModelIdentity("b", "2" * 16)
S, T = "blocks.1.hook_resid_pre", "blocks.2.hook_resid_pre"
ROWS_PER_TEXT = 10


def paired(x: torch.Tensor, y: torch.Tensor) -> PairedActivations:
    texts = torch.arange(len(x)) // ROWS_PER_TEXT
    return PairedActivations({S: x}, {T: y}, ((S, T),), texts, texts, SOURCE, TARGET, same_tokens(len(x)))


def planted(rows: int = 2000, d_source: int = 6, d_target: int = 9, noise: float = 0.0):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, d_source, generator=generator) * torch.arange(1, d_source + 1) + 3
    matrix = torch.randn(d_source, d_target, generator=generator)
    y = x @ matrix + torch.randn(d_target, generator=generator)
    return x, y + noise * torch.randn(rows, d_target, generator=generator), matrix


def contrast_vector(x: torch.Tensor) -> SteeringVector:
    positive, negative = x[:40], x[40:100]
    direction = positive.mean(dim=0) - negative.mean(dim=0)
    return SteeringVector(direction, S, SOURCE, (Contrast(positive, negative),))


def test_affine_recovers_a_planted_map_and_its_modes_agree():
    x, y, matrix = planted()
    mapper = fit(paired(x, y), "affine")
    assert mapper.card.fvu < 1e-6
    vector = contrast_vector(x)
    expected = vector.direction @ matrix
    for mode in ("difference", "delta", "jacobian"):
        moved = mapper.transfer(vector, mode)
        torch.testing.assert_close(moved.direction, expected, rtol=1e-3, atol=1e-3)
        assert (moved.site, moved.model) == (T, TARGET)
    bias = mapper(torch.zeros(1, x.shape[1]))[0]
    torch.testing.assert_close(mapper.transfer(vector, "raw").direction, expected + bias, rtol=1e-3, atol=1e-3)


def test_ridge_equals_scikit_learn():
    x, y, _ = planted(noise=2.0)
    pairs = paired(x, y)
    mapper = fit(pairs, "affine", ridge=1e-2)
    train, judge = pairs.split(0.1, 0)
    inside = (x[train] - x[train].mean(0)) / x[train].std(0)
    penalty = 1e-2 * float((inside.double().T @ inside.double()).diagonal().mean())
    theirs = Ridge(alpha=penalty).fit(inside.double().numpy(), y[train].double().numpy())
    guess = theirs.predict(((x[judge] - x[train].mean(0)) / x[train].std(0)).double().numpy())
    torch.testing.assert_close(mapper(x[judge]).double(), torch.from_numpy(guess), rtol=1e-4, atol=1e-4)


def test_affine_chooses_the_ridge_with_the_smallest_held_out_error():
    x, y, _ = planted(rows=200, d_source=40, noise=20.0)
    errors = {r: fit(paired(x, y), "affine", ridge=r).card.fvu for r in (1e-6, 1e-1)}
    assert fit(paired(x, y), "affine").card.fvu <= min(errors.values()) + 1e-6


def test_autoencoder_fits_what_no_affine_map_can():
    x, _, _ = planted()
    hidden = torch.randn(6, 5, generator=torch.Generator().manual_seed(1))
    y = torch.relu((x - x.mean(0)) @ hidden) @ torch.randn(5, 9, generator=torch.Generator().manual_seed(2))
    trained = fit(paired(x, y), "autoencoder", width=32, epochs=60, batch_size=64)
    assert trained.card.fvu < 0.2 * fit(paired(x, y), "affine").card.fvu
    assert trained.card.curve[-1] < trained.card.curve[0]


@pytest.mark.parametrize(("given", "width"), [({}, 4 * 9), ({"width": "paper"}, int((6 * 9) ** 0.5)), ({"width": 5}, 5)])
def test_autoencoder_is_as_wide_as_asked_and_counts_its_parameters(given: dict[str, Any], width: int):
    x, y, _ = planted(rows=200)
    mapper = fit(paired(x, y), "autoencoder", epochs=1, **given)
    assert mapper.card.parameters == 6 * width + width + width * 9 + 9
    assert mapper.card.settings["width"] == width
    assert fit(paired(x, y), "residual", epochs=1, **given).card.settings["width"] == width


@pytest.mark.parametrize("width", [0, -3])
def test_a_hidden_layer_needs_units(width: int):
    x, y, _ = planted(rows=200)
    for kind in ("autoencoder", "residual"):
        with pytest.raises(ValueError, match="hidden units above zero, or 'paper'"):
            fit(paired(x, y), kind, width=width)


def test_the_same_seed_gives_the_same_weights_and_leaves_torch_alone():
    x, y, _ = planted(rows=300)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    one, two, other = (fit(paired(x, y), "autoencoder", epochs=2, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one(x), two(x))
    assert not torch.equal(one(x), other(x))


def test_the_best_weights_are_kept():
    x, y, _ = planted(rows=300, noise=3.0)
    pairs = paired(x, y)
    mapper = fit(pairs, "autoencoder", epochs=40, learning_rate=0.05, batch_size=16, patience=40)
    _, judge = pairs.split(0.1, 0)
    error = ((mapper(x[judge]) - y[judge]) / mapper.scale_out).square().mean()
    assert float(error) == pytest.approx(min(mapper.card.curve), rel=1e-4)
    assert min(mapper.card.curve) < mapper.card.curve[-1]


def test_a_mapper_from_a_model_to_itself_moves_a_vector_onto_itself():
    x, _, _ = planted()
    vector = contrast_vector(x)
    long: dict[str, Any] = {"epochs": 100, "batch_size": 32, "patience": 100}
    pairs = paired(x, x.clone())
    for mapper, tolerance in ((fit(pairs, "affine"), 1e-3), (fit(pairs, "autoencoder", **long), 0.1)):
        moved = mapper.transfer(vector)
        assert float((moved.direction - vector.direction).norm()) < tolerance * vector.norm


def test_shuffled_partners_explain_nothing():
    x, y, _ = planted()
    control = fit(paired(x, y).shuffled(0), "affine")
    assert control.card.shuffled
    assert control.card.fvu > 0.95


def test_the_card_is_of_texts_that_were_not_fitted_on():
    x, y, _ = planted(noise=1.0)
    pairs = paired(x, y)
    mapper = fit(pairs, "affine", held_out=0.25)
    train, judge = pairs.split(0.25, 0)
    assert not set(pairs.text_index[train].tolist()) & set(pairs.text_index[judge].tolist())
    assert mapper.card.held_out_rows == len(judge) == 500
    assert mapper.card.fvu == pytest.approx(fvu(y[judge], mapper(x[judge])))


def test_constant_dimensions_do_no_harm():
    x, y, _ = planted()
    x[:, 2], y[:, 1] = 4.0, -1.0
    mapper = fit(paired(x, y), "affine")
    guess = mapper(x)
    assert torch.isfinite(guess).all()
    torch.testing.assert_close(guess[:, 1], y[:, 1], rtol=1e-3, atol=1e-3)


def test_jacobian_is_the_small_step_limit_of_delta():
    x, _, _ = planted()
    mapper = fit(paired(x, torch.tanh(x) * 3), "autoencoder", epochs=5)
    small = contrast_vector(x) * 1e-4
    delta, jacobian = (mapper.transfer(small, mode).direction for mode in ("delta", "jacobian"))
    torch.testing.assert_close(delta, jacobian, rtol=0.05, atol=1e-6)


def test_difference_moves_a_sum_as_the_sum_of_its_parts():
    x, _, _ = planted()
    mapper = fit(paired(x, torch.tanh(x) * 3), "autoencoder", epochs=5)
    one, two = contrast_vector(x), contrast_vector(x.flip(0))
    parts = mapper.transfer(one).direction * 2 - mapper.transfer(two).direction
    torch.testing.assert_close(mapper.transfer(one * 2 - two).direction, parts, rtol=1e-4, atol=1e-4)


def test_a_moved_vector_keeps_evidence_that_gives_its_direction():
    x, _, _ = planted()
    moved = fit(paired(x, torch.tanh(x) * 3), "autoencoder", epochs=5).transfer(contrast_vector(x))
    assert isinstance(moved.evidence, tuple)
    torch.testing.assert_close(moved.evidence[0].difference(), moved.direction)
    assert "autoencoder" in moved.history[-1]


def test_a_bare_direction_has_no_difference():
    x, y, _ = planted()
    mapper = fit(paired(x, y), "affine")
    bare = SteeringVector(x[0], S, SOURCE, Reference(x[:50]))
    torch.testing.assert_close(mapper.transfer(bare, "delta").direction, mapper.transfer(bare, "jacobian").direction)
    assert torch.equal(mapper.transfer(bare).direction, mapper.transfer(bare, "delta").direction)
    with pytest.raises(ValueError, match="delta"):
        mapper.transfer(replace(bare, evidence=()))


def test_mapper_round_trip(tmp_path):
    x, y, _ = planted(rows=300)
    for kind in ("affine", "autoencoder"):
        mapper = fit(paired(x, y), kind)
        loaded = Mapper.load(mapper.save(tmp_path / kind))
        assert torch.equal(loaded(x), mapper(x))
        assert (loaded.card, loaded.source, loaded.target) == (mapper.card, mapper.source, mapper.target)
        assert sorted(p.name for p in (tmp_path / kind).iterdir()) == ["README.md", "mapper.json", "mapper.safetensors"]


@pytest.mark.parametrize("damage", ["missing", "truncated", "json", "foreign"])
def test_a_damaged_mapper_is_named(tmp_path, damage):
    x, y, _ = planted(rows=300)
    fit(paired(x, y), "affine").save(tmp_path)
    weights, card = tmp_path / "mapper.safetensors", tmp_path / "mapper.json"
    if damage == "missing":
        weights.unlink()
    elif damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:-10])
    elif damage == "json":
        card.write_text(card.read_text()[:50])
    else:
        card.write_text('{"format": "something else"}')
    with pytest.raises(ValueError, match=tmp_path.name):
        Mapper.load(tmp_path)


def test_bad_input_is_refused():
    x, y, _ = planted(rows=300)
    mapper = fit(paired(x, y), "affine")
    vector = contrast_vector(x)
    with pytest.raises(ValueError, match="did you mean 'autoencoder'"):
        fit(paired(x, y), "autoencodr")
    with pytest.raises(ValueError, match="did you mean 'width'"):
        fit(paired(x, y), "autoencoder", widht=3)
    with pytest.raises(ValueError, match="above zero"):
        fit(paired(x, y), "autoencoder", epochs=0)
    with pytest.raises(ValueError, match="did you mean 'difference'"):
        mapper.transfer(vector, "diference")
    with pytest.raises(ValueError, match="two models"):
        mapper.transfer(SteeringVector(vector.direction, S, TARGET))
    with pytest.raises(ValueError, match="fitted at"):
        mapper.transfer(SteeringVector(vector.direction, T, SOURCE))
    with pytest.raises(ValueError, match="takes"):
        mapper(y)
    with pytest.raises(ValueError, match="collect more texts"):
        fit(paired(x[:10], y[:10]), "affine")
    x[5, 2] = float("nan")
    with pytest.raises(ValueError, match="1 of 300 rows"):
        fit(paired(x, y), "affine")


def test_few_pairs_are_warned_about_where_a_regression_is_fitted() -> None:
    x, y, _ = planted(rows=60)
    with pytest.warns(
        UserWarning, match="50 pairs of tokens for the 6 dimensions of blocks.1.hook_resid_pre: .* give more texts"
    ):
        fit(paired(x, y), "affine", progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(paired(x, y), "untrained", progress=False)
        fit(paired(*planted(rows=80)[:2]), "affine", progress=False)
