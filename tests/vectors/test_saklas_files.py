"""Profiles and fits of saklas."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from interp_transfer.vectors.exchange import from_saklas, saklas
from tests.checkpoints import WIDTH
from tests.peer_files import HERE, write_fit, write_profile


def test_a_fit_of_saklas_points_to_its_first_pole(tmp_path: Path, wrapped: Callable[[str], Any]) -> None:
    file, expected = write_fit(tmp_path)
    read = from_saklas(file, wrapped("llama"), "hook_resid_post")
    for one, (layer, values) in zip(read, expected.items(), strict=True):
        assert one.site == f"blocks.{layer}.hook_resid_post" and "'kind.unkind' of saklas" in one.history[0]
        torch.testing.assert_close(one.direction, values)


def test_what_is_no_direction_of_saklas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrapped: Callable[[str], Any]) -> None:
    with pytest.raises(ValueError, match="it has 3 nodes, and a direction is of 2"):
        from_saklas(write_fit(tmp_path, ("a", "b", "c"))[0], HERE)
    with pytest.raises(ValueError, match="layer_0 has 2 dimensions, and a direction 1"):
        from_saklas(write_fit(tmp_path, rank=2)[0], HERE)
    file, _ = write_fit(tmp_path)
    file.with_suffix(".json").write_text("{}")
    with pytest.raises(ValueError, match="no fit of two poles.*node_labels"):
        from_saklas(file, HERE)
    file.with_suffix(".json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="org__model.json' is damaged"):
        from_saklas(file, HERE)
    (tmp_path / "manifold.json").unlink()
    for tensors, says in (
        ({"layer_1": torch.ones(WIDTH + 1)}, f"{WIDTH + 1} numbers, this model has d_model {WIDTH}"),
        ({"layer_4": torch.ones(WIDTH)}, "4 blocks"),
        ({"layer_1": torch.full((WIDTH,), torch.inf)}, "not finite"),
        ({"layer_1": torch.ones(WIDTH), "layer_01": torch.ones(WIDTH)}, "two directions of layer 1"),
        ({"direction": torch.ones(WIDTH)}, "'direction' names no layer"),
    ):
        with pytest.raises(ValueError, match=says):
            from_saklas(write_profile(tmp_path / "p.safetensors", tensors), wrapped("llama"))
    good = write_profile(tmp_path / "p.safetensors", {"layer_1": torch.ones(WIDTH)})
    assert len(from_saklas(good, HERE)) == 1
    good.write_bytes(good.read_bytes().replace(np.float32(1).tobytes(), np.float32(2).tobytes(), 1))
    with pytest.raises(ValueError, match="p.safetensors' is damaged: .*changed after it was written"):
        from_saklas(good, HERE)
    monkeypatch.setattr(saklas, "MOST_BYTES", 10)
    with pytest.raises(ValueError, match="at most 10"):
        from_saklas(good, HERE)
