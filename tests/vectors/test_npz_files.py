"""Files of numpy: which are refused, and that nothing large is unpacked."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from interp_transfer.vectors.exchange import from_npz, npz
from tests.checkpoints import WIDTH
from tests.peer_files import HERE, write_npz


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"1": np.ones(WIDTH + 1)}, f"{WIDTH + 1} numbers, this model has d_model {WIDTH}"),
        ({"4": np.ones(WIDTH)}, "4 blocks"),
        ({"1": np.full(WIDTH, np.nan)}, "layer 1 holds numbers that are not finite"),
        ({"1": np.full(WIDTH, 1e300)}, "not finite"),
        ({"1": np.ones((2, WIDTH))}, "along one axis"),
        ({"1": np.ones(WIDTH, int)}, "dtype int64: a direction has floating-point numbers"),
        ({"1": np.array([{}], dtype=object)}, "dtype object"),
        ({"1": np.ones(WIDTH), "layer_1": np.ones(WIDTH)}, "two directions of layer 1"),
        ({"../1": np.ones(WIDTH)}, "'../1' names no layer"),
        ({"1\x1b[2J": np.ones(WIDTH)}, r"'1\\x1b\[2J' names no layer"),
        ({"model_type": np.ones(WIDTH)}, "'model_type' names no layer"),
        ({"9" * 5000: np.ones(WIDTH)}, r"999\.\.\. names no layer"),
        ({}, "holds no direction"),
    ],
)
def test_wrong_npz_files(arrays: dict[str, Any], says: str, tmp_path: Path, wrapped: Callable[[str], Any]) -> None:
    path = tmp_path / "v.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name, values in arrays.items():
            content = io.BytesIO()
            np.save(content, values, allow_pickle=True)
            archive.writestr(f"{name}.npy", content.getvalue())
    with pytest.raises(ValueError, match=says) as caught:
        from_npz(path, wrapped("llama"))
    text = str(caught.value)
    assert ("v.npz" in text or "blocks" in text) and text.isprintable() and len(text) < 600


def test_sizes_are_compared_before_anything_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = write_npz(tmp_path / "bomb.npz", {"1": np.zeros(1 << 20)}, compressed=True)
    assert bomb.stat().st_size < 1 << 16
    monkeypatch.setattr(npz, "MOST_BYTES", 1 << 20)
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *_: pytest.fail("it was unpacked"))
    with pytest.raises(ValueError, match="have 8388736 bytes unpacked, and directions at most 1048576"):
        from_npz(bomb, HERE)
    monkeypatch.setattr(npz, "MOST_BYTES", 100)
    with pytest.raises(ValueError, match="bytes, and a file of directions has at most 100"):
        from_npz(bomb, HERE)


def test_damaged_npz_files(tmp_path: Path) -> None:
    whole = write_npz(tmp_path / "v.npz", {"1": np.ones(WIDTH)}).read_bytes()
    path = tmp_path / "half.npz"
    changed = whole.replace(np.ones(2).tobytes(), np.full(2, 1.5).tobytes(), 1)
    larger = whole.replace(b"'shape': (16,)", b"'shape': (9**9,)"[:14].ljust(14), 1)
    for content in (b"", b"no zip", whole[: len(whole) // 2], changed, larger):
        assert content != whole
        path.write_bytes(content)
        with pytest.raises(ValueError, match="half.npz' is damaged or no .npz file"):
            from_npz(path, HERE)
    with zipfile.ZipFile(path, "w") as archive:
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)})
        archive.writestr("1.npy", header.getvalue() + b"\0" * 8)
    with pytest.raises(ValueError, match=r"8 bytes for shape \(1000000000000,\)"):
        from_npz(path, HERE)
    with zipfile.ZipFile(path, "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        for _ in range(2):
            archive.writestr("1.npy", zipfile.ZipFile(tmp_path / "v.npz").read("1.npy"))
    with pytest.raises(ValueError, match="it holds '1' twice"):
        from_npz(path, HERE)
    with pytest.raises(ValueError, match="no file .*nowhere"):
        from_npz(tmp_path / "nowhere.npz", HERE)
