"""A run's numbers and completions as CSV, made from `result.json` and `completions.json` alone.

A table program runs a cell that begins with one of = + - @ as a formula, which may send data away or start programs ("CSV
injection"). Completions and model names are foreign text, so such a text gets an apostrophe in front, which table programs read
as the sign of a text (OWASP). A text that begins with apostrophes before such a sign gets one more, so the texts come back by
removing one apostrophe wherever `ESCAPED` matches.
"""

import csv
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from interp_transfer.io import write_files
from interp_transfer.reporting.effects import fits
from interp_transfer.reporting.run_folder import CompletionsJson, ResultJson, read_run

DANGEROUS = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
"""Beginning of a text that a table program may run: the signs, their full-width forms, and breaks that it may skip."""
ESCAPED = re.compile("'" + DANGEROUS.pattern)
"""Beginning of such a text in the CSV."""
ENDS = ("low", "high", "n")


def write_csv(folder: str | Path) -> list[Path]:
    """Write a run's numbers into its folder as CSV: UTF-8, a header, every text in quotes.

    `conditions.csv` (held-out prompts, strengths as chosen), `at_strength_one.csv`, `sweep.csv` (validation prompts),
    `variants.csv` (other mappers and modes), `readings.csv` (further readings of the completions), `side_effects.csv` (a row
    for each condition and measure of predictions and abilities), `by_token.csv` (the mapper's fit by class of token) and
    `completions.csv` (a row for each prompt and condition); a file whose table would be empty is left out. Shares lie between
    0 and 1, with the ends of their 95% intervals and n; KL and losses are in nats per token.

    Returns:
        The files' paths. Older files are replaced, all or none.

    Raises:
        ValueError: when the folder holds no run, or a file cannot be written.
    """
    folder = Path(folder)
    run = read_run(folder)
    frames = tables(run.result, run.completions)
    return write_files({folder / f"{name}.csv": _csv(frame).encode() for name, frame in frames.items()})


def tables(result: ResultJson, completions: CompletionsJson) -> dict[str, pd.DataFrame]:
    """The tables of a run that are not empty, by name."""
    conditions = result["conditions"]
    rows: dict[str, list[dict[str, Any]]] = {
        "conditions": [{"condition": name, **_flat(c), "note": c.get("note", "")} for name, c in conditions.items()],
        "at_strength_one": [{"condition": name, **_flat(c)} for name, c in result.get("at_strength_one", {}).items()],
        "sweep": [{"condition": row["condition"], **_flat(row)} for row in result.get("sweep", [])],
        "variants": [_variant(row) for row in result.get("variants", [])],
        "readings": [
            {"condition": name, "reading": reading, **share}
            for name, c in conditions.items()
            for reading, share in c.get("readings", {}).items()
        ],
        "side_effects": list(_side_effects(result)),
        "by_token": list(_by_token(result)),
        "completions": list(_completions(completions)),
    }
    return {name: pd.DataFrame(given) for name, given in rows.items() if given}


def _flat(judged: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"strength": judged["strength"]}
    for measure in ("success", "intact"):
        share = judged[measure]
        row |= {measure: share["rate"], **{f"{measure}_{end}": share[end] for end in ENDS}}
    ends = judged.get("clean_kl_interval") or {}
    return {**row, "clean_kl": judged["clean_kl"], **{f"clean_kl_{end}": value for end, value in ends.items()}}


def _side_effects(result: ResultJson) -> Iterator[dict[str, Any]]:
    """A row for each condition and measure; the value of a share is its rate."""
    effects: Any = result.get("side_effects", {})
    for name, parts in effects.items():
        for part, measures in parts.items():
            if measures is None:
                continue
            single = set(ENDS) <= set(measures)  # one estimate, not a group of them
            for measure, estimate in ({part: measures} if single else measures).items():
                value = estimate["rate"] if "rate" in estimate else estimate["value"]
                figures = {"value": value, **{end: estimate[end] for end in ENDS}}
                yield {"condition": name, "of": "" if single else part, "measure": measure, **figures}


def _by_token(result: ResultJson) -> Iterator[dict[str, Any]]:
    for by, name, fit in fits(result):
        row = {"by": by, "class": name, "rows": fit["n"]}
        for measure in ("fvu", "cosine", "norm_ratio", "share_of_error"):
            mean = fit[measure] or dict.fromkeys(("value", *ENDS))
            row |= {measure: mean["value"], **{f"{measure}_{end}": mean[end] for end in ENDS}}
        yield row


def _variant(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**{key: row[key] for key in ("mapper", "mode", "fvu", "norm", "cosine_to_native")}, **_flat(row)}


def _completions(completions: CompletionsJson) -> Iterator[dict[str, Any]]:
    for number, prompt in enumerate(completions["prompts"]):
        for name, judged in completions["conditions"].items():
            kept = {key: judged[number][key] for key in ("completion", "success", "intact", "reason")}
            differ = judged[number].get("differ", False)
            yield {"prompt_index": number, "prompt": prompt, "condition": name, **kept, "differ": differ}


def _csv(frame: pd.DataFrame) -> str:
    return frame.map(_harmless).to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")


def _harmless(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and DANGEROUS.match(cell) else cell
