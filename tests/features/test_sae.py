import json
from dataclasses import replace

import pytest
import torch

import interp_transfer as it
from interp_transfer.features.sae import FILE, Sae, load_sae, quiet_sae_lens
from interp_transfer.features.train import Recipe, train_sae
from interp_transfer.models.identity import ModelIdentity
from interp_transfer.plugins import KnownModel

with quiet_sae_lens():
    from sae_lens import SAE, StandardSAE, StandardSAEConfig

SITE = "blocks.3.hook_resid_pre"
SOMEONE = ModelIdentity("someone", "f" * 64)


def planted(n=3000, d=12, features=24, seed=0):
    """Sparse sums of known directions."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(features, d, generator=generator), dim=1)
    active = torch.rand(n, features, generator=generator) < 0.08
    return (active * torch.rand(n, features, generator=generator).add(0.5)) @ directions, directions


@pytest.fixture(scope="module")
def rows():
    return planted()[0]


@pytest.fixture(scope="module")
def model(models):
    return models[0]


@pytest.fixture(scope="module")
def sae_of_model(models, cats):
    acts = it.capture(models[0], cats.texts("train"), SITE, progress=False)
    return train_sae(acts, SITE, Recipe(expansion=2, k=3, epochs=1, batch_size=128), progress=False)


@pytest.fixture(scope="module")
def sae(rows):
    return train_sae(rows, SITE, Recipe(expansion=2, k=3, epochs=4, batch_size=128), model=SOMEONE)


def test_reads_and_gives_back_as_sae_lens_does(sae, rows):
    assert torch.equal(sae.encode(rows), sae.module.encode(rows))
    assert torch.equal(sae.reconstruct(rows), sae.module.decode(sae.module.encode(rows)))
    assert (sae.encode(rows) > 0).sum(dim=1).max() <= 3


def test_decoder_is_what_one_unit_of_a_feature_adds(sae, rows):
    for index in (0, 5):
        more = sae.reconstruct(rows, lambda f, k=index: f + torch.eye(sae.n_features)[k])
        assert torch.allclose(more - sae.reconstruct(rows), sae.decoder[index].expand_as(rows), atol=1e-5)


def test_decoder_of_an_sae_that_rescales_at_run_time():
    config = sae_config("topk", k=3, rescale_acts_by_decoder_norm=True)
    module = SAE.from_dict(config)
    module.W_dec.data *= 3
    sae, rows = Sae(module, SITE, SOMEONE), planted(40)[0]
    more = sae.reconstruct(rows, lambda f: f + torch.eye(24)[2])
    assert torch.allclose(more - sae.reconstruct(rows), sae.decoder[2].expand_as(rows), atol=1e-5)


def test_keeping_the_error_changes_nothing_but_the_edit(sae, rows):
    assert torch.equal(sae.reconstruct(rows, keep_error=True), rows)
    features = sae.encode(rows)

    def edit(f):
        out = f.clone()
        out[:, 7] = 2.0
        return out

    expected = rows + (2.0 - features[:, 7])[:, None] * sae.decoder[7]
    assert torch.allclose(sae.reconstruct(rows, edit, keep_error=True), expected, atol=1e-5)


def test_an_sae_that_normalises_at_run_time_can_be_edited():
    module = SAE.from_dict(sae_config("standard", normalize_activations="layer_norm"))
    sae, rows = Sae(module, SITE, SOMEONE), planted(40)[0]
    edited = sae.reconstruct(rows, lambda f: f * 2, keep_error=True)
    again = sae.reconstruct(rows, lambda f: f * 2, keep_error=True)
    assert torch.equal(edited, again)
    assert not torch.allclose(edited, rows)


def test_rows_that_are_too_long_are_left_alone(sae, rows):
    mixed = torch.cat([rows[:2], 1000 * rows.max(dim=0).values[None]])
    assert torch.equal(sae.reconstruct(mixed)[2], mixed[2])
    assert not sae.encode(mixed)[2].any()
    assert torch.equal(sae.reconstruct(mixed)[:2], sae.reconstruct(rows[:2]))


def sae_config(architecture, d_in=12, d_sae=24, **more):
    return {"architecture": architecture, "d_in": d_in, "d_sae": d_sae, "dtype": "float32", "device": "cpu", **more}


@pytest.mark.parametrize("architecture", ["topk", "batchtopk"])
def test_comes_back_as_it_was_saved(tmp_path, rows, architecture):
    made = train_sae(rows, SITE, Recipe(architecture, expansion=2, k=3, epochs=1, batch_size=128), model=SOMEONE)
    back = load_sae(made.save(tmp_path / "sae"))
    assert (back.site, back.model, back.longest, back.details) == (made.site, made.model, made.longest, made.details)
    assert torch.equal(back.encode(rows), made.encode(rows))
    assert torch.equal(back.reconstruct(rows), made.reconstruct(rows))


def test_bound_to_another_model_on_purpose(sae_of_model, models, wrapped):
    other = wrapped("qwen2")  # of the width of the first model
    with pytest.raises(ValueError, match="rebind it on purpose with for_model"):
        sae_of_model.check_model(other)
    sae_of_model.for_model(other).check_model(other)
    with pytest.raises(ValueError, match="reads 16 dimensions.* has 24"):
        sae_of_model.for_model(models[1])


def test_an_sae_that_ships_with_a_known_model(sae_of_model, models, tmp_path, monkeypatch):
    folder = sae_of_model.save(tmp_path / "sae")
    known = {"tiny": KnownModel("tiny", tmp_path, sae=folder), "bare": KnownModel("bare", tmp_path)}
    monkeypatch.setattr("interp_transfer.features.sae.known_models", lambda: known)
    assert load_sae("tiny", model=models[0]).model == it.identity(models[0])
    with pytest.raises(ValueError, match="no SAE ships with it; SAEs ship for tiny"):
        load_sae("bare")
    with pytest.raises(ValueError, match=r"of 'blocks\.3\.hook_resid_pre', not of 'blocks\.1\.hook_resid_pre'"):
        load_sae("tiny", site="blocks.1.hook_resid_pre")
    with pytest.raises(ValueError, match="this SAE and the model are"):
        load_sae("tiny", model=models[1])


def test_a_feature_is_a_bare_direction(sae, rows):
    vector = sae.feature(4, rows[:50], size=0.5)
    assert torch.allclose(vector.direction, 0.5 * sae.decoder[4])
    with pytest.raises(ValueError, match="mode='delta'"):
        from interp_transfer.mapping.move import move

        move(lambda x: x, vector, "difference")
    with pytest.raises(ValueError, match="feature 24 of 24: choose from 0 to 23"):
        sae.feature(24)
    with pytest.raises(ValueError, match="adds nothing"):
        sae.feature(4, size=0)


class TestOthers:
    """SAEs that this package did not write."""

    @pytest.fixture
    def module(self):
        return StandardSAE(StandardSAEConfig(d_in=16, d_sae=32))

    def test_an_object_or_a_folder_of_sae_lens(self, module, model, tmp_path):
        module.cfg.metadata.hook_name = SITE
        module.save_model(tmp_path)
        for what in (module, tmp_path):
            sae = load_sae(what, model=model)
            assert (sae.site, sae.architecture, sae.n_features) == (SITE, "standard", 32)

    def test_a_release_by_name(self, module, model, monkeypatch):
        module.cfg.metadata.hook_name = SITE
        asked = []

        def from_pretrained(release, sae_id, device):
            asked.append((release, sae_id, device))
            if sae_id != "layer_3":
                raise ValueError(f"ID {sae_id} not found in release {release}.")
            return module

        monkeypatch.setattr(SAE, "from_pretrained", from_pretrained)
        assert load_sae("a-release", sae_id="layer_3", model=model).site == SITE
        assert asked == [("a-release", "layer_3", "cpu")]
        with pytest.raises(ValueError, match="cannot load 'layer_9' of 'a-release': ID layer_9 not found"):
            load_sae("a-release", sae_id="layer_9", model=model)

    def test_say_whose_they_are(self, module):
        with pytest.raises(ValueError, match="give model="):
            load_sae(module)

    def test_and_where(self, model):
        with pytest.raises(ValueError, match="give site="):
            load_sae(StandardSAE(StandardSAEConfig(d_in=16, d_sae=32)), model=model)

    def test_of_another_width(self, models):
        with pytest.raises(ValueError, match="reads 16 dimensions, 'blocks.3.hook_resid_pre' of .* has 24"):
            load_sae(StandardSAE(StandardSAEConfig(d_in=16, d_sae=32)), model=models[1], site=SITE)

    def test_of_another_site(self, module, model):
        module.cfg.metadata.hook_name = SITE
        with pytest.raises(ValueError, match="not of 'blocks.1.hook_resid_pre'"):
            load_sae(module, model=model, site="blocks.1.hook_resid_pre")
        with pytest.raises(ValueError, match="unknown site"):
            load_sae(StandardSAE(StandardSAEConfig(d_in=16, d_sae=32)), model=model, site="blocks.1.resid")

    def test_what_is_none(self, model, tmp_path):
        with pytest.raises(ValueError, match="is no SAE"):
            load_sae(torch.nn.Linear(2, 2), model=model)
        with pytest.raises(ValueError, match="no such folder"):
            load_sae(tmp_path / "nowhere", model=model)
        with pytest.raises(ValueError, match="holds no whole SAE"):
            load_sae(tmp_path, model=model)


def test_damaged_files_are_named(sae, tmp_path):
    sae.save(tmp_path)
    weights = tmp_path / "sae_weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:200])
    with pytest.raises(ValueError, match=f"{tmp_path.name}.* holds no whole SAE"):
        load_sae(tmp_path)
    weights.write_bytes(whole)
    plain = json.loads((tmp_path / FILE).read_text())
    for broken in ({**plain, "format": "other/2"}, {**plain, "site": 3}, {k: v for k, v in plain.items() if k != "model"}):
        (tmp_path / FILE).write_text(json.dumps(broken))
        with pytest.raises(ValueError, match="no SAE of this package|damaged"):
            load_sae(tmp_path)


def test_rows_of_another_width(sae):
    for do in (sae.encode, sae.reconstruct):
        with pytest.raises(ValueError, match=r"\(row, 12\)"):
            do(torch.zeros(3, 5))


def test_repr_tells(sae):
    assert "topk, 24 features of 12 at blocks.3.hook_resid_pre of someone" in repr(sae)
    told = replace(sae, details={"measured": {"explained_variance": 0.987, "l0": 3.0}})
    assert "explained_variance 0.987" in repr(told)


def test_a_transcoder_is_no_sae(model):
    from sae_lens.saes.transcoder import Transcoder, TranscoderConfig

    transcoder = Transcoder(TranscoderConfig(d_in=16, d_sae=8, d_out=16, apply_b_dec_to_input=False))
    with pytest.raises(ValueError, match="transcoder, which reads None and writes 'another site': only SAEs are taken"):
        load_sae(transcoder, model=model, site=SITE)
    sae = StandardSAE(StandardSAEConfig(d_in=16, d_sae=8))
    sae.cfg.metadata.hook_name, sae.cfg.metadata.hook_name_out = SITE, "blocks.3.hook_mlp_out"
    with pytest.raises(ValueError, match=r"reads 'blocks.3.hook_resid_pre' and writes 'blocks.3.hook_mlp_out'"):
        load_sae(sae, model=model)


def test_an_sae_of_processed_weights_needs_such_a_model(model):
    sae = StandardSAE(StandardSAEConfig(d_in=16, d_sae=8))
    sae.cfg.metadata.hook_name = SITE
    sae.cfg.metadata.model_from_pretrained_kwargs = {"fold_ln": False, "center_writing_weights": True}
    with pytest.raises(ValueError, match=r"weights were processed \(center_writing_weights\).* as stored: wrap the model"):
        load_sae(sae, model=model)
    sae.cfg.metadata.model_from_pretrained_kwargs = {"fold_ln": False, "n_devices": 1}
    assert load_sae(sae, model=model).site == SITE


def test_changed_files_are_refused_and_older_ones_are_read(sae, tmp_path):
    sae.save(tmp_path)
    weights, path = tmp_path / "sae_weights.safetensors", tmp_path / FILE
    whole, plain = weights.read_bytes(), json.loads(path.read_text())
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ValueError, match=f"{tmp_path.name}.* is damaged: sae_weights.safetensors was changed"):
        load_sae(tmp_path)
    path.write_text(json.dumps({key: value for key, value in plain.items() if key not in ("digest", "files")}))
    assert load_sae(tmp_path).site == sae.site, "older files have no digests"
    weights.write_bytes(whole)
    path.write_text(json.dumps({**plain, "longest": 3.0}))
    with pytest.raises(ValueError, match="does not fit its digest"):
        load_sae(tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(ValueError, match=f"{tmp_path.name}.*{FILE}' is damaged"):
        load_sae(tmp_path)


def test_settings_that_sae_lens_cannot_use_are_refused_when_it_is_loaded(sae, tmp_path):
    sae.save(tmp_path)
    (tmp_path / FILE).unlink()
    config = json.loads((tmp_path / "cfg.json").read_text())
    for changes in ({"metadata": "text"}, {"apply_b_dec_to_input": {"a": 1}}):
        (tmp_path / "cfg.json").write_text(json.dumps({**config, **changes}))
        with pytest.raises(ValueError, match=f"{tmp_path.name}.* holds no whole SAE"):
            load_sae(tmp_path)


def test_without_sae_lens_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr("interp_transfer.features.sae.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="^SAEs need sae-lens, which needs transformer-lens 3: pip"), quiet_sae_lens():
        pass
