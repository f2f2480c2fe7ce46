"""A run as one HTML page that opens offline: what happened, how certain it is, what the model said, and how to repeat it.

The page is built from `result.json` and `completions.json` alone, so it can be drawn again without the models. Every text in
these files is foreign: model names come from hubs, completions from models.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from plotly.graph_objects import Figure

from interp_transfer.plots.conditions import condition_bars
from interp_transfer.plots.strength import strength_curves
from interp_transfer.plots.style import percent, styles
from interp_transfer.reporting.completions import differing, examples
from interp_transfer.reporting.effects import fits, measures, sides
from interp_transfer.reporting.formats import number_of_answers
from interp_transfer.reporting.headline import headline, summarise
from interp_transfer.reporting.provenance import cards, command
from interp_transfer.reporting.render import render, write_page
from interp_transfer.reporting.run_folder import CompletionsJson, ResultJson, read_run

__all__ = ["headline", "write_report"]

GLOSSARY: Mapping[str, str] = {
    "unsteered": "the target model without steering",
    "native": "the vector found on the target itself: the best that can be expected",
    "moved": "the vector found on the source and carried over by the mapper",
    "random": "random directions with the moved vector's norm, site and positions; several draws pooled",
    "shuffled": "moved by a mapper fitted on shuffled pairs: the same activations without their correspondence",
    "mean_ablated": "the site's activation replaced by its mean, which removes whatever it held",
    "forced_first_token": "no steering; the first token of the right answer is given",
}
MODES: Mapping[str, str] = {
    "difference": "mean f(h+) \u2212 mean f(h\u2212): map both sides of the contrast, then take their difference. The map only "
    "sees activations of the kind that it was fitted on.",
    "delta": "mean of f(h + v) \u2212 f(h): what adding the vector to an activation changes in the activation's image.",
    "jacobian": "mean of J(h) v: the map's derivative along the vector, which is delta for small steps.",
    "raw": "f(v): the map applied to the vector as if the vector were an activation.",
}


def write_report(folder: Path) -> Path:
    """Write `report.html` into a run folder, from its `result.json` and `completions.json`.

    Returns:
        The page's path. An older page is replaced at once.

    Raises:
        ValueError: when one of the two files is missing or damaged, or the page cannot be written.
    """
    folder = Path(folder)
    run = read_run(folder)
    return write_page(page(run.result, run.completions), folder / "report.html")


def page(result: ResultJson, completions: CompletionsJson) -> str:
    """The whole page."""
    conditions, sweep = result["conditions"], result.get("sweep", [])
    readings = _readings(conditions)
    effects: dict[str, Any] = {"measures": measures(result), "fits": fits(result), "recovered": _recovered(result)}
    optional = {
        "side-effects": ("Side effects", any(effects.values())),
        "strength": ("Strength", bool(sweep)),
        "variants": ("Other ways of moving", bool(result.get("variants"))),
        "readings": ("Other readings", bool(readings)),
    }
    present = [(name, label) for name, (label, there) in optional.items() if there]
    shown = list(examples(completions))
    tokens = completions.get("tokens", [])[: len(shown)]
    return render(
        "run.html.j2",
        figures={f"figure-{name}": figure for name, figure in figures(result).items()},
        title=f"{result['task']}: {models_of(result)}",
        result={"description": "", "sweep": [], "at_strength_one": {}, "strength_rule": {}, **result},
        headline=summarise(result),
        route=list(_route(result)),
        links=[("conditions", "Conditions"), *present, ("completions", "Completions"), ("provenance", "Provenance")],
        looks=styles([*conditions, *completions["conditions"], *(row["condition"] for row in sweep)]),
        answers_per_condition=f"Answers per condition: {number_of_answers(conditions)}; 95% intervals below each share",
        glossary={name: GLOSSARY.get(name, c.get("note", "")) for name, c in conditions.items()},
        sides=list(sides(result)),
        **effects,
        swept=[(row["condition"], row) for row in sweep],
        variants=list(_variants(result)),
        modes=MODES.items(),
        readings=readings,
        differing=list(differing(completions)),
        examples=shown,
        n_prompts=len(completions["prompts"]),
        marked=bool(tokens),
        generated="steered too" if any(t["generated_steered"] for t in tokens) else "not steered",
        cards=list(cards(result)),
        command=command(result),
    )


def figures(result: ResultJson) -> dict[str, Figure]:
    """The figures of a run's report: "conditions", and "strength" if strengths were swept."""
    conditions, sweep, rule = result["conditions"], result.get("sweep"), result.get("strength_rule")
    drawn = {"conditions": condition_bars(_frame(conditions))}
    if sweep:
        budget = rule["budget_nats_per_token"] if rule else None
        chosen = {name: c["strength"] for name, c in conditions.items()} if rule else None
        drawn["strength"] = strength_curves(sweep, budget=budget, chosen=chosen)
    return drawn


def models_of(result: ResultJson) -> str:
    """The models of a run in words."""
    source, target = result.get("source"), result["target"]["name"]
    return f"from {source['name']} to {target}" if source else f"on {target}"


def _frame(conditions: Mapping[str, Any]) -> pd.DataFrame:
    rows = []
    for name, c in conditions.items():
        row = {"condition": name, "strength": c["strength"], "clean_kl": c["clean_kl"], "n": c["success"]["n"]}
        for measure in ("success", "intact"):
            row |= {measure: c[measure]["rate"], f"{measure}_low": c[measure]["low"], f"{measure}_high": c[measure]["high"]}
        rows.append(row)
    return pd.DataFrame(rows).set_index("condition")


def _route(result: ResultJson) -> Iterator[dict[str, str]]:
    source, mapper, vector, target = result.get("source"), result.get("mapper"), result.get("vector"), result["target"]
    if not source or not mapper:
        return
    method = f"{vector['method']}, positions: {vector['positions']}" if vector else ""
    yield {"what": "found on", "who": source["name"], "site": source.get("site", ""), "how": method}
    how = f"mode {mapper['mode']}; leaves {percent(mapper['fvu'])} of the variance of held-out activations unexplained"
    yield {"what": "carried over by", "who": mapper["kind"], "site": "", "how": how}
    how = f"added, positions: {target['positions']}" if "positions" in target else ""
    yield {"what": "used on", "who": target["name"], "site": target.get("site", ""), "how": how}


def _recovered(result: ResultJson) -> Mapping[str, Any] | None:
    mapper = result.get("mapper")
    return mapper.get("recovered") if mapper else None


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
