"""A run's figures as PNG, drawn by the machine's Chromium or Chrome on a page that fetches nothing.

The usual tool, kaleido, starts the same browser, but needs five packages and does not start it as root.
"""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from markupsafe import Markup
from plotly.graph_objects import Figure

from interp_transfer.io import write_files
from interp_transfer.plots.style import FONT, INK
from interp_transfer.reporting.render import render
from interp_transfer.reporting.report import figures, models_of
from interp_transfer.reporting.run_folder import read_run

FIGURES = "figures"
"""Folder of the PNGs, in a run's folder."""
WIDTH = 900
"""Width of a PNG in CSS pixels; each is ``SCALE`` by ``SCALE`` pixels of the file."""
SCALE = 2
HEAD = 64
"""Height of the title and the line below it, in CSS pixels."""
PATIENCE = 120
"""Seconds that the browser may take for a figure."""
ABOUT = {
    "conditions": "{n} held-out prompts, 95% intervals. Open markers: success, where more than are intact. Pale: single draws.",
    "strength": "{n} validation prompts. Pale lines: further draws. Rings: the strength that was chosen.",
    "picture": "Orange comes from the source, blue from the target. Filled: positive side. Arrows are projected.",
}
"""The line below the title of a PNG."""
SITE = "{side}: the best of {tried} blocks on {n} validation prompts. Numbers: intact answers."
"""The same for the search of a site."""
BROWSERS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
_REMEDY = "see that it starts by itself, or install another Chromium or Chrome"


def write_png(folder: str | Path) -> list[Path]:
    """Write the figures of a run's report as PNG into the folder's `figures`, on white.

    `conditions.png` holds effect against cost of all conditions; `strength.png` the curves of the search for strengths,
    `picture.png` the move in two planes, `source-site.png` and `target-site.png` the searches of sites, if the run has them.

    Returns:
        The files' paths. Older files are replaced once all are drawn.

    Raises:
        ValueError: when the folder holds no run, the machine has no Chromium or Chrome, the browser fails, or a file cannot be
            written.
    """
    folder = Path(folder)
    result = read_run(folder).result
    title = f"{result['task']}, {models_of(result)}"
    judged = {"conditions": list(result["conditions"].values()), "strength": result.get("sweep", [])}

    def about(name: str) -> str:
        if name in ABOUT:
            return ABOUT[name].format(n=min((row["success"]["n"] for row in judged.get(name, [])), default=0))
        side = name.removesuffix("-site")
        search = result["sites"][side]["search"]
        return SITE.format(side=side, tried=len(search["tried"]), n=search["n"])

    return write_files(
        {folder / FIGURES / f"{name}.png": png(figure, title, about(name)) for name, figure in figures(result).items()}
    )


def png(figure: Figure, title: str, about: str, width: int = WIDTH) -> bytes:
    """A figure as PNG, drawn without network, on white.

    Args:
        figure: its layout sets the height.
        title: above the figure.
        about: below the title, in smaller letters.
        width: in CSS pixels, at least 500; the file has ``SCALE`` times as many.

    Raises:
        ValueError: when there is no browser, or it fails.
    """
    height = HEAD + int(figure.layout.height or 450)  # pyright: ignore[reportAttributeAccessIssue]
    looks = {"head": HEAD, "ink": INK, "font": Markup(FONT)}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        page, out = Path(scratch) / "figure.html", Path(scratch) / "figure.png"
        page.write_text(render("figure.html.j2", figures={"figure": figure}, title=title, about=about, **looks), "utf-8")
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
            command.append("--no-sandbox")  # Chromium refuses to start as root with its sandbox
        try:
            process = subprocess.run([*command, page.as_uri()], capture_output=True, timeout=PATIENCE, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ValueError(f"{command[0]} drew no figure ({error.__class__.__name__}): {_REMEDY}") from error
        if not out.is_file():
            lines = process.stderr.decode(errors="replace").strip().splitlines() or ["it says nothing"]
            raise ValueError(f"{command[0]} drew no figure (exit code {process.returncode}; {lines[-1][:200]}): {_REMEDY}")
        return out.read_bytes()


def browser() -> str:
    """The path of the machine's Chromium or Chrome.

    Raises:
        ValueError: when it has neither.
    """
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        raise ValueError("PNGs are drawn by Chromium or Chrome, and neither is on the PATH: install one (apt install chromium)")
    return path
