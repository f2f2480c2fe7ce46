"""SAEs of dictionary_learning: each class computes what its formula says, where it was trained, and what is refused."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import interp_transfer as it
from interp_transfer.features import load_sae
from interp_transfer.features.dictionary_learning import CLASSES
from tests.checkpoints import WIDTH

FEATURES, K, SITE = 40, 5, "blocks.2.hook_resid_post"


def rows(n: int = 9) -> Tensor:
    return 2 * torch.randn(n, WIDTH, generator=torch.Generator().manual_seed(1))


def weights(kind: str) -> dict[str, Tensor]:
    """The state of an SAE of each class, by the names that the class has for its parameters."""
    generator = torch.Generator().manual_seed(2)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    linear = {"encoder.weight": draw(FEATURES, WIDTH), "decoder.weight": draw(WIDTH, FEATURES)}
    own = {"W_enc": draw(WIDTH, FEATURES), "b_enc": draw(FEATURES), "W_dec": draw(FEATURES, WIDTH), "b_dec": draw(WIDTH)}
    top = {"b_dec": draw(WIDTH), "k": torch.tensor(K), "threshold": torch.tensor(2.0), "encoder.bias": draw(FEATURES)}
    gates = {name: 0.3 * draw(FEATURES) for name in ("r_mag", "gate_bias", "mag_bias")}
    return {
        "AutoEncoder": {**linear, "bias": draw(WIDTH), "encoder.bias": draw(FEATURES)},
        "AutoEncoderNew": {**linear, "encoder.bias": draw(FEATURES), "decoder.bias": draw(WIDTH)},
        "AutoEncoderTopK": {**linear, **top},
        "BatchTopKSAE": {**linear, **top},
        "GatedAutoEncoder": {**linear, **gates, "decoder_bias": draw(WIDTH)},
        "JumpReluAutoEncoder": {**own, "threshold": draw(FEATURES).abs()},
        "MatryoshkaBatchTopKSAE": {**own, "k": top["k"], "threshold": top["threshold"], "group_sizes": torch.tensor([8, 32])},
    }[kind]


def by_formula(kind: str, state: dict[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Features and reconstruction as the classes of dictionary_learning compute them, written out."""
    into = state["encoder.weight"].T if "encoder.weight" in state else state["W_enc"]
    back = state["decoder.weight"].T if "decoder.weight" in state else state["W_dec"]
    bias = next(state[name] for name in ("bias", "decoder.bias", "decoder_bias", "b_dec") if name in state)
    offset = state.get("encoder.bias", state.get("b_enc", torch.zeros(FEATURES)))
    centred = x if kind in ("AutoEncoderNew", "JumpReluAutoEncoder") else x - bias
    before = centred @ into + offset
    features = before.relu()
    if kind == "AutoEncoder":  # its from_pretrained gives decoder rows length 1
        norms = back.norm(dim=1)
        features, back = features * norms, back / norms[:, None]
    elif kind == "AutoEncoderTopK":
        features = features * (features >= features.topk(K, dim=1).values[:, -1:])
    elif kind == "GatedAutoEncoder":
        features = (before + state["gate_bias"] > 0) * (state["r_mag"].exp() * before + state["mag_bias"]).relu()
    elif "threshold" in state:
        features = features * (before > state["threshold"])
    return features, features @ back + bias


def write(folder: Path, kind: str, state: Any = None, buffer: Any = None, **trainer: Any) -> Path:
    """A folder as dictionary_learning writes it."""
    folder.mkdir(exist_ok=True)
    torch.save(weights(kind) if state is None else state, folder / "ae.pt")
    known = {"dict_class": kind, "k": K, "layer": 2, "lm_name": "tiny/model", "submodule_name": "resid_post_layer_2"}
    config = {"trainer": {**known, **trainer}, "buffer": {"io": "out", "ctx_len": 128} if buffer is None else buffer}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("kind", CLASSES)
def test_each_class_computes_what_its_formula_says(kind: str, tmp_path: Path, wrapped: Callable[[str], Any]) -> None:
    model = wrapped("llama")
    sae = load_sae(write(tmp_path / "sae", kind), model=model)
    features, reconstruction = by_formula(kind, weights(kind), rows())
    torch.testing.assert_close(sae.encode(rows()), features, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sae.reconstruct(rows()), reconstruction, rtol=1e-5, atol=1e-5)
    assert 0 < (features > 0).float().mean() < 1 and not torch.allclose(features, rows() @ torch.ones(WIDTH, FEATURES))
    assert (sae.site, sae.model, sae.n_features, sae.d_model) == (SITE, it.identity(model), FEATURES, WIDTH)
    again = load_sae(sae.save(tmp_path / "saved"), model=model)
    assert torch.equal(again.encode(rows()), sae.encode(rows())) and again.architecture == CLASSES[kind]


