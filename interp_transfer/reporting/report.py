"""A run as one HTML page that opens offline: what happened, how certain it is, what the model said, and how to repeat it.

The page is built from `result.json` and `completions.json` alone, so it can be drawn again without the models. Every text in
these files is foreign: model names come from hubs, completions from models.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jinja2 import UndefinedError
from plotly.graph_objects import Figure

from interp_transfer.names import first_line
from interp_transfer.plots.conditions import condition_points
from interp_transfer.plots.effect import effect_curves
from interp_transfer.plots.sites import site_bars
from interp_transfer.plots.style import glyph, styles, untitled
from interp_transfer.plots.transfer import transfer_picture
from interp_transfer.reporting.command import command
from interp_transfer.reporting.completions import all_completions, before_after, differing, partly_steered
from interp_transfer.reporting.effects import PERPLEXITY, fits, measures, sides
from interp_transfer.reporting.formats import number_of_answers
from interp_transfer.reporting.headline import LOST, headline, summarise
from interp_transfer.reporting.render import render, write_page
from interp_transfer.reporting.run_folder import CompletionsJson, ResultJson, read_run

__all__ = ["headline", "write_report"]

GLOSSARY: Mapping[str, str] = {
    "unsteered": "the target model without steering",
    "system_prompt": "the target under a system prompt that asks for the behaviour, without a vector",
    "native": "the vector of the target itself: the best that can be expected",
    "moved": "the vector of the source, moved by the mapper",
    "random": "isotropic random directions, each at its own strength; the mean over all of them",
    "random_in_span": "random directions in the span of the moved evidence's leading components, likewise",
    "wrong_contrast": "the difference of two halves of the contrast's positive side, moved by the mapper; the strongest draw",
    "shuffled": "moved by mappers fitted on pairs shuffled across all texts; the strongest seed",
    "shuffled_within_text": "moved by mappers fitted on pairs shuffled within each text; the strongest seed",
    "untrained": "moved by mappers that were not trained; the strongest seed",
    "mean_ablated": "the site's activation replaced by its mean, which removes all information from it",
    "forced_first_token": "no steering; the completion starts with the first token of the right answer",
}
OPTIONAL = (
    "source",
    "vector",
    "mapper",
    "alignment",
    "strength_rule",
    "sweep",
    "at_strength_one",
    "side_effects",
    "left_out",
    "picture",
    "texts",
)
"""Parts of a result that the page leaves out if the run did not store them."""


def write_report(folder: Path) -> Path:
    """Write `report.html` into a run folder, from its `result.json` and `completions.json`.

    Returns:
        The page's path. An older page is replaced at once.

    Raises:
        ValueError: when one of the two files is missing or damaged, or the page cannot be written.
    """
    folder = Path(folder)
    run = read_run(folder)
    try:
        drawn = page(run.result, run.completions)
    except (KeyError, TypeError, AttributeError, UndefinedError) as error:
        raise ValueError(
            f"{folder / 'result.json'} holds something else than this version writes ({first_line(error)}): draw it with the "
            "version that wrote it, or do the run again"
        ) from error
    return write_page(drawn, folder / "report.html")


def page(result: ResultJson, completions: CompletionsJson) -> str:
    """Return the whole page."""
    conditions, sweep = result["conditions"], result.get("sweep", [])
    looks = styles([*conditions, *completions["conditions"], *(row["condition"] for row in sweep)])
    drawn, headline_parts = figures(result), summarise(result)
    untitled(drawn["conditions"], 30).update_layout(showlegend=False)  # the page has a list with the numbers
    return render(
        "run.html.j2",
        figures={f"figure-{name}": figure for name, figure in drawn.items()},
        scripts=["completions.js"],
        blocks={
            "completions": all_completions(completions, {name: (look.colour, glyph(look)) for name, look in looks.items()})
        },
        title=f"{result['task']}: {models_of(result)}",
        result={**dict.fromkeys(OPTIONAL), "description": "", **result},
        headline=headline_parts,
        heading=headline_parts.verdict,
        looks=looks,
        counts=number_of_answers(conditions),
        by_intact=sorted(conditions.items(), key=lambda item: -item[1]["intact"]["rate"]),
        glossary={name: GLOSSARY.get(name, c.get("note", "")) for name, c in conditions.items()},
        sides=list(sides(result)),
        measures=measures(result),
        perplexity=PERPLEXITY,
        fits=fits(result),
        lost=LOST,
        swept=[(row["condition"], row) for row in sweep if row.get("draw", 0) == 0],
        searched=[(side, site) for side, site in result.get("sites", {}).items() if "search" in site],
        variants=list(_variants(result)),
        readings=_readings(conditions),
        differing=list(differing(completions)),
        examples=before_after(completions),
        said=list(completions["conditions"]),
        same=_same(completions),
        n_prompts=len(completions["prompts"]),
        steered=_steered(completions),
        command=command(result),
    )


def figures(result: ResultJson) -> dict[str, Figure]:
    """Return the figures of a run's report: "conditions", and "strength", "picture" and those of found sites if it has them."""
    conditions, sweep, rule = result["conditions"], result.get("sweep"), result.get("strength_rule")
    budget = rule["budget_nats_per_token"] if rule else None
    drawn = {"conditions": condition_points(conditions, budget=budget)}
    if sweep:
        drawn["strength"] = effect_curves(sweep, budget=budget, chosen=list(_chosen(conditions)))
    if result.get("picture"):
        drawn["picture"] = transfer_picture(result["picture"])
    for side, site in result.get("sites", {}).items():
        if "search" in site:
            drawn[f"{side}-site"] = site_bars(site["search"])
    return drawn


