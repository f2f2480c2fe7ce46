"""Vectors of other tools: the same effect as a plain PyTorch hook, by whichever file they come, and what is refused."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import interp_transfer as it
from interp_transfer.vectors.exchange import (
    from_caa,
    from_npz,
    from_pt,
    from_saklas,
    from_steering_vectors,
    read_vector,
    to_gguf,
    to_steering_vectors,
)
from tests.checkpoints import FAMILIES, WIDTH
from tests.peer_files import (
    HERE,
    by_layer,
    check_effect,
    direction,
    document,
    steered_by_hooks,
    vector,
    write_npz,
    write_profile,
    write_steering_vector,
)


class Held:
    """An object with the attributes of steering-vectors' class."""

    def __init__(self, layers: dict[int, Tensor], kind: str = "decoder_block") -> None:
        self.layer_activations, self.layer_type = layers, kind


@pytest.fixture
def pickled(tmp_path: Path) -> Callable[..., Path]:
    """Write what torch.save writes of an object of steering-vectors."""
    return lambda *given, **more: write_steering_vector(tmp_path / "theirs.pt", *given, **more)


@pytest.mark.parametrize("family", FAMILIES)
def test_layer_n_is_what_block_n_returns(
    family: str, wrapped: Callable[[str], Any], folder: Callable[[str], Path], tmp_path: Path, pickled: Callable[..., Path]
) -> None:
    model, layers = wrapped(family), by_layer()
    expected = steered_by_hooks(folder(family), family, layers, "resid_post")
    arrays = {str(layer): values.numpy() for layer, values in layers.items()}
    caa = tmp_path / "caa"
    caa.mkdir()
    for layer, values in layers.items():
        torch.save(values, caa / f"vec_layer_{layer}_Tiny-chat.pt")
    read = {
        "npz": from_npz(write_npz(tmp_path / "v.npz", arrays), model),
        "named": from_npz(write_npz(tmp_path / "w.npz", {f"layer_{n}": a for n, a in arrays.items()}, True), model),
        "profile": from_saklas(write_profile(tmp_path / "p.safetensors", {f"layer_{n}": a for n, a in layers.items()}), model),
        "caa": from_caa(caa, model),
        "file": from_steering_vectors(pickled(layers), model),
        "object": from_steering_vectors(Held(layers), model),
    }
    for name, vectors in read.items():
        assert [one.site for one in vectors] == [f"blocks.{layer}.hook_resid_post" for layer in layers], name
        assert all(torch.equal(one.direction, layers[layer]) for one, layer in zip(vectors, layers, strict=True)), name
        assert {one.model for one in vectors} == {it.identity(model)} and not any(one.evidence for one in vectors), name
        check_effect(model, vectors, expected)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
@pytest.mark.parametrize(("kind", "what"), [("self_attn", "attn_out"), ("mlp", "mlp_out")])
def test_parts_of_a_block(
    family: str, kind: str, what: str, wrapped: Callable[[str], Any], folder: Callable[[str], Path]
) -> None:
    vectors = from_steering_vectors(Held(by_layer(), kind), wrapped(family))
    assert vectors[1].site == f"blocks.2.hook_{what}"
    check_effect(wrapped(family), vectors, steered_by_hooks(folder(family), family, by_layer(), what))


def test_the_other_name_of_a_place(tmp_path: Path, wrapped: Callable[[str], Any], folder: Callable[[str], Path]) -> None:
    path = write_npz(tmp_path / "v.npz", {"1": direction().numpy()})
    [read] = from_npz(path, wrapped("llama"), "hook_resid_pre")
    assert read.site == "blocks.2.hook_resid_pre" and "v.npz" in read.history[0]
    check_effect(wrapped("llama"), [read], steered_by_hooks(folder("llama"), "llama", {1: direction()}, "resid_post"))
    with pytest.raises(ValueError, match="choose 'hook_resid_post' or"):
        from_npz(path, HERE, "hook_mlp_out")


def test_what_steering_vectors_is_given(wrapped: Callable[[str], Any], folder: Callable[[str], Path]) -> None:
    model = wrapped("llama")
    sites = ("blocks.3.hook_resid_post", "blocks.2.hook_resid_pre", "blocks.0.hook_resid_post")
    written = [vector(site, seed, model=it.identity(model)) for seed, site in enumerate(sites)]
    given = to_steering_vectors(written)
    assert given["layer_type"] == "decoder_block" and list(given["layer_activations"]) == [0, 1, 3]
    expected = steered_by_hooks(folder("llama"), "llama", given["layer_activations"], "resid_post", -0.5)
    check_effect(model, written, expected, -0.5)
    again = from_steering_vectors(Held(**{"layers": given["layer_activations"]}), model)
    assert [one.site for one in again] == [f"blocks.{layer}.hook_resid_post" for layer in (0, 1, 3)]


@pytest.mark.parametrize(
    ("layers", "kind", "says"),
    [
        ({1: torch.ones(WIDTH)}, "input_layernorm", "layer_type 'input_layernorm', for which there is no site"),
        ({1: torch.ones(WIDTH)}, "self_attn", "normalises before it adds it"),
        ({1: torch.ones(WIDTH + 1)}, "decoder_block", f"{WIDTH + 1} numbers, this model has d_model {WIDTH}"),
        ({4: torch.ones(WIDTH)}, "decoder_block", "4 blocks"),
        ({-1: torch.ones(WIDTH)}, "decoder_block", r"has layers \[-1\]: they are counted from 0"),
        ({}, "decoder_block", r"has layers \[\]"),
        ({1: torch.full((WIDTH,), torch.nan)}, "decoder_block", "layer 1 holds numbers that are not finite"),
        ({"1": torch.ones(WIDTH)}, "decoder_block", "is no steering vector of steering-vectors"),
        ([torch.ones(WIDTH)], "decoder_block", "is no steering vector of steering-vectors"),
        ({1: torch.ones(WIDTH)}, 3, "is no steering vector of steering-vectors"),
    ],
)
def test_objects_of_steering_vectors_that_do_not_fit(
    layers: Any, kind: Any, says: str, wrapped: Callable[[str], Any], pickled: Callable[..., Path]
) -> None:
    for source in (Held(layers, kind), pickled(layers, kind)):
        with pytest.raises(ValueError, match=says):
            from_steering_vectors(source, wrapped("gemma2"))


