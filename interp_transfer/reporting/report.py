"""A run as one HTML page that opens offline: what happened, how sure that is, what the model said, and how to do it again.

Built from `result.json` and `completions.json` alone, so that a run can be drawn again without its models. Everything in those
files is foreign text: model names come from hubs, completions from models.
"""

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from plotly.graph_objects import Figure
from plotly.offline import get_plotlyjs

from interp_transfer.plots.conditions import condition_bars
from interp_transfer.plots.strength import strength_curves
from interp_transfer.plots.style import percent, styles
from interp_transfer.reporting.effects import fits, measures, sides
from interp_transfer.reporting.headline import headline, summarise
from interp_transfer.reporting.page import SCRIPT, json_block, render, short, write_page
from interp_transfer.reporting.run_folder import CompletionsJson, ResultJson, read_run

__all__ = ["headline", "write_report"]

EXAMPLES = 12
DIFFERING = 2
"""Completions of a condition that are shown because its judges differ."""
SIDE_BY_SIDE = ("unsteered", "native", "moved", "random")
LONGEST = 600
"""Characters of a completion that are shown."""

GLOSSARY: Mapping[str, str] = {
    "unsteered": "the target model, nothing done to it",
    "native": "the vector found on the target itself: what could at best be expected",
    "moved": "the vector found on the source and carried over by the mapper",
    "random": "random directions with the moved vector's norm, site and positions; several draws pooled",
    "shuffled": "moved by a mapper fitted on shuffled pairs: it saw the same activations and no correspondence",
    "mean_ablated": "the site's activation replaced by its mean: whatever it held is wiped out",
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
        The page's path. An older page is replaced, all at once.

    Raises:
        ValueError: when one of the two files is missing or damaged, or the page cannot be written.
    """
    folder = Path(folder)
    run = read_run(folder)
    return write_page(page(run.result, run.completions), folder / "report.html")


def page(result: ResultJson, completions: CompletionsJson) -> str:
    """The whole page."""
    conditions = result["conditions"]
    figures = {"figure-conditions": condition_bars(_frame(conditions))}
    if result.get("sweep"):
        figures["figure-strength"] = _strengths(result)
    examples = list(_examples(completions))
    tokens = completions.get("tokens", [])[: len(examples)]
    context = {
        "title": f"{result['task']}: {_models(result)}",
        "result": {"description": "", "sweep": [], "at_strength_one": {}, "strength_rule": {}, **result},
        "said": summarise(result),
        "route": list(_route(result)),
        "sections": _sections(result),
        "figures": {name: json_block(_plain(figure)) for name, figure in figures.items()},
        "looks": styles([*conditions, *completions["conditions"], *(row["condition"] for row in result.get("sweep", []))]),
        "counted": _counted(conditions),
        "glossary": {name: GLOSSARY.get(name, c.get("note", "")) for name, c in conditions.items()},
        "sides": list(sides(result)),
        "measures": measures(result),
        "fits": fits(result),
        "recovered": _recovered(result),
        "swept": [(row["condition"], row) for row in result.get("sweep", [])],
        "variants": list(_variants(result)),
        "modes": MODES.items(),
        "readings": _readings(conditions),
        "differing": list(_differing(completions)),
        "examples": examples,
        "asked": len(completions["prompts"]),
        "marked": bool(tokens),
        "generated": "steered too" if any(t["generated_steered"] for t in tokens) else "not steered",
        "cards": list(_cards(result)),
        "command": _command(result),
    }
    return render(context, [get_plotlyjs(), SCRIPT])


def _plain(figure: Figure) -> str:
    return str(figure.to_json())


def _frame(conditions: Mapping[str, Any]) -> pd.DataFrame:
    rows = []
    for name, c in conditions.items():
        row = {"condition": name, "strength": c["strength"], "clean_kl": c["clean_kl"], "n": c["success"]["n"]}
        for measure in ("success", "intact"):
            row |= {measure: c[measure]["rate"], f"{measure}_low": c[measure]["low"], f"{measure}_high": c[measure]["high"]}
        rows.append(row)
    return pd.DataFrame(rows).set_index("condition")


def _strengths(result: ResultJson) -> Figure:
    rule = result.get("strength_rule")
    chosen = {name: c["strength"] for name, c in result["conditions"].items()}
    return strength_curves(
        result.get("sweep", []), budget=rule["budget_nats_per_token"] if rule else None, chosen=chosen if rule else None
    )


def _models(result: ResultJson) -> str:
    source, target = result.get("source"), result["target"]["name"]
    return f"from {source['name']} to {target}" if source else f"on {target}"


def _counted(conditions: Mapping[str, Any]) -> str:
    counts = {name.replace("_", " "): c["intact"]["n"] for name, c in conditions.items()}
    usual = max(counts.values(), key=list(counts.values()).count)
    others = [f"{name} n = {n}" for name, n in counts.items() if n != usual]
    return f"n = {usual} answers a condition{' (' + ', '.join(others) + ')' if others else ''}; 95% intervals below each share"


def _route(result: ResultJson) -> Iterator[dict[str, str]]:
    source, mapper, target = result.get("source"), result.get("mapper"), result["target"]
    if not source or not mapper:
        return
    vector = result.get("vector")
    found = f"{vector['method']}, positions: {vector['positions']}" if vector else ""
    yield {"what": "found on", "who": source["name"], "site": source.get("site", ""), "how": found}
    how = f"mode {mapper['mode']}; leaves {percent(mapper['fvu'])} of the variance of held-out activations unexplained"
    yield {"what": "carried over by", "who": mapper["kind"], "site": "", "how": how}
    at = f"added, positions: {target['positions']}" if "positions" in target else ""
    yield {"what": "used on", "who": target["name"], "site": target.get("site", ""), "how": at}


def _sections(result: ResultJson) -> list[tuple[str, str]]:
    named = [("conditions", "Conditions"), ("side-effects", "Side effects"), ("strength", "Strength")]
    named.append(("variants", "Other ways of moving"))
    named.append(("readings", "Other readings"))
    there = {"conditions": True, "strength": bool(result.get("sweep")), "variants": bool(result.get("variants"))}
    there["side-effects"] = bool(measures(result) or fits(result) or _recovered(result))
    there["readings"] = any(c.get("readings") for c in result["conditions"].values())
    return [*(item for item in named if there[item[0]]), ("completions", "Completions"), ("provenance", "Provenance")]


def _recovered(result: ResultJson) -> Mapping[str, Any] | None:
    mapper = result.get("mapper")
    return mapper.get("recovered") if mapper else None


def _variants(result: ResultJson) -> Iterator[dict[str, Any]]:
    """The vector of the run itself first, where it is not among the variants."""
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
    """What else was read off the completions: a row for each reading, a share for each condition, None where it has none."""
    names = list(dict.fromkeys(name for c in conditions.values() for name in c.get("readings", {})))
    return {name: [c.get("readings", {}).get(name) for c in conditions.values()] for name in names}


def _differing(said: CompletionsJson) -> Iterator[dict[str, Any]]:
    """The first completions of each condition on which the judges do not agree."""
    for name, completions in said["conditions"].items():
        where = [i for i, c in enumerate(completions) if c.get("differ")]
        for index in where[:DIFFERING]:
            yield {"prompt": said["prompts"][index].replace("\n", "\u21b5\n"), "answers": [_answer(name, completions[index])]}


def _examples(said: CompletionsJson) -> Iterator[dict[str, Any]]:
    usual = [name for name in SIDE_BY_SIDE if name in said["conditions"]]
    names = usual if len(usual) > 2 else list(dict.fromkeys([*usual, *said["conditions"]]))[:4]
    tokens = said.get("tokens", [])
    for index, prompt in enumerate(said["prompts"][:EXAMPLES]):
        pieces = [(prompt, False)]
        if index < len(tokens):
            pieces = list(zip(tokens[index]["pieces"], tokens[index]["steered"], strict=True))
        yield {
            "pieces": [(piece.replace("\n", "\u21b5\n"), steered) for piece, steered in pieces],
            "answers": [_answer(name, said["conditions"][name][index]) for name in names],
        }


def _answer(name: str, said: Mapping[str, Any]) -> dict[str, str]:
    kind, badge = ("failed", "\u2717 no success")
    if said["intact"]:
        kind, badge = ("intact", "\u2713 intact")
    elif said["success"]:
        kind, badge = ("success", "\u25d0 not valid")
    text = said["completion"].strip(" ")
    rest = len(text) - LONGEST
    text = f"{text[:LONGEST]} \u2026 ({rest} more characters)" if rest > 0 else text
    reason = said["reason"][:LONGEST]
    return {"condition": name, "kind": kind, "badge": badge, "text": text or "(nothing)", "reason": reason}


def _cards(result: ResultJson) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    for title, model in (("Source", result.get("source")), ("Target", result["target"])):
        if model:
            yield title, [(key, str(value)) for key, value in model.items()]
    if vector := result.get("vector"):
        yield (
            "Vector",
            [
                ("method", vector["method"]),
                ("taken at", vector["positions"]),
                ("norm on the source", short(vector["norm"])),
                ("norm after the move", f"{short(vector['moved_norm'])} (native {short(vector['native_norm'])})"),
                ("cosine to the native vector", short(vector["cosine_to_native"])),
            ],
        )
    if mapper := result.get("mapper"):
        yield "Mapper", list(_mapper(mapper, result.get("alignment")))
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    yield "Run", [("task", result["task"]), ("seed", str(result["seed"])), ("versions", versions)]


def _mapper(mapper: Mapping[str, Any], alignment: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    yield "kind and mode", f"{mapper['kind']}, {mapper['mode']}"
    if "norm" in mapper:
        yield "length of the moved vector", mapper["norm"]
    yield "parameters", f"{mapper['parameters']:,} ({percent(mapper['fraction_of_target'])} of the target model)"
    if "rows" in mapper:
        held_out = f", measured on {mapper['held_out_rows']:,} others" if "held_out_rows" in mapper else ""
        yield "token pairs", f"fitted on {mapper['rows']:,}{held_out}"
    yield "variance left unexplained (FVU)", short(mapper["fvu"])
    yield "cosine to the true activations", short(mapper["cosine"])
    yield "ratio of norms, mapped to true", short(mapper["norm_ratio"])
    if settings := mapper.get("settings"):
        yield "settings", ", ".join(f"{key} {value}" for key, value in settings.items())
    if alignment:
        yield "tokens paired", f"{alignment['strategy']}, {percent(alignment['coverage'])} of them"


def _command(result: ResultJson) -> str:
    """What reproduces the run; empty when the file does not say enough."""
    source, mapper, target = result.get("source"), result.get("mapper"), result["target"]
    if not source or not mapper:
        return ""
    asked = result.get("asked")
    options = {
        "--source": source["name"],
        "--target": target["name"],
        "--source-site": source.get("site"),
        "--target-site": target.get("site"),
        "--mapper": mapper["kind"],
        "--mode": mapper["mode"],
        "--norm": mapper.get("norm"),
        "--direction": asked["direction"] if asked else None,
        "--seed": str(result["seed"]),
        "--n": str(result["conditions"]["moved"]["intact"]["n"]) if "moved" in result["conditions"] else None,
        "--strengths": ",".join(f"{x:g}" for x in asked["strengths"]) if asked else None,
        "--alignment": asked["alignment"] if asked else None,
        "--budget": None if not asked or asked["budget"] is None else f"{asked['budget']!r}",
        "--out": "FOLDER",
    }
    settings = (
        [f"--setting {shlex.quote(f'{k}={json.dumps(v)}')}" for k, v in asked.get("settings", {}).items()] if asked else []
    )
    given = settings + [f"{option} {shlex.quote(value)}" for option, value in options.items() if value]
    given += [f"--no-{flag.replace('_', '-')}" for flag in ("variants", "side_effects") if asked and not asked.get(flag, True)]
    command = " \\\n    ".join([f"interp-transfer run {shlex.quote(result['task'])}", *given])
    return f"{command}\n\ninterp-transfer run --from result.json --out FOLDER" if asked else command
