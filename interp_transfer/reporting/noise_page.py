"""Noise at a trigger as one HTML page that opens offline: the doses that switch a backdoor off, and those that switch it on."""

from collections.abc import Mapping
from pathlib import Path

from interp_transfer.evaluation.evaluator import Condition
from interp_transfer.reporting.formats import with_interval
from interp_transfer.reporting.render import render, write_page
from interp_transfer.search.doses import Doses
from interp_transfer.stats import share_to_dict

FILE = "noise.html"
HALF = 0.5
"""Share of trials from which the page calls noise a switch."""


def write_noise(measured: Mapping[str, Doses], folder: Path) -> Path:
    """Write ``noise.html`` into a folder, made if it is missing, from the result of ``noise_doses``.

    Returns:
        The page's path. An older page is replaced at once.
    """
    removes, induces = measured["removes"], measured["induces"]
    text = render(
        "noise.html.j2",
        figures={f"figure-{name}": doses.plot() for name, doses in measured.items()},
        title=f"Noise as a switch: {removes.task} on {removes.model.name}",
        measured={name: (doses, points(doses)) for name, doses in measured.items()},
        options=removes.details,
        sentences=[
            sentence(removes, "removes the backdoor", "of triggered prompts"),
            sentence(induces, "induces the backdoor", "of clean prompts"),
        ],
    )
    return write_page(text, folder / FILE)


def points(doses: Doses) -> list[Condition]:
    """Return all conditions, curve by curve."""
    return [c for curve in doses.curves.values() for c in curve]


def sentence(doses: Doses, does: str, whose: str) -> str:
    """Return the dose with the highest success, and the smallest dose with success in half of the trials."""
    best = max(points(doses), key=lambda c: c.success.value)
    share = with_interval(share_to_dict(best.success))
    if not best.success.value:
        return f"No dose {does} in any trial {whose}: {share}."
    enough = next((c.strength for c in points(doses) if c.success.value >= HALF), None)
    if enough is None:
        return f"No dose {does} in half of the trials {whose}: at most in {share} of trials, at dose {best.strength:g}."
    return f"Noise of {best.strength:g} {does} in {share} of trials {whose}; half is reached at dose {enough:g}."
