import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from interp_transfer.plots.style import styles
from interp_transfer.reporting import png_export
from interp_transfer.reporting.png_export import HEAD, WIDTH, browser, write_png
from interp_transfer.reporting.report import figures
from interp_transfer.reporting.run_folder import read_run

Save = Callable[[dict[str, Any], dict[str, Any]], Path]
Json = dict[str, Any]


def test_without_a_browser_nothing_is_written(
    save: Save, result: Json, completions: Json, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save(result, completions)
    monkeypatch.setattr(png_export, "BROWSERS", ("no-such-browser",))
    with pytest.raises(ValueError, match="neither is on the PATH: install one"):
        write_png(folder)
    assert sorted(p.name for p in folder.iterdir()) == ["completions.json", "result.json"]


@pytest.mark.parametrize(
    ("script", "says"), [("echo cannot start >&2; exit 3", "exit code 3; cannot start"), ("exit 0", "says nothing")]
)
def test_a_browser_that_fails_is_named(
    save: Save, result: Json, completions: Json, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, says: str
) -> None:
    fake = tmp_path / "fake"
    fake.write_text(f"#!/bin/sh\n{script}\n")
    fake.chmod(0o755)
    monkeypatch.setattr(png_export, "BROWSERS", (str(fake),))
    folder = save(result, completions)
    with pytest.raises(ValueError, match=f"fake drew no figure .*{says}"):
        write_png(folder)
    assert not (folder / png_export.FIGURES).exists()


def test_a_run_without_a_sweep_has_one_figure(save: Save, result: Json, completions: Json) -> None:
    assert list(figures(read_run(save(result, completions)).result)) == ["conditions", "strength", "picture"]
    del result["sweep"], result["picture"]
    assert list(figures(read_run(save(result, completions)).result)) == ["conditions"]


def pixels(path: Path) -> tuple[int, int, dict[tuple[int, ...], int]]:
    """Width, height, and how often each colour comes, of an RGB PNG of eight bits without interlacing."""
    data, place, packed = path.read_bytes(), 8, b""
    width, height, *kind = struct.unpack(">IIBBBBB", data[16:29])
    assert kind == [8, 2, 0, 0, 0]
    while place < len(data):
        (size,) = struct.unpack(">I", data[place : place + 4])
        packed += data[place + 8 : place + 8 + size] if data[place + 4 : place + 8] == b"IDAT" else b""
        place += size + 12
    raw, row, counts = zlib.decompress(packed), bytearray(3 * width), {}
    for y in range(height):
        start = y * (3 * width + 1)
        row = unfiltered(raw[start], raw[start + 1 : start + 1 + 3 * width], row)
        for x in range(0, 3 * width, 3):
            colour = tuple(row[x : x + 3])
            counts[colour] = counts.get(colour, 0) + 1
    return width, height, counts


def unfiltered(kind: int, line: bytes, above: bytearray) -> bytearray:
    """A line of a PNG, by its specification."""
    out = bytearray(line)
    for i in range(len(out) if kind else 0):
        left, up, corner = (out[i - 3], above[i], above[i - 3]) if i >= 3 else (0, above[i], 0)
        nearest = min((left, up, corner), key=lambda v: abs(left + up - corner - v))
        out[i] = (out[i] + (0, left, up, (left + up) // 2, nearest)[kind]) % 256
    return out


@pytest.mark.slow
def test_figures_are_drawn_on_white(save: Save, result: Json, completions: Json, monkeypatch: pytest.MonkeyPatch) -> None:
    if not any(map(shutil.which, png_export.BROWSERS)):
        pytest.skip("no Chromium on this machine")
    monkeypatch.setattr(png_export, "SCALE", 1)
    result["source"]["name"] = "<b>bold</b>\u202e"
    block = "blocks.3.hook_resid_pre"
    tried = {block: {"success": 0.5, "intact": 0.5, "strength": 1.0, "clean_kl": 0.1}}
    search = {"site": block, "predicted": {}, "tried": tried, "n": 16, "budget": 0.1}
    result["sites"] = {"source": {"site": block, "search": search}, "target": {"site": block, "chosen": "given"}}
    folder = save(result, completions)
    made = figures(read_run(folder).result)
    written = write_png(folder)
    assert [p.stem for p in written] == ["conditions", "strength", "picture", "source-site"]
    assert sorted((folder / png_export.FIGURES).iterdir()) == sorted(written)
    for path in written:
        width, height, counts = pixels(path)
        assert (width, height) == (WIDTH, HEAD + made[path.stem].to_dict()["layout"]["height"])
        assert max(counts, key=counts.__getitem__) == (255, 255, 255)
        for name in ("native", "moved") if path.stem in ("conditions", "strength") else ():
            colour = styles([name])[name].colour
            assert counts.get(tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5)), 0) > 100, (path.name, name)


def test_the_browser_is_the_first_that_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("google-chrome", "chromium-browser"):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert browser() == str(tmp_path / "chromium-browser")
