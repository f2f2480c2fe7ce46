import pytest
import torch

from interp_transfer.features.sae import load_sae
from interp_transfer.features.train import Recipe, train_sae
from interp_transfer.mapping.mappers import Card, Mapper
from interp_transfer.mapping.networks import make_core
from interp_transfer.models.identity import ModelIdentity, Space
from interp_transfer.transfer.saes import affine_part, match_features, move_sae

HERE, THERE = (
    Space(ModelIdentity("a", "a" * 64), "blocks.1.hook_resid_pre", 8),
    Space(ModelIdentity("b", "b" * 64), "blocks.2.hook_resid_pre", 8),
)


def mapper_of(weight, bias, source, target):
    """An affine mapper with given numbers."""
    core = make_core("affine", (source.d, target.d), {})
    mapper = Mapper(core, source, target, Card("affine", 0, 0.0, 1.0, 1.0, 0, 0, 0))
    with torch.no_grad():
        for parameter in core.parameters():
            parameter.copy_(weight if parameter.ndim == 2 else bias)
    rows = torch.randn(4, source.d)
    assert torch.allclose(mapper(rows), rows @ weight.T + bias, atol=1e-5)
    return mapper.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def planted():
    """An SAE, a map that can be undone, and both sides' rows."""
    torch.manual_seed(0)
    rows = torch.randn(2000, 8)
    weight, bias = torch.randn(8, 8) + 3 * torch.eye(8), torch.randn(8)
    inverse = torch.linalg.inv(weight)
    there = mapper_of(weight, bias, HERE, THERE)
    back = mapper_of(inverse, -inverse @ bias, THERE, HERE)
    return rows, there, back


@pytest.mark.parametrize("architecture", ["topk", "batchtopk", "standard"])
def test_reads_and_adds_what_the_source_does(planted, architecture):
    rows, there, back = planted
    sae = train_sae(rows, HERE.site, Recipe(architecture, expansion=2, k=4, batch_size=256), model=HERE.model, steps=100)
    moved = move_sae(sae, there, back, rows[:50], there(rows[:50]))
    assert (moved.model, moved.site, moved.d_model, moved.n_features) == (THERE.model, THERE.site, 8, 16)
    assert torch.allclose(moved.encode(there(rows)), sae.encode(rows), atol=1e-3)
    assert torch.allclose(moved.reconstruct(there(rows)), there(sae.reconstruct(rows)), atol=1e-3)
    assert torch.allclose(moved.decoder[3], there(sae.decoder[3][None])[0] - there(torch.zeros(1, 8))[0], atol=1e-4)


def test_comes_back_from_disk(planted, tmp_path):
    rows, there, back = planted
    sae = train_sae(rows, HERE.site, Recipe(expansion=2, k=4, batch_size=256), model=HERE.model, steps=20)
    moved = move_sae(sae, there, back, rows[:50], there(rows[:50]))
    again = load_sae(moved.save(tmp_path))
    assert torch.equal(again.encode(there(rows)), moved.encode(there(rows)))
    assert "affine" in again.details["moved"]["there"]


def test_the_source_is_not_changed(planted):
    rows, there, back = planted
    sae = train_sae(rows, HERE.site, Recipe(expansion=2, k=4, batch_size=256), model=HERE.model, steps=5)
    before = sae.decoder.clone(), sae.encode(rows), sae.module.cfg.d_in
    move_sae(sae, there, back, rows[:50], there(rows[:50]))
    assert torch.equal(sae.decoder, before[0])
    assert torch.equal(sae.encode(rows), before[1])
    assert sae.module.cfg.d_in == before[2]


def test_affine_part_is_the_mean_derivative():
    def f(x):
        return torch.stack([x[:, 0] ** 2, x[:, 0] * x[:, 1]], dim=1)

    rows = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    a, b = affine_part(f, rows)
    assert torch.allclose(a, torch.tensor([[4.0, 0.0], [3.0, 2.0]]))
    assert torch.allclose(a @ rows.mean(dim=0) + b, f(rows).mean(dim=0))


def test_matches(planted):
    rows, there, back = planted
    sae = train_sae(rows, HERE.site, Recipe(expansion=2, k=4, batch_size=256), model=HERE.model, steps=200)
    order = torch.randperm(16)
    mixed = train_sae(rows, HERE.site, Recipe(expansion=2, k=4, batch_size=256), model=HERE.model, start=sae, steps=0)
    for name, axis in (("W_dec", 0), ("W_enc", 1), ("b_enc", 0)):
        parameter = getattr(mixed.module, name)
        parameter.data = parameter.data.index_select(axis, order)
    found = match_features(sae, mixed, rows)
    assert found["match"].tolist() == order.argsort().tolist()
    assert found["mutual"].all()
    assert found["cosine"].min() > 0.999
    alive = found["correlation"].dropna()
    assert len(alive) > 5
    assert alive.min() > 0.99
    assert found["overlap"].dropna().min() > 0.7
    other = train_sae(rows, HERE.site, Recipe(expansion=2, k=4, batch_size=256), model=HERE.model, seed=9, steps=0)
    assert match_features(other, sae, rows)["cosine"].mean() < 0.9


def test_wrong_pieces(planted):
    rows, there, back = planted
    sae = train_sae(rows, HERE.site, Recipe(expansion=2, k=4, batch_size=256), model=HERE.model, steps=1)
    moved = move_sae(sae, there, back, rows[:50], there(rows[:50]))
    with pytest.raises(ValueError, match="is not the reverse of the first"):
        move_sae(sae, there, there, rows[:5], rows[:5])
    with pytest.raises(ValueError, match="two models"):
        move_sae(moved, there, back, rows[:5], rows[:5])
    with pytest.raises(ValueError, match="two models"):
        match_features(sae, moved, rows)
    gated = train_sae(rows, HERE.site, Recipe("gated", expansion=2, batch_size=256), model=HERE.model, steps=1)
    with pytest.raises(ValueError, match="'gated'.* one by one"):
        move_sae(gated, there, back, rows[:5], rows[:5])


def test_massive_rows_have_no_share_in_the_affine_part(planted):
    rows, there, _ = planted
    massive = torch.cat([rows, 1e4 * rows[: len(rows) // 20]])
    there.massive_norm.fill_(float(rows.norm(dim=1).max()) + 1)
    a, b = affine_part(there, massive)
    expected, shift = affine_part(there, rows)
    assert torch.allclose(a, expected) and torch.allclose(b, shift)
    assert torch.allclose(rows @ a.T + b, there(rows), atol=1e-3)
    there.massive_norm.fill_(float("inf"))
