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

DANGEROUS = re.compile(
    r"'*(?:[\t\r\n]|[\x00-\x20\x7f-\xa0\u200b-\u200f\u2028-\u202f\u2060-\u2069\u3000\ufeff]*[=+\-@\uff1d\uff0b\uff0d\uff20])"
)
"""Beginning of a text that a table program may run: the signs and their full-width forms, also after characters that it
may read as space or drop, and breaks."""
ESCAPED = re.compile("'" + DANGEROUS.pattern)
"""Beginning of such a text in the CSV."""
ENDS = ("low", "high", "n")
VARIANT = ("mapper", "mode", "fvu", "norm", "cosine_to_native")


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
    return write_files({folder / f"{name}.csv": csv_text(frame).encode() for name, frame in frames.items()})


def tables(result: ResultJson, completions: CompletionsJson) -> dict[str, pd.DataFrame]:
    """Return the tables of a run that are not empty, by name."""
    conditions = result["conditions"]
    rows: dict[str, list[dict[str, Any]]] = {
        "conditions": [{"condition": name, **_flat(c), "note": c.get("note", "")} for name, c in conditions.items()],
        "at_strength_one": [{"condition": name, **_flat(c)} for name, c in result.get("at_strength_one", {}).items()],
        "sweep": [{"condition": row["condition"], "draw": row.get("draw", 0), **_flat(row)} for row in result.get("sweep", [])],
        "variants": [{**{key: row[key] for key in VARIANT}, **_flat(row)} for row in result.get("variants", [])],
        "readings": [
            {"condition": name, "reading": reading, **share}
            for name, c in conditions.items()
            for reading, share in c.get("readings", {}).items()
        ],
        "side_effects": list(_side_effects(result)),
        "by_token": list(_by_token(result)),
        "completions": list(_completions(completions)),
    }
    return {name: pd.DataFrame(records) for name, records in rows.items() if records}


def _flat(judged: Mapping[str, Any]) -> dict[str, Any]:
    """A condition as the cells of a row."""
    cost = {"value": judged["clean_kl"], **judged.get("clean_kl_interval", {})}
    shares = _columns("success", judged["success"]) | _columns("intact", judged["intact"])
    return {"strength": judged["strength"], **shares, **_columns("clean_kl", cost)}


def _columns(name: str, estimate: Mapping[str, Any]) -> dict[str, Any]:
    """A share or a mean, and the ends of its interval and n where they are known."""
    value = estimate["rate"] if "rate" in estimate else estimate["value"]
    return {name: value, **{f"{name}_{end}": estimate[end] for end in ENDS if end in estimate}}


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
                numbers = {"value": value, **{end: estimate[end] for end in ENDS}}
                yield {"condition": name, "of": "" if single else part, "measure": measure, **numbers}


def _by_token(result: ResultJson) -> Iterator[dict[str, Any]]:
    for by, name, fit in fits(result):
        row = {"by": by, "class": name, "rows": fit["n"]}
        for measure in ("fvu", "cosine", "norm_ratio", "share_of_error"):
            row |= _columns(measure, fit[measure] or dict.fromkeys(("value", *ENDS)))
        yield row


def _completions(completions: CompletionsJson) -> Iterator[dict[str, Any]]:
    for number, prompt in enumerate(completions["prompts"]):
        for name, judged in completions["conditions"].items():
            kept = {key: judged[number][key] for key in ("completion", "success", "intact", "reason")}
            differ = judged[number].get("differ", False)
            yield {"prompt_index": number, "prompt": prompt, "condition": name, **kept, "differ": differ}


def csv_text(frame: pd.DataFrame) -> str:
    """Return a frame as CSV: a header, every text in quotes, none that a table program would run."""
    return frame.map(_harmless).to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")


def _harmless(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and DANGEROUS.match(cell) else cell
