import json

import pytest
import torch

from interp_transfer.activations.agreement import fvu
from interp_transfer.activations.capture import Activations
from interp_transfer.activations.store.manifest import columns_like
from interp_transfer.activations.store.reader import open_store
from interp_transfer.activations.store.writer import StoreWriter
from interp_transfer.features import resume
from interp_transfer.features.train import PAPER, SMALL_MODEL, Recipe, train_sae
from interp_transfer.io import locked_folder
from interp_transfer.models.identity import ModelIdentity

SITE = "blocks.3.hook_resid_pre"
SOMEONE = ModelIdentity("someone", "f" * 64)
SMALL = Recipe(expansion=2, k=3, epochs=12, batch_size=128, learning_rate=4e-3)


def planted(n=6000, d=12, features=24, seed=0):
    """Sparse sums of known directions, far from zero."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(features, d, generator=generator), dim=1)
    active = torch.rand(n, features, generator=generator) < 0.06
    return (active * torch.rand(n, features, generator=generator).add(0.5)) @ directions + 3.0, directions


@pytest.fixture(scope="module")
def rows():
    return planted()[0]


@pytest.fixture(scope="module")
def trained(rows):
    return train_sae(rows, SITE, SMALL, model=SOMEONE)


def test_finds_the_directions_that_rows_were_made_of(rows, trained):
    _, directions = planted()
    untrained = train_sae(rows, SITE, SMALL, model=SOMEONE, steps=0)
    found = [torch.nn.functional.normalize(sae.decoder, dim=1) @ directions.T for sae in (trained, untrained)]
    share = [float((cosines.max(dim=0).values > 0.9).float().mean()) for cosines in found]
    assert share[0] > 0.6
    assert share[1] < 0.1
    assert 1 - fvu(rows, trained.reconstruct(rows)) > 0.8


def test_the_unit_does_not_matter(rows, trained):
    large = train_sae(100 * rows, SITE, SMALL, model=SOMEONE)
    assert torch.allclose(large.reconstruct(100 * rows) / 100, trained.reconstruct(rows), atol=1e-2)
    assert torch.allclose(large.encode(100 * rows).sum() / 100, trained.encode(rows).sum(), rtol=1e-2)


def test_the_same_seed_gives_the_same_sae(rows):
    recipe = Recipe(expansion=2, k=3, epochs=1, batch_size=128)
    one, other, third = (train_sae(rows, SITE, recipe, model=SOMEONE, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.decoder, other.decoder)
    assert not torch.equal(one.decoder, third.decoder)


def test_drawing_leaves_the_global_generator_alone(rows):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    train_sae(rows, SITE, SMALL, model=SOMEONE, steps=2)
    assert torch.equal(torch.rand(1), expected)


def test_captured_activations_say_whose_they_are(rows):
    index = torch.zeros(len(rows), dtype=torch.long)
    acts = Activations({SITE: rows}, index, index, index, SOMEONE)
    assert train_sae(acts, SITE, SMALL, steps=1).model == SOMEONE
    with pytest.raises(ValueError, match="give model="):
        train_sae(rows, SITE, SMALL, steps=1)


def test_from_a_store(rows, trained, tmp_path):
    block = {"a": rows}
    with StoreWriter(tmp_path, columns_like(block), shard_rows=1000) as writer:
        for number, part in enumerate(rows.split(500), 1):
            writer.append({"a": part}, upto=number)
    store = open_store(tmp_path)

    class Column:
        shape = (len(store), 12)

        def __len__(self):
            return len(store)

        def __getitem__(self, index):
            return store.read(index.start, min(index.stop, len(store)))["a"]

    streamed = train_sae(Column(), SITE, SMALL, model=SOMEONE)
    assert fvu(rows, streamed.reconstruct(rows)) < 1.5 * fvu(rows, trained.reconstruct(rows))


def test_massive_rows_are_not_trained_on(rows, trained):
    massive = torch.cat([rows, 500 * rows[:50]])
    sae = train_sae(massive, SITE, SMALL, model=SOMEONE)
    assert fvu(rows, sae.reconstruct(rows)) < 1.5 * fvu(rows, trained.reconstruct(rows))
    assert torch.equal(sae.reconstruct(massive)[-50:], massive[-50:])


class TestStart:
    @pytest.mark.parametrize("architecture", ["topk", "batchtopk", "standard", "jumprelu"])
    def test_no_step_changes_nothing_that_is_read_or_added(self, rows, trained, architecture):
        recipe = Recipe(architecture, expansion=2, k=3, batch_size=128)
        same = train_sae(rows, SITE, recipe, model=SOMEONE, start=trained, steps=0)
        read = [s.encoder / s.encoder.norm(dim=1, keepdim=True) for s in (same, trained)]
        added = [s.decoder / s.decoder.norm(dim=1, keepdim=True) for s in (same, trained)]
        assert torch.allclose(read[0], read[1], atol=1e-5)
        assert torch.allclose(added[0], added[1], atol=1e-5)

    def test_topk_is_taken_up_exactly(self, rows, trained):
        same = train_sae(rows, SITE, SMALL, model=SOMEONE, start=trained, steps=0)
        assert torch.allclose(same.encode(rows), trained.encode(rows), atol=1e-4)
        assert torch.allclose(same.reconstruct(rows), trained.reconstruct(rows), atol=1e-4)

    def test_a_trained_start_needs_fewer_steps(self, rows, trained):
        warm, cold = (train_sae(rows, SITE, SMALL, model=SOMEONE, start=start, steps=20) for start in (trained, None))
        assert fvu(rows, warm.reconstruct(rows)) < 0.7 * fvu(rows, cold.reconstruct(rows))

    def test_more_features_than_the_start(self, rows, trained):
        wider = Recipe(expansion=4, k=3, batch_size=128)
        more = train_sae(rows, SITE, wider, model=SOMEONE, start=trained, steps=0)
        assert more.n_features == 48
        assert torch.allclose(more.decoder[:24], trained.decoder, atol=1e-5)
        with pytest.raises(ValueError, match="start has 48 features, the recipe makes 24"):
            train_sae(rows, SITE, SMALL, model=SOMEONE, start=more, steps=0)

    def test_of_another_site_or_width(self, rows, trained):
        with pytest.raises(ValueError, match="12 dimensions at 'blocks.3.hook_resid_pre', the rows are 12 wide at 'blocks.1"):
            train_sae(rows, "blocks.1.hook_resid_pre", SMALL, model=SOMEONE, start=trained)
        with pytest.raises(ValueError, match="the rows are 6 wide"):
            train_sae(rows[:, :6], SITE, SMALL, model=SOMEONE, start=trained)


@pytest.mark.parametrize("architecture", ["topk", "batchtopk", "standard", "jumprelu", "gated"])
def test_a_killed_training_goes_on_where_it_was(rows, tmp_path, monkeypatch, architecture):
    monkeypatch.setattr(resume, "EVERY", 7)
    recipe = Recipe(architecture, expansion=2, k=3, batch_size=128)
    options = {"model": SOMEONE, "steps": 30, "progress": False}
    whole = train_sae(rows, SITE, recipe, **options)
    after_step, seen = resume.Checkpoints.after_step, []

    def killed(self):
        after_step(self)
        seen.append(1)
        if len(seen) == 17:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(resume.Checkpoints, "after_step", killed)
        with pytest.raises(KeyboardInterrupt):
            train_sae(rows, SITE, recipe, checkpoint=tmp_path, **options)
    assert json.loads((tmp_path / resume.FILE).read_text())["n_training_steps"] == 14
    assert len(list(tmp_path.glob("sae_training*"))) == 2
    with locked_folder(tmp_path), pytest.raises(ValueError, match="another writer is at work in"):
        train_sae(rows, SITE, recipe, checkpoint=tmp_path, **options)
    done = []
    monkeypatch.setattr(resume.Checkpoints, "after_step", lambda self: done.append(1))
    again = train_sae(rows, SITE, recipe, checkpoint=tmp_path, **options)
    assert len(done) == 16
    for name, tensor in whole.module.state_dict().items():
        assert torch.equal(tensor, again.module.state_dict()[name]), name


def test_the_state_of_another_training_is_refused(rows, tmp_path, monkeypatch):
    monkeypatch.setattr(resume, "EVERY", 2)
    train_sae(rows, SITE, SMALL, model=SOMEONE, steps=2, checkpoint=tmp_path)
    with pytest.raises(ValueError, match="another training"):
        train_sae(rows, SITE, SMALL, model=SOMEONE, steps=4, checkpoint=tmp_path)
    [weights] = tmp_path.rglob("*.safetensors")
    weights.write_bytes(b"broken")
    with pytest.raises(ValueError, match="is damaged"):
        train_sae(rows, SITE, SMALL, model=SOMEONE, steps=2, checkpoint=tmp_path)


def test_presets():
    assert (PAPER.architecture, PAPER.k, PAPER.expansion, PAPER.epochs) == ("topk", 128, 16, 8)
    assert SMALL_MODEL.architecture == "batchtopk"
    assert Recipe().architecture == "topk"


@pytest.mark.parametrize(
    "architecture", ["standard", "gated", "jumprelu", "matryoshka_batchtopk", "abstopk", "matching_pursuit"]
)
def test_the_others_that_sae_lens_trains(rows, architecture):
    options = {"matryoshka_widths": [8]} if architecture.startswith("matryoshka") else {}
    recipe = Recipe(architecture, expansion=2, k=3, batch_size=128, options=options)
    sae = train_sae(rows, SITE, recipe, model=SOMEONE, steps=200)
    assert 1 - fvu(rows, sae.reconstruct(rows)) > 0.1


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ({"architecture": "topq"}, "did you mean 'topk'"),
        ({"k": 0}, "k=0: give a number above zero"),
        ({"learning_rate": -1.0}, "learning_rate=-1.0"),
    ],
)
def test_recipes_that_make_no_sense(recipe, said):
    with pytest.raises(ValueError, match=said):
        Recipe(**recipe)


def test_an_unknown_option_of_sae_lens(rows):
    with pytest.raises(ValueError, match="topk has no option 'kk'"):
        train_sae(rows, SITE, Recipe(options={"kk": 1}), model=SOMEONE)


def test_rows_that_cannot_be_trained_on(rows):
    with pytest.raises(ValueError, match="at least batch_size=128 rows"):
        train_sae(rows[:50], SITE, SMALL, model=SOMEONE)
    few = torch.cat([rows[:127], 500 * rows[127:130]])
    with pytest.raises(ValueError, match="127 rows of ordinary length for batches of 128"):
        train_sae(few, SITE, SMALL, model=SOMEONE)
    with pytest.raises(ValueError, match="NaN"):
        train_sae(torch.full((500, 4), torch.nan), SITE, SMALL, model=SOMEONE)
    with pytest.raises(ValueError, match="all rows .* are the same"):
        train_sae(torch.zeros(500, 4), SITE, SMALL, model=SOMEONE)
