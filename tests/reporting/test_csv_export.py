from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from interp_transfer.reporting.csv_export import write_csv
from interp_transfer.reporting.png_export import write_png

Save = Callable[[dict[str, Any], dict[str, Any]], Path]
Json = dict[str, Any]


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
    assert len(said) == 200 * 11
    moved = said[said["condition"] == "moved"]
    assert list(moved["prompt"]) == completions["prompts"]
    assert list(moved["completion"]) == [c["completion"] for c in completions["conditions"]["moved"]]
    assert list(moved["intact"]) == [c["intact"] for c in completions["conditions"]["moved"]]
    assert list(moved["prompt_index"][moved["differ"]]) == [3]


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
    with pytest.raises(ValueError, match="cannot write .*completions.csv .No space left"):
        write_csv(folder)
    assert (folder / "completions.csv").read_text() == "old"
    assert sorted(p.name for p in folder.iterdir()) == ["completions.csv", "completions.json", "result.json"]


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    for write in (write_csv, write_png):
        with pytest.raises(ValueError, match="result.json is missing"):
            write(tmp_path)
    assert not list(tmp_path.iterdir())
