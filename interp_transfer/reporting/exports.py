"""A run's numbers as CSV and its figures as PNG, for a table program, a paper or slides.

Like the report both are made of `result.json` and `completions.json` alone. PNG is drawn by the Chromium or Chrome of the
machine on a page that may fetch nothing; kaleido, which is usual for this, starts the same browser, but brings five packages
and does not start it as root.

A cell of a CSV that begins with one of = + - @ is a formula to a table program, and may send data away or start programs
("CSV injection"). Models and model names are foreign, so such a text is given an apostrophe in front, which table programs take
as the sign of a text (OWASP). A text that begins with apostrophes before such a sign gets one more: taking away one apostrophe
wherever `ESCAPED` matches gives every text back.
"""

import csv
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup
from plotly.graph_objects import Figure
from plotly.offline import get_plotlyjs

from interp_transfer.plots.conditions import condition_bars
from interp_transfer.plots.style import FONT, INK
from interp_transfer.reporting.effects import fits
from interp_transfer.reporting.page import SCRIPT, json_block, render
from interp_transfer.reporting.report import _frame, _models, _strengths
from interp_transfer.reporting.run_folder import CompletionsJson, ResultJson, read_run

DANGEROUS = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
"""How a text begins that a table program may run: the signs, their full-width forms, and breaks that it may skip."""
ESCAPED = re.compile("'" + DANGEROUS.pattern)
"""How it begins in the CSV."""
FIGURES = "figures"
"""Folder for the PNGs, in a run's folder."""
WIDTH = 900
"""Of a PNG, in CSS pixels; each is ``SCALE`` by ``SCALE`` pixels of the file."""
SCALE = 2
HEAD = 64
"""What the title takes of a PNG's height, in CSS pixels."""
PATIENCE = 120
"""Seconds that the browser may take for a figure."""
ABOUT = {
    "conditions": "{n} held-out prompts. Pale bars: success; solid bars: intact; 95% intervals. Clean KL in nats per token.",
    "strength": "{n} validation prompts. Bands: 95% intervals. Rings: the strength that was chosen.",
}
"""What stands below the title of a PNG."""
BROWSERS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{{ policy }}">
<style>body { margin: 0; background: #fff; color: {{ ink }}; font: 13px/20px {{ font }}; }
header { height: {{ head }}px; padding: 12px 12px 0; box-sizing: border-box; }
h1, p { margin: 0; overflow: hidden; white-space: nowrap; text-overflow: ellipsis; } h1 { font-size: 16px; line-height: 24px; }
.modebar-container { display: none; }</style></head>
<body><header><h1>{{ title }}</h1><p>{{ about }}</p></header><div data-figure="figure"></div>
<script type="application/json" id="figure">{{ figure }}</script>
{% for script in scripts %}<script>{{ script }}</script>{% endfor %}
</body></html>
"""


def write_csv(folder: str | Path) -> list[Path]:
    """Write a run's numbers into its folder as CSV: UTF-8, a header, every text in quotes.

    `conditions.csv` (held-out prompts, strengths as chosen), `at_strength_one.csv`, `sweep.csv` (validation prompts),
    `variants.csv` (other mappers and modes), `readings.csv` (what else was read off the completions), `side_effects.csv` (a row
    for each condition and measure of predictions and abilities), `by_token.csv` (the mapper's fit by class of token) and
    `completions.csv` (a row for each prompt and condition), each if the run has such numbers. Shares lie between 0 and 1, with
    the ends of their 95% intervals and n; KL and losses are in nats per token.

    Returns:
        The files' paths. Older ones are replaced, each at once.

    Raises:
        ValueError: when the folder holds no run, or a file cannot be written.
    """
    folder = Path(folder)
    run = read_run(folder)
    made = {f"{name}.csv": _csv(frame).encode() for name, frame in tables(run.result, run.completions).items()}
    return _put(made, folder)


def tables(result: ResultJson, completions: CompletionsJson) -> dict[str, pd.DataFrame]:
    """The tables that a run has, by name."""
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
        "side_effects": list(_effects(result)),
        "by_token": list(_by_token(result)),
        "completions": list(_said(completions)),
    }
    return {name: pd.DataFrame(given) for name, given in rows.items() if given}


def write_png(folder: str | Path) -> list[Path]:
    """Write the figures of a run's report as PNG into the folder's `figures`, on white.

    `conditions.png` holds the bars of all conditions, `strength.png` the curves of the sweep, if there was one.

    Returns:
        The files' paths. Older ones are replaced, once all are drawn.

    Raises:
        ValueError: when the folder holds no run, the machine has no Chromium or Chrome, the browser fails, or a file cannot be
            written.
    """
    folder = Path(folder)
    result = read_run(folder).result
    title = f"{result['task']}, {_models(result)}"
    judged = {"conditions": list(result["conditions"].values()), "strength": result.get("sweep", [])}
    drawn = {
        f"{name}.png": png(figure, title, ABOUT[name].format(n=min(c["success"]["n"] for c in judged[name])))
        for name, figure in figures(result).items()
    }
    return _put(drawn, folder / FIGURES)


def figures(result: ResultJson) -> dict[str, Figure]:
    """The figures of a run's report, by name."""
    made = {"conditions": condition_bars(_frame(result["conditions"]))}
    return {**made, "strength": _strengths(result)} if result.get("sweep") else made


def png(figure: Figure, title: str, about: str, width: int = WIDTH) -> bytes:
    """A figure as PNG, drawn by Chromium or Chrome without network, on white.

    Args:
        figure: its layout says how high it is.
        title: stands above it.
        about: likewise, in smaller letters.
        width: in CSS pixels, at least 500; the file has ``SCALE`` times as many.

    Raises:
        ValueError: when there is no such browser, or it fails.
    """
    height = HEAD + int(figure.layout.height or 450)  # pyright: ignore[reportAttributeAccessIssue]
    context = {"figure": json_block(str(figure.to_json())), "title": title, "about": about, "head": HEAD, "ink": INK}
    context |= {"font": Markup(FONT)}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        page, out = Path(scratch) / "figure.html", Path(scratch) / "figure.png"
        page.write_text(render(context, [get_plotlyjs(), SCRIPT], _PAGE), encoding="utf-8")
        command = [
            browser(),
            "--headless",
            "--disable-gpu",
            "--disable-background-networking",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            "--hide-scrollbars",
            "--no-first-run",
            f"--force-device-scale-factor={SCALE}",
            f"--window-size={width},{height}",
            f"--user-data-dir={Path(scratch) / 'profile'}",
            "--virtual-time-budget=10000",
            f"--screenshot={out}",
        ]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            command.append("--no-sandbox")  # Chromium has none for root, and does not start without being told so
        try:
            done = subprocess.run([*command, page.as_uri()], capture_output=True, timeout=PATIENCE, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ValueError(f"{command[0]} drew no figure ({error.__class__.__name__}): {_REMEDY}") from error
        if not out.is_file():
            said = done.stderr.decode(errors="replace").strip().splitlines() or ["it says nothing"]
            raise ValueError(f"{command[0]} drew no figure (exit code {done.returncode}; {said[-1][:200]}): {_REMEDY}")
        return out.read_bytes()


_REMEDY = "see that it starts by itself, or install another Chromium or Chrome"


def browser() -> str:
    """Where this machine has Chromium or Chrome.

    Raises:
        ValueError: when it has neither.
    """
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        raise ValueError("PNGs are drawn by Chromium or Chrome, and neither is on the PATH: install one (apt install chromium)")
    return found


def _flat(judged: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"strength": judged["strength"]}
    for measure in ("success", "intact"):
        share = judged[measure]
        row |= {measure: share["rate"], **{f"{measure}_{end}": share[end] for end in ("low", "high", "n")}}
    ends = judged.get("clean_kl_interval") or {}
    return {**row, "clean_kl": judged["clean_kl"], **{f"clean_kl_{end}": value for end, value in ends.items()}}


def _effects(result: ResultJson) -> Iterator[dict[str, Any]]:
    """A row for each condition and measure; a share's value is its rate."""
    effects: Any = result.get("side_effects", {})
    for name, found in effects.items():
        for part, given in found.items():
            if given is None:
                continue
            one = {"low", "high", "n"} <= set(given)
            for measure, mean in ({part: given} if one else given).items():
                value = mean["rate"] if "rate" in mean else mean["value"]
                figures = {"value": value, **{end: mean[end] for end in ("low", "high", "n")}}
                yield {"condition": name, "of": "" if one else part, "measure": measure, **figures}


def _by_token(result: ResultJson) -> Iterator[dict[str, Any]]:
    for by, name, fit in fits(result):
        row = {"by": by, "class": name, "rows": fit["n"]}
        for measure in ("fvu", "cosine", "norm_ratio", "share_of_error"):
            mean = fit[measure] or dict.fromkeys(("value", "low", "high", "n"))
            row |= {measure: mean["value"], **{f"{measure}_{end}": mean[end] for end in ("low", "high", "n")}}
        yield row


def _variant(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**{key: row[key] for key in ("mapper", "mode", "fvu", "norm", "cosine_to_native")}, **_flat(row)}


def _said(completions: CompletionsJson) -> Iterator[dict[str, Any]]:
    for number, prompt in enumerate(completions["prompts"]):
        for name, said in completions["conditions"].items():
            judged = said[number]
            kept = {key: judged[key] for key in ("completion", "success", "intact", "reason")}
            yield {"prompt_index": number, "prompt": prompt, "condition": name, **kept, "differ": judged.get("differ", False)}


def _csv(frame: pd.DataFrame) -> str:
    return frame.map(_harmless).to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")


def _harmless(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and DANGEROUS.match(cell) else cell


def _put(files: Mapping[str, bytes], folder: Path) -> list[Path]:
    """Write all files under other names first, and then move them to their places."""
    halves = {folder / f".{name}.part": folder / name for name in files}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for half, content in zip(halves, files.values(), strict=True):
            half.write_bytes(content)
        for half, whole in halves.items():
            half.replace(whole)
    except OSError as error:
        for half in halves:
            half.unlink(missing_ok=True)
        raise ValueError(f"cannot write into {folder} ({error.strerror}): make it writable or copy it elsewhere") from error
    return list(halves.values())