class Runs:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return (os.mkdir, (os.environ["TRAP"],))


def test_a_file_that_names_another_class_is_refused_and_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pickled: Callable[..., Path]
) -> None:
    monkeypatch.setenv("TRAP", str(tmp_path / "trap"))
    with pytest.raises(ValueError, match="could run code on this machine"):
        from_steering_vectors(pickled(by_layer(), extra=Runs()), HERE)
    with pytest.raises(ValueError, match="asks for steering_vectors.steering_vector.SteeringVector"):
        from_pt(pickled(by_layer()), "blocks.1.hook_resid_post", HERE)
    torch.save(by_layer(), tmp_path / "plain.pt")
    for source in (tmp_path / "plain.pt", object()):
        with pytest.raises(ValueError, match="is no steering vector of steering-vectors"):
            from_steering_vectors(source, HERE)
    assert not (tmp_path / "trap").exists()


def test_a_folder_of_caa(tmp_path: Path, wrapped: Callable[[str], Any]) -> None:
    for layer, name, size in ((13, "Big-chat", WIDTH), (9, "Big-chat", WIDTH), (13, "Big", WIDTH), (1, "Wide", WIDTH + 1)):
        torch.save(torch.full((size,), float(layer)), tmp_path / f"vec_layer_{layer}_{name}.pt")
    with pytest.raises(ValueError, match="vectors of 'Big', 'Big-chat', 'Wide': choose by name=, not None"):
        from_caa(tmp_path, HERE)
    with pytest.raises(ValueError, match="not 'big'"):
        from_caa(tmp_path, HERE, "big")
    read = from_caa(tmp_path, HERE, "Big-chat")
    assert [(one.site, float(one.direction[0])) for one in read] == [
        ("blocks.9.hook_resid_post", 9.0),
        ("blocks.13.hook_resid_post", 13.0),
    ]
    with pytest.raises(ValueError, match="4 blocks"):
        from_caa(tmp_path, wrapped("llama"), "Big")
    with pytest.raises(ValueError, match=f"{WIDTH + 1} numbers, this model has d_model {WIDTH}"):
        from_caa(tmp_path, wrapped("llama"), "Wide")
    (tmp_path / "vec_layer_013_Big.pt").write_bytes((tmp_path / "vec_layer_13_Big.pt").read_bytes())
    with pytest.raises(ValueError, match="two directions of layer 13"):
        from_caa(tmp_path, HERE, "Big")
    (tmp_path / "empty").mkdir()
    for nowhere in (tmp_path / "empty", tmp_path / "missing"):
        with pytest.raises(ValueError, match="no file named vec_layer_N_NAME.pt"):
            from_caa(nowhere, HERE)


def test_one_vector_of_any_file(tmp_path: Path, wrapped: Callable[[str], Any]) -> None:
    model = wrapped("llama")
    own = vector("blocks.2.hook_resid_pre", model=it.identity(model))
    torch.save(direction(), tmp_path / "v.pt")
    (tmp_path / "v.json").write_text(json.dumps(document()))
    files = {
        own.save(tmp_path / "v.safetensors"): None,
        own.save(tmp_path / "no ending"): None,
        to_gguf(own, tmp_path / "v.gguf"): None,
        tmp_path / "v.json": None,
        tmp_path / "v.pt": "blocks.2.hook_resid_pre",
        write_npz(tmp_path / "v.npz", {"1": direction().numpy(), "3": direction(1).numpy()}): "blocks.2.hook_resid_pre",
        write_profile(tmp_path / "p.safetensors", {"layer_1": direction(), "layer_3": direction(1)}): 2,
    }
    for path, site in files.items():
        read = read_vector(path, model, site)
        assert (read.site, read.model) == ("blocks.2.hook_resid_pre", own.model) and torch.equal(read.direction, own.direction)
    assert read_vector(tmp_path / "v.npz", model, "blocks.1.hook_resid_post").site == "blocks.1.hook_resid_post"
    assert read_vector(tmp_path / "v.gguf").site == "blocks.2.hook_resid_pre"
    for name, site, says in (
        ("v.npz", None, "vectors at blocks.1.hook_resid_post, blocks.3.hook_resid_post, not one at None"),
        ("v.npz", "blocks.1.hook_resid_pre", "not one at 'blocks.1.hook_resid_pre': choose a site of these"),
        ("v.safetensors", "blocks.1.hook_resid_pre", "not one at 'blocks.1.hook_resid_pre'"),
        ("v.pt", None, "does not name the site of its vector: give the site"),
        ("nowhere", None, "there is no file"),
    ):
        with pytest.raises(ValueError, match=says):
            read_vector(tmp_path / name, model, site)
    for name in ("v.npz", "v.json", "v.pt", "p.safetensors"):
        with pytest.raises(ValueError, match="does not name the model of its vector: give the model"):
            read_vector(tmp_path / name, site=2)