@pytest.mark.parametrize("kind", [kind for kind in CLASSES if kind not in ("AutoEncoder", "AutoEncoderNew")])
def test_as_sae_lens_loads_it_from_the_hub(
    kind: str, tmp_path: Path, wrapped: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sae_lens import SAE
    from sae_lens.loading import pretrained_sae_loaders as loaders

    folder = write(tmp_path / "sae", kind, activation_dim=WIDTH, dict_size=FEATURES)
    monkeypatch.setattr(loaders, "hf_hub_download", lambda repo_id, filename, **_: str(tmp_path / filename))
    config, state, _ = loaders.dictionary_learning_sae_huggingface_loader_1("repo", "sae")
    config = loaders.handle_config_defaulting(config)
    config.pop("metadata", None)
    theirs = SAE.from_dict({**config, "metadata": {}})
    theirs.process_state_dict_for_loading(state)
    theirs.load_state_dict(state)
    sae = load_sae(folder, model=wrapped("llama"))
    with torch.no_grad():
        torch.testing.assert_close(sae.encode(rows()), theirs.encode(rows()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "site", "expected"),
    [
        ({"submodule_name": "mlp_out_layer_1"}, None, "blocks.1.hook_mlp_out"),
        ({"submodule_name": "attn_out_layer_0"}, None, "blocks.0.hook_attn_out"),
        ({"submodule_name": None}, "blocks.1.hook_resid_pre", "blocks.1.hook_resid_pre"),
        ({"submodule_name": "model.layers.2"}, SITE, SITE),
        ({"buffer": {"io": "in"}}, "blocks.2.hook_resid_pre", "blocks.2.hook_resid_pre"),
        ({"buffer": {}}, None, SITE),
        ({}, SITE, SITE),
    ],
)
def test_where_it_was_trained(
    changes: Any, site: str | None, expected: str, tmp_path: Path, wrapped: Callable[[str], Any]
) -> None:
    folder = write(tmp_path / "sae", "BatchTopKSAE", **changes)
    assert load_sae(folder, model=wrapped("llama"), site=site).site == expected


def test_what_does_not_fit(tmp_path: Path, wrapped: Callable[[str], Any]) -> None:
    model, state = wrapped("llama"), weights("BatchTopKSAE")
    narrow = {**state, "encoder.weight": state["encoder.weight"][:, 1:], "decoder.weight": state["decoder.weight"][1:]}
    cases: list[tuple[dict[str, Any], str | None, str]] = [
        ({"state": {**narrow, "b_dec": state["b_dec"][1:]}}, None, rf"reads 15 dimensions, '{SITE}' of .* has 16"),
        ({"state": narrow}, None, "holds no whole SAE of dictionary_learning"),
        ({"state": {**state, "encoder.bias": torch.full((FEATURES,), torch.nan)}}, None, "encoder.bias holds numbers that are"),
        ({"state": {"b_dec": state["b_dec"]}}, None, "holds no whole SAE of dictionary_learning"),
        ({"state": [1, 2]}, None, "holds no whole SAE of dictionary_learning"),
        ({"dict_class": "AutoEncoderOld"}, None, "its class 'AutoEncoderOld' is not known, only AutoEncoder, "),
        ({"dict_class": 3}, None, "holds no whole SAE of dictionary_learning"),
        ({"submodule_name": "resid_post_layer_9"}, None, "4 blocks"),
        ({"submodule_name": "model.layers.2"}, None, "give site="),
        ({"buffer": {"io": "in"}}, None, "give site="),
        ({"buffer": {"io": "in_and_out"}}, None, "it is a transcoder"),
        ({}, "blocks.1.hook_resid_post", f"is of '{SITE}', not of 'blocks.1.hook_resid_post'"),
    ]
    for number, (changes, site, says) in enumerate(cases):
        with pytest.raises(ValueError, match=says):
            load_sae(write(tmp_path / str(number), "BatchTopKSAE", **changes), model=model, site=site)
    with pytest.raises(ValueError, match="its config.json has k 5, its ae.pt 6"):
        load_sae(write(tmp_path / "k", "AutoEncoderTopK", {**weights("AutoEncoderTopK"), "k": torch.tensor(6)}), model=model)
    with pytest.raises(ValueError, match="give model="):
        load_sae(write(tmp_path / "whose", "BatchTopKSAE"))
    folder = write(tmp_path / "broken", "BatchTopKSAE")
    for text in ("{", "[]", '{"trainer": 3}', "[" * 100_000):
        (folder / "config.json").write_text(text)
        with pytest.raises(ValueError, match="holds no whole SAE of dictionary_learning"):
            load_sae(folder, model=model)
    (write(folder, "BatchTopKSAE") / "ae.pt").write_bytes(b"no weights")
    with pytest.raises(ValueError, match=r"holds no whole SAE of dictionary_learning.*ae.pt' is damaged"):
        load_sae(folder, model=model)


class Runs:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return (os.mkdir, (os.environ["TRAP"],))


def test_weights_are_read_as_tensors_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrapped: Callable[[str], Any]
) -> None:
    monkeypatch.setenv("TRAP", str(tmp_path / "trap"))
    folder = write(tmp_path / "sae", "BatchTopKSAE", {**weights("BatchTopKSAE"), "more": Runs()})
    with pytest.raises(ValueError, match="holds more than tensors"):
        load_sae(folder, model=wrapped("llama"))
    assert not (tmp_path / "trap").exists()