def _same(completions: CompletionsJson) -> int | None:
    """On how many prompts the moved and the native vector have the same completion; None without both."""
    said = completions["conditions"]
    if not {"moved", "native"} <= said.keys():
        return None
    return sum(a["completion"] == b["completion"] for a, b in zip(said["moved"], said["native"], strict=True))


def _steered(completions: CompletionsJson) -> str:
    """Which tokens are steered, in a sentence; empty if that is not known."""
    tokens = completions.get("tokens", [])
    if not tokens:
        return ""
    generated = tokens[0]["generated_steered"]
    if partly_steered(completions):
        also = "so are generated tokens" if generated else "generated tokens are not steered"
        return f"In the first {len(tokens)} prompts, steered tokens are underlined; {also}."
    if any(steered for each in tokens for steered in each["steered"]):
        return f"All tokens of the prompt are steered, generated tokens {'as well' if generated else 'are not'}."
    return "Only generated tokens are steered." if generated else ""


def _chosen(conditions: Mapping[str, Any]) -> Iterator[tuple[str, int, float]]:
    """Condition, draw and strength of the points that were chosen."""
    for name, c in conditions.items():
        for k, draw in enumerate(c.get("draws") or [c]):
            yield name, k, draw["strength"]


def models_of(result: ResultJson) -> str:
    """Return the models of a run in words."""
    source, target = result.get("source"), result["target"]["name"]
    return f"from {source['name']} to {target}" if source else f"on {target}"


def _variants(result: ResultJson) -> Iterator[dict[str, Any]]:
    """Other mappers and modes, the run's own first."""
    variants, mapper, vector = result.get("variants", []), result.get("mapper"), result.get("vector")
    main = (mapper["kind"], mapper["mode"]) if mapper else None
    if variants and mapper and vector and "moved" in result["conditions"]:
        yield {
            **result["conditions"]["moved"],
            "mapper": mapper["kind"],
            "mode": mapper["mode"],
            "fvu": mapper["fvu"],
            "norm": vector["moved_norm"],
            "cosine_to_native": vector["cosine_to_native"],
            "main": True,
        }
    for variant in variants:
        if (variant["mapper"], variant["mode"]) != main:
            yield {**variant, "main": False}


def _readings(conditions: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Further readings of the completions: for each a share by condition, None where a condition has none."""
    names = dict.fromkeys(name for c in conditions.values() for name in c.get("readings", {}))
    return {name: [c.get("readings", {}).get(name) for c in conditions.values()] for name in names}
