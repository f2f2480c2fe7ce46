"""A safety switch as one HTML page that opens offline: every way to switch, its costs, and its effect by layer."""

from pathlib import Path

from interp_transfer.plots.style import untitled
from interp_transfer.reporting.render import render, write_page
from interp_transfer.studies.switch_result import DIRECT, MAPPED, Switch

FILE = "switch.html"
EXAMPLES = 3
"""Number of prompts whose completions are shown."""


def write_switch(switch: Switch, folder: Path) -> Path:
    """Write ``switch.html`` into a folder, made if it is missing.

    Returns:
        The page's path. An older page is replaced at once.
    """
    shown = [name for name in ("unswitched", MAPPED, DIRECT, "donor") if name in switch.ways]
    text = render(
        "switch.html.j2",
        figures={"figure-layers": untitled(switch.plot(), 80)},
        title=f"{switch.host.name} made to behave as {switch.donor.name}",
        switch=switch,
        mapped=MAPPED,
        skills=list(next(iter(switch.ways.values())).skills),
        success={"to_base": "absent", "to_tuned": "present"}.get(switch.details["direction"], "as in the donor"),
        examples=[
            {"prompt": prompt, "answers": [(name, switch.ways[name].judged.completions[k]) for name in shown]}
            for k, prompt in enumerate(switch.prompts[:EXAMPLES])
        ],
    )
    return write_page(text, folder / FILE)
