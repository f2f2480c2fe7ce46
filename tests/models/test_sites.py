"""Names of hook points."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import interp_transfer as it
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.sites import RESIDUAL_WRITES, check_site, expand_sites, hook_points, layer_of, residual_sites
from tests.checkpoints import LAYERS, hooked_transformer


def test_layer_of() -> None:
    assert layer_of("blocks.12.hook_resid_pre") == 12
    assert layer_of("blocks.*.hook_resid_pre") is None
    assert layer_of("hook_embed") is None and layer_of("ln_final.hook_normalized") is None


def test_known_sites_are_returned(wrapped: Callable[[str], Any]) -> None:
    model = wrapped("qwen2")
    for site in model.hook_dict:
        first = check_site(model, site)
        assert model.hook_dict[first] is model.hook_dict[site] and check_site(model, first) == first


@pytest.mark.parametrize(
    ("other", "usual"),
    [("hook_in", "hook_resid_pre"), ("hook_out", "hook_resid_post"), ("attn.hook_out", "hook_attn_out")],
)
def test_two_names_of_a_hook_point_are_one_site(other: str, usual: str, wrapped: Callable[[str], Any]) -> None:
    assert check_site(wrapped("qwen2"), f"blocks.1.{other}") == f"blocks.1.{usual}"
    pairs = [("the cat sat", "dogs run far"), ("a cat", "a dog")]
    assert it.extract(wrapped("qwen2"), pairs, f"blocks.1.{other}").site == f"blocks.1.{usual}"


@pytest.mark.parametrize(
    ("site", "match"),
    [
        ("blocks.1.hook_resid_prr", "did you mean 'blocks.1.hook_resid_pre"),
        ("block.1.hook_resid_pre", r"did you mean .*blocks\.1\.hook_resid_pre"),
        ("blocks.4.hook_resid_pre", "this model has 4 blocks, 0 to 3"),
        ("blocks.1.hook_nonsense_and_more_of_it_here", "unknown site"),
        ("zzz", r"there are 'blocks.0.hook_resid_pre.*model.hook_dict lists all \d+"),
        ("", "unknown site ''"),
    ],
)
def test_unknown_sites_raise_with_the_closest(site: str, match: str, wrapped: Callable[[str], Any]) -> None:
    for check in (check_site, expand_sites):
        with pytest.raises(ValueError, match=match):
            check(wrapped("qwen2"), site)


def test_the_number_of_a_block_is_its_input(wrapped: Callable[[str], Any]) -> None:
    model = wrapped("gpt2")
    for number in (1, "1"):
        assert check_site(model, number) == "blocks.1.hook_resid_pre"
    assert expand_sites(model, [0, "1", "blocks.1.hook_mlp_out"])[:2] == ["blocks.0.hook_resid_pre", "blocks.1.hook_resid_pre"]
    vector = it.extract(model, [("yes", "no")], 1)
    pairs = it.collect(model, model, ["one text", "another"], 0, "1", progress=False)
    assert vector.site == "blocks.1.hook_resid_pre"
    assert pairs.site_pairs == (("blocks.0.hook_resid_pre", "blocks.1.hook_resid_pre"),)
    with pytest.raises(ValueError, match="has . blocks"):
        check_site(model, 99)


def test_patterns(wrapped: Callable[[str], Any]) -> None:
    model = wrapped("qwen2")
    every = [f"blocks.{n}.hook_resid_pre" for n in range(LAYERS)]
    assert expand_sites(model, "blocks.*.hook_resid_pre") == every == list(residual_sites(model))
    assert expand_sites(model, [every[2], "blocks.*.hook_resid_pre"]) == [every[2], every[0], every[1], every[3]]
    assert len(expand_sites(model, RESIDUAL_WRITES)) == 3 * LAYERS
    with pytest.raises(ValueError, match="blocks.0.hook_resid_per"):
        expand_sites(model, "blocks.*.hook_resid_per")
    with pytest.raises(ValueError, match="no site given"):
        expand_sites(model, [])


def test_resid_mid_is_edited_on_a_hooked_transformer_only(wrapped: Callable[[str], Any], folder: Callable[[str], Path]) -> None:
    bridge, other = wrapped("gpt2"), it.load_model(hooked_transformer(folder("gpt2")))
    site = "blocks.1.hook_resid_mid"
    assert hook_points(bridge, site) == {site: bridge.hook_dict[site]}
    with pytest.raises(ValueError, match="can be read but not edited"):
        hook_points(bridge, site, edit=True)
    assert hook_points(other, site, edit=True) == {site: other.hook_dict[site]}


def test_both_wrappers_meet_the_protocol(wrapped: Callable[[str], Any], folder: Callable[[str], Path]) -> None:
    assert isinstance(wrapped("gpt2"), HookedModel)
    assert isinstance(hooked_transformer(folder("gpt2")), HookedModel)
    assert not isinstance("gpt2", HookedModel)
