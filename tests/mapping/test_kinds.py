"""Each kind of mapper recovers what it is for, and says what it cannot do."""

from typing import Any

import pytest
import torch

from interp_transfer.activations.agreement import fvu
from interp_transfer.activations.align import same_tokens
from interp_transfer.mapping import training
from interp_transfer.mapping.collect import PairedActivations
from interp_transfer.mapping.fit import fit
from interp_transfer.mapping.kinds import KINDS
from interp_transfer.mapping.mappers import Mapper
from interp_transfer.models.identity import ModelIdentity

SITES = ("blocks.1.hook_resid_pre", "blocks.2.hook_resid_pre")
UNAIDED = [name for name, kind in KINDS.items() if not kind.needs_models]
MODELS = ModelIdentity("a", "1" * 16), ModelIdentity("b", "2" * 16)


def paired(x: torch.Tensor, y: torch.Tensor) -> PairedActivations:
    texts = torch.arange(len(x)) // 10
    return PairedActivations({SITES[0]: x}, {SITES[1]: y}, (SITES,), texts, texts, *MODELS, same_tokens(len(x)))


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_every_kind_is_saved_and_loaded(tmp_path):
    x = normal(300, 6)
    for kind in UNAIDED:
        mapper = fit(paired(x, torch.tanh(x) * 3), kind)
        loaded = Mapper.load(mapper.save(tmp_path / kind))
        assert torch.equal(loaded(x), mapper(x)), kind
        assert loaded.card == mapper.card
        assert mapper.card.parameters > 0


@pytest.mark.parametrize("kind", UNAIDED)
def test_constant_features_and_few_rows_do_no_harm(kind):
    few: dict[str, Any] = {"epochs": 2} if kind in ("autoencoder", "residual") else {}
    x = normal(300, 6)
    y = torch.tanh(x) * 3
    some, all_of_them = x.clone(), torch.full_like(x, 4.0)
    some[:, 2], y[:, 1] = 4.0, -1.0
    for source in (some, all_of_them):
        mapper = fit(paired(source, y), kind, **few)
        assert torch.isfinite(mapper(source)).all() and torch.isfinite(mapper(normal(20, 6))).all()
        assert mapper.card.fvu < 1.3
    wide = normal(30, 40)
    mapper = fit(paired(wide, torch.tanh(wide)), kind, held_out=0.34, **few)
    assert mapper.card.rows == 20 and torch.isfinite(mapper(wide)).all()


def test_settings_that_shape_a_core_survive_loading(tmp_path):
    x = normal(300, 6)
    cases: dict[str, dict[str, Any]] = {
        "autoencoder": {"width": 12, "epochs": 2},
        "low_rank": {"rank": 3},
        "low_rank_update": {"rank": 3},
        "residual": {"width": 5, "epochs": 2},
    }
    for kind, settings in cases.items():
        mapper = fit(paired(x, torch.tanh(x) * 3), kind, **settings)
        assert torch.equal(Mapper.load(mapper.save(tmp_path / kind))(x), mapper(x)), kind


def test_mean_shift_adds_one_vector():
    x = normal(400, 6)
    y = x + torch.arange(6)
    mapper = fit(paired(x, y), "mean_shift")
    torch.testing.assert_close(mapper(x), y, rtol=1e-4, atol=1e-4)
    assert mapper.card.parameters == 6
    with pytest.raises(ValueError, match="equally wide, not 6 and 9"):
        fit(paired(x, normal(400, 9)), "mean_shift")


@pytest.mark.parametrize("widths", [(6, 6), (6, 9), (9, 6)])
def test_procrustes_is_a_rotation_with_one_scale(widths):
    d_source, d_target = widths
    rotation = torch.linalg.qr(normal(max(widths), max(widths), seed=1))[0][:d_source, :d_target]
    x = normal(800, d_source) + 4
    mapper = fit(paired(x, 2.5 * x @ rotation - 1), "procrustes")
    weight = mapper.core.get_parameter("weight").detach()
    gram = weight @ weight.T if d_source >= d_target else weight.T @ weight
    torch.testing.assert_close(gram, float(gram[0, 0]) * torch.eye(len(gram)), rtol=1e-3, atol=1e-3)
    if d_source <= d_target:
        assert mapper.card.fvu < 1e-5


def test_procrustes_keeps_angles_where_affine_fits_what_is_not_a_rotation():
    x = normal(800, 6) * torch.arange(1, 7)
    y = x @ normal(6, 6, seed=1)
    assert fit(paired(x, y), "affine").card.fvu < 1e-5 < fit(paired(x, y), "procrustes").card.fvu


