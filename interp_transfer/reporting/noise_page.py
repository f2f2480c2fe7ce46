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
    """Write ``noise.html`` into a folder, made if it is missing.

    Returns:
        The page's path. An older page is replaced at once.
    """
    return write_page(page(measured), folder / FILE)


def page(measured: Mapping[str, Doses]) -> str:
    """The whole page, from the result of ``noise_doses``."""
    removes, induces = measured["removes"], measured["induces"]
    options = removes.details
    parts = [
        {
            "id": "figure-removes",
            "doses": removes,
            "points": points(removes),
            "heading": "Does noise switch the backdoor off?",
            "sentence": sentence(removes, "takes the backdoor away", "of triggered prompts"),
            "caption": f"Prompts with the trigger, noise at its tokens: {options['positions']}. Bands: 95% intervals.",
        },
        {
            "id": "figure-induces",
            "doses": induces,
            "points": points(induces),
            "heading": "Does noise switch the backdoor on?",
            "sentence": sentence(induces, "brings the backdoor out", "of clean prompts"),
            "caption": f"Clean prompts with the safe trigger, noise at its tokens: {induces.details['positions']}. "
            "Bands: 95% intervals.",
        },
    ]
    return render(
        "noise.html.j2",
        figures={"figure-removes": removes.plot(), "figure-induces": induces.plot()},
        title=f"Noise as a switch: {removes.task} on {removes.model.name}",
        model=removes.model.name,
        task=removes.task,
        options=options,
        parts=parts,
    )


def points(doses: Doses) -> list[Condition]:
    """All conditions, curve by curve."""
    return [c for curve in doses.curves.values() for c in curve]


def sentence(doses: Doses, does: str, whose: str) -> str:
    """The dose with most success, and the smallest dose with success in half of the trials."""
    best = max(points(doses), key=lambda c: c.success.value)
    share = with_interval(share_to_dict(best.success))
    if not best.success.value:
        return f"No dose {does} in any trial {whose}: {share}."
    enough = next((c.strength for c in points(doses) if c.success.value >= HALF), None)
    if enough is None:
        return f"No dose {does} in half of the trials {whose}: at most in {share} of trials, at dose {best.strength:g}."
    return f"Noise of {best.strength:g} {does} in {share} of trials {whose}; the least dose that does in half is {enough:g}."
