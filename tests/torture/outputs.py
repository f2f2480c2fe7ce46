"""Results of every kind whose names and texts are all hostile."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plotly.graph_objects import Figure

from interp_transfer.evaluation.compare import Result
from interp_transfer.evaluation.evaluator import Condition
from interp_transfer.evaluation.judges.words import Verdict
from interp_transfer.features.cards import Example, FeatureCard
from interp_transfer.models.identity import ModelIdentity
from interp_transfer.plots.alignment import aligned_tokens
from interp_transfer.plots.conditions import condition_points, run_bars
from interp_transfer.plots.effect import effect_curves
from interp_transfer.plots.heatmap import layer_heatmap, patching_map
from interp_transfer.plots.sites import site_bars
from interp_transfer.plots.strength import strength_curves
from interp_transfer.search.doses import Doses
from interp_transfer.search.sweep_result import Sweep, SweepPoint
from interp_transfer.stats import Estimate, rate
from interp_transfer.studies.switch_result import DIRECT, MAPPED, Switch, Way
from tests.reporting.conftest import make_completions, make_result, sealed
from tests.torture.hostile import ALL, LONG, TEXTS

SHARE, COST = rate([True, False, True]), Estimate(0.1, 0.05, 0.2, 3)
MODEL = ModelIdentity(ALL, "1" * 16)
MAIN = ("unswitched", "donor", MAPPED, DIRECT)
NAMES = [LONG, *TEXTS.values()]


def condition(text: str, strength: float = 1.0) -> Condition:
    said = tuple(NAMES) if text == ALL else (*TEXTS.values(), "short")  # a long text is heavy where there are many
    verdicts = tuple(Verdict(True, True, one) for one in said)
    return Condition(SHARE, SHARE, COST, strength, said, verdicts, note=text, readings={text: SHARE})


def result() -> Result:
    """A comparison; its task, models, conditions, prompts, completions, reasons and further fields are hostile."""
    conditions = {"unsteered": condition(ALL, 0.0), **{text: condition(text) for text in NAMES}}
    details = {"description": ALL, "left_out": {text: text for text in NAMES}, ALL: ALL}
    return Result(ALL, {"name": ALL, "site": ALL, ALL: ALL}, conditions, tuple(NAMES), 0, details)


def run_folder(folder: Path, names: Sequence[str] = NAMES, *, also: str = "") -> Path:
    """A run with every part of the report."""
    plain, said = make_result(), make_completions()
    n = len(names)
    for k, prompt in enumerate(names):
        said["prompts"][k] = prompt
        for name in ("unsteered", "native", "moved", "random"):
            said["conditions"][name][k] |= {"completion": prompt + also, "reason": prompt, "intact": not also, "differ": True}
    said["prompts"], said["tokens"] = said["prompts"][:n], said["tokens"][:12]
    for k in range(12):
        pieces = names[k::12]
        said["tokens"][k] = {"pieces": pieces, "steered": [True] * len(pieces), "generated_steered": True}
    said["conditions"] = {name: judged[:n] for name, judged in said["conditions"].items()}
    native, share = plain["conditions"]["native"], plain["conditions"]["native"]["success"]
    for text in TEXTS.values():
        said["conditions"][text] = said["conditions"]["shuffled"]
        plain["conditions"][text] = {**native, "note": text, "readings": {text: share}}
        plain["sweep"] += [{**row, "condition": text} for row in plain["sweep"][:2]]
        plain["side_effects"]["native"]["skills"][text] = share
        plain["at_strength_one"][text] = native
        plain["variants"].append({**plain["variants"][0], "mapper": text, "mode": text})
    plain |= {"task": ALL, "description": ALL, "left_out": {text: text for text in TEXTS.values()}}
    plain["versions"][ALL] = ALL
    for place in ("source", "target"):
        plain["picture"][place] |= {"model": ALL, "site": ALL}
    plain["picture"]["texts"] = {side: list(names[:3]) for side in ("positive", "negative")}
    for part, fields in (
        ("source", ("name", "fingerprint", "site", ALL)),
        ("target", ("name", "site", "positions")),
        ("vector", ("method", "positions")),
        ("mapper", ("kind", "mode")),
        ("alignment", ("strategy",)),
        ("strength_rule", ("split", "rule")),
    ):
        plain[part] |= dict.fromkeys(fields, ALL)
    plain["mapper"]["settings"] = {ALL: ALL}
    plain["mapper"]["by_place"][ALL] = {ALL: plain["mapper"]["by_place"]["tokens"]["all"]}
    tried = {text: {"success": 0.5, "intact": 0.5, "strength": 1.0, "clean_kl": 0.1} for text in TEXTS.values()}
    search = {"site": ALL, "predicted": {}, "tried": tried, "n": 3, "budget": 0.1}
    plain["sites"] = {side: {"site": ALL, "search": search} for side in ("source", "target")}
    plain["asked"] = {"task": ALL, "alignment": ALL, "settings": {ALL: [ALL]}}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps(sealed(plain)))
    (folder / "completions.json").write_text(json.dumps(said))
    return folder


def card(index: int) -> FeatureCard:
    example = Example(tuple(NAMES), tuple(float(k % 5) for k in range(len(NAMES))), 0)
    ranked = tuple((text, 1.0) for text in NAMES)
    said = {1.0: tuple((text, text) for text in NAMES)}
    return FeatureCard(index, 1.0, 0.5, ((1, 2), (0.0, 1.0, 2.0)), (example,), ranked, ranked, said, (), ALL, ALL)


def sweep() -> Sweep:
    points = tuple(SweepPoint(text, text, 1.0, 1.0, SHARE, SHARE, 0.001 * k) for k, text in enumerate(NAMES))
    return Sweep(ALL, MODEL, points, 1.0, {"n": 3, "split": ALL, "seed": 0})


def switch(names: Sequence[str] = NAMES) -> Switch:
    ways = {name: Way(condition(ALL), dict.fromkeys(names, SHARE), 3, ALL) for name in (*MAIN, *names)}
    layers = tuple((f"blocks.{k}.hook_resid_pre", text, condition(text)) for k in range(2) for text in names)
    details = {"direction": "to_base", "rank": 1, "rows": 2, "seed": 0}
    return Switch(ALL, MODEL, MODEL, 100, layers, ways, tuple(NAMES), details)


def doses() -> Doses:
    details = {"positions": ALL, "replace": False, "site": ALL, "n": 3, "split": ALL, "draws": 1, "seed": 0}
    means, curves = {"success": ALL, "intact": ALL}, {text: (condition(text, 1.0), condition(text, 2.0)) for text in NAMES}
    return Doses(ALL, MODEL, curves, means, ALL, 1.0, details)


def figures() -> dict[str, Figure]:
    """Every kind of figure, with each text as a name."""
    conditions: dict[str, Any] = {text: condition(text).to_dict() for text in NAMES}
    rows = [{"condition": name, **c, "strength": s} for name, c in conditions.items() for s in (1.0, 2.0)]
    square = [[0.5] * len(NAMES) for _ in NAMES]
    tried = {text: {"success": 0.5, "intact": 0.5, "strength": 1.0, "clean_kl": 0.1} for text in NAMES}
    pieces, links = [(text, 3 * k) for k, text in enumerate(NAMES)], [(k, k) for k in range(len(NAMES))]
    return {
        "conditions": condition_points(conditions, ALL),
        "runs": run_bars([(name, ALL, c) for name, c in conditions.items()]),
        "effect": effect_curves(rows),
        "strength": strength_curves(rows, title=ALL),
        "layers": layer_heatmap(square, ALL, ALL, ALL, row_names=NAMES, column_names=NAMES),
        "patching": patching_map(square, NAMES, NAMES, ALL),
        "sites": site_bars({"site": ALL, "predicted": {}, "tried": tried}, title=ALL),
        "aligned": aligned_tokens(ALL[:300], pieces, pieces, links, (ALL, ALL)),
        "sweep": sweep().plot(),
        "cost": sweep().plot_cost(),
    }