def test_low_rank_finds_the_rank():
    x = normal(2000, 12)
    y = x @ normal(12, 4, seed=1) @ normal(4, 10, seed=2) + 0.1 * normal(2000, 10, seed=3)
    mapper = fit(paired(x, y), "low_rank")
    assert mapper.card.settings["rank"] == 4
    assert mapper.card.parameters == 12 * 4 + 4 * 10 + 10
    assert mapper.card.fvu < 1.01 * fit(paired(x, y), "affine").card.fvu
    assert fit(paired(x, y), "low_rank", rank=2).card.fvu > 2 * mapper.card.fvu
    with pytest.raises(ValueError, match="rank=11: choose one from 1 to 10"):
        fit(paired(x, y), "low_rank", rank=11)


def test_a_low_rank_update_finds_the_rank_of_the_change():
    x = normal(2000, 12) * torch.arange(1, 13) + 3
    y = x + x @ normal(12, 2, seed=1) @ normal(2, 12, seed=2) + 5
    mapper = fit(paired(x, y), "low_rank_update")
    assert mapper.card.settings["rank"] == 2
    assert mapper.card.parameters == 12 * 2 + 2 * 12 + 12
    torch.testing.assert_close(mapper(x), y, rtol=1e-3, atol=1e-2)
    assert fit(paired(x, y), "low_rank", rank=2).card.fvu > 10 * mapper.card.fvu, "the identity is of full rank"
    still = fit(paired(x, x.clone()), "low_rank_update", rank=1)
    torch.testing.assert_close(still(x), x, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="equally wide, not 12 and 9"):
        fit(paired(x, normal(2000, 9)), "low_rank_update")


def test_residual_starts_as_affine_and_ends_better():
    x = normal(2000, 6)
    y = torch.relu(x @ normal(6, 20, seed=1)) @ normal(20, 9, seed=2)
    affine = fit(paired(x, y), "affine").card.fvu
    still = fit(paired(x, y), "residual", epochs=1, learning_rate=1e-12)
    assert still.card.fvu == pytest.approx(affine, rel=1e-3)
    assert fit(paired(x, y), "residual", width=32).card.fvu < 0.5 * affine


def test_an_untrained_map_explains_nothing():
    x = normal(400, 6)
    mapper = fit(paired(x, x @ normal(6, 6, seed=1)), "untrained")
    assert mapper.card.fvu > 0.8
    assert not mapper.card.curve


def test_unknown_kinds_and_settings_are_named():
    x = normal(100, 4)
    with pytest.raises(ValueError, match="did you mean 'procrustes'"):
        fit(paired(x, x), "procrustean")
    with pytest.raises(ValueError, match="unknown setting 'widht' of 'residual': did you mean 'width'"):
        fit(paired(x, x), "residual", widht=3)
    with pytest.raises(ValueError, match="'procrustes' has none"):
        fit(paired(x, x), "procrustes", ridge=0.1)


def test_massive_rows_are_set_apart_and_come_out_massive():
    x, matrix = normal(1000, 6), normal(6, 9, seed=1)
    y = x @ matrix
    first = torch.arange(0, 1000, 10)
    x[first, 2], y[first, 4] = 3000.0, -500.0  # as at a first token, and unlike the map of the others
    mapper = fit(paired(x, y), "affine")
    ordinary = torch.ones(1000, dtype=torch.bool)
    ordinary[first] = False
    assert mapper.card.massive_rows == len(first)
    torch.testing.assert_close(mapper(x[ordinary]), y[ordinary], rtol=1e-3, atol=1e-3)
    assert float((mapper(x[first])[:, 4] + 500).abs().max()) < 1e-3
    together = fit(paired(x, y), "affine", massive=float("inf"))
    assert together.card.massive_rows == 0
    assert fvu(y[ordinary], together(x[ordinary])) > 10 * fvu(y[ordinary], mapper(x[ordinary]))


class Killed(Exception):
    pass


def test_an_interrupted_training_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    x = normal(600, 6)
    pairs, settings = paired(x, torch.tanh(x) * 3), dict[str, Any](epochs=8, batch_size=64)
    whole = fit(pairs, "autoencoder", **settings)
    keep, seen = training._State.keep, []

    def die(self: Any, error: float) -> None:
        keep(self, error)
        seen.append(error)
        if len(seen) == 3:
            raise Killed

    monkeypatch.setattr(training._State, "keep", die)
    with pytest.raises(Killed):
        fit(pairs, "autoencoder", checkpoint=tmp_path, **settings)
    again = fit(pairs, "autoencoder", checkpoint=tmp_path, **settings)
    assert len(seen) == 8, "three epochs before, five after"
    assert torch.equal(again(x), whole(x))
    assert again.card == whole.card
    with pytest.raises(ValueError, match="state of another training"):
        fit(pairs, "autoencoder", checkpoint=tmp_path, epochs=9, batch_size=64)
