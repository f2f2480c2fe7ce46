"""JSON of Neuronpedia: every document that holds a vector, the effect of one that is written, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import interp_transfer as it
from interp_transfer.vectors.exchange import from_neuronpedia, to_neuronpedia
from tests.checkpoints import WIDTH
from tests.peer_files import HERE, TOKENS, check_effect, direction, document, vector


@pytest.mark.parametrize(
    "wrap",
    [
        lambda one: one,
        lambda one: {"vector": one},
        lambda one: {"vectors": [one]},
        lambda one: {
            "message": "Success",
            "vector": {
                "values": one["vector"],
                "hookName": one["hookName"],
                "label": "kind",
                "modelId": "tiny",
                "defaultSteerStrength": 10,
            },
        },
        lambda one: {
            "values": one["vector"],
            "hook_name": one["hookName"],
            "label": "kind",
            "model_id": "tiny",
            "default_steer_strength": 10,
        },
        lambda one: {
            **{name: one[name] for name in ("vector", "vectorLabel", "modelId", "vectorDefaultSteerStrength")},
            "layerNumber": 2,
            "hookType": "hook_resid_pre",
        },
        lambda one: {
            **{name: one[name] for name in ("vector", "vectorLabel", "modelId", "vectorDefaultSteerStrength")},
            "layerNumber": 2,
            "hookType": "resid-pre",
        },
    ],
)
def test_documents_of_neuronpedia(wrap: Callable[[Any], Any], tmp_path: Path, wrapped: Callable[[str], Any]) -> None:
    model, plain = wrapped("llama"), wrap(document())
    (tmp_path / "v.json").write_text(json.dumps(plain))
    [read], [same] = from_neuronpedia(tmp_path / "v.json", model), from_neuronpedia(plain, model)
    assert torch.equal(read.direction, direction()) and torch.equal(same.direction, direction())
    assert (read.site, read.model) == ("blocks.2.hook_resid_pre", it.identity(model))
    assert read.history == ("read from v.json of Neuronpedia, label 'kind', model 'tiny', strength 10",)


def test_a_vector_for_neuronpedia_does_there_what_it_does_here(tmp_path: Path, wrapped: Callable[[str], Any]) -> None:
    model = wrapped("llama")
    written = vector("blocks.2.hook_resid_post", model=it.identity(model))
    path = to_neuronpedia(written, tmp_path / "v.json", "tiny", "kind", 2)
    sent = json.loads(path.read_text())
    assert list(sent) == ["modelId", "layerNumber", "hookType", "vector", "vectorDefaultSteerStrength", "vectorLabel"]
    assert (sent["modelId"], sent["vectorLabel"], sent["vectorDefaultSteerStrength"]) == ("tiny", "kind", 2.0)
    hook, values = f"blocks.{sent['layerNumber']}.{sent['hookType']}", torch.tensor(sent["vector"])

    def steer(activations: Tensor, hook: Any) -> Tensor:  # noqa: ARG001 - as its server does, with transformer-lens
        return activations + sent["vectorDefaultSteerStrength"] * values

    with torch.no_grad(), model.hooks(fwd_hooks=[(hook, steer)]):
        expected = model(TOKENS)
    check_effect(model, from_neuronpedia(path, model), expected, 2.0)


@pytest.mark.parametrize(
    ("changes", "site", "says"),
    [
        ({"vector": [1.0] * (WIDTH + 1)}, None, f"{WIDTH + 1} numbers, this model has d_model {WIDTH}"),
        ({"hookName": "blocks.9.hook_resid_pre"}, None, "4 blocks"),
        ({"hookName": "blocks.2.resid\x1b[2J"}, None, r"unknown site"),
        ({"hookName": None}, None, "names no hook point: give site="),
        ({}, "blocks.1.hook_resid_pre", "a vector at 'blocks.2.hook_resid_pre', not at 'blocks.1.hook_resid_pre'"),
        ({"vector": [float("nan")] * WIDTH}, None, "is no vector of Neuronpedia: NaN is not a number"),
        ({"vector": [1e300] * WIDTH}, None, "not finite"),
        ({"vector": []}, None, "floating-point numbers along one axis"),
        ({"vector": ["1"] * WIDTH}, None, "is no vector of Neuronpedia"),
        ({"vector": None}, None, "is no vector of Neuronpedia"),
        ({"hookName": 3}, None, "is no vector of Neuronpedia"),
        ({"hookName": None, "layerNumber": "2", "hookType": "resid-pre"}, None, "is no vector of Neuronpedia"),
        ({"hookName": None, "layerNumber": 2}, None, "is no vector of Neuronpedia"),
    ],
)
def test_documents_that_do_not_fit(
    changes: Any, site: str | None, says: str, tmp_path: Path, wrapped: Callable[[str], Any]
) -> None:
    (tmp_path / "v.json").write_text(json.dumps(document(**changes)))
    with pytest.raises(ValueError, match=says) as caught:
        from_neuronpedia(tmp_path / "v.json", wrapped("llama"), site)
    assert str(caught.value).isprintable()


def test_a_site_for_a_document_without_one(tmp_path: Path) -> None:
    [read] = from_neuronpedia(document(hookName=None, vectorLabel="a\x1b[2J" + "b" * 900), HERE, "blocks.1.hook_resid_post")
    assert read.site == "blocks.1.hook_resid_post" and read.history[0].isprintable() and len(read.history[0]) < 400
    for text in ("", "[1]", "{", '{"vectors": 3}', '{"vectors": [3]}', "[" * 100_000):
        (tmp_path / "v.json").write_text(text)
        with pytest.raises(ValueError, match="v.json' is no vector of Neuronpedia"):
            from_neuronpedia(tmp_path / "v.json", HERE)


@pytest.mark.parametrize(
    ("changes", "options", "says"),
    [
        ({"site": "blocks.2.hook_mlp_out"}, {}, "takes vectors at hook_resid_pre and hook_resid_post"),
        ({"site": "hook_embed"}, {}, "'hook_embed' cannot be written for Neuronpedia"),
        ({"direction": torch.ones(24577)}, {}, "a vector of 24577 numbers: Neuronpedia takes at most 24576"),
        ({}, {"strength": 101}, "strength=101: Neuronpedia takes from -100 to 100"),
        ({}, {"strength": float("nan")}, "strength=nan"),
        ({}, {"label": " "}, "Neuronpedia needs both"),
        ({"direction": torch.full((WIDTH,), torch.nan)}, {}, "Out of range float"),
    ],
)
def test_what_neuronpedia_does_not_take(changes: Any, options: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=says):
        to_neuronpedia(
            vector("blocks.2.hook_resid_pre", **changes), tmp_path / "v.json", "tiny", **{"label": "kind", **options}
        )
    assert not list(tmp_path.iterdir())
