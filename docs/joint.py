"""Make the table of several vectors at once, on the page on searching: `python docs/joint.py`.

Task `corrupted`, from the small organism to the medium one. Vectors of several sites, native ones and ones that were moved
through affine maps or autoencoders between several pairs of sites, are chosen on 60 validation prompts within the task's
clean-KL budget (`paper.joint.best_joint`); the best single one and the best set are judged on 300 test prompts, beside
random vectors of the same norms at the same sites and tokens, the mean activation at the first site, and the best single one
with its strength chosen in finer steps, because a set has more strengths to come close to the budget with. What is in
runs/joint already is read and not measured again.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import interp_transfer as it
from interp_transfer.evaluation.evaluator import Evaluator, evaluator, random_like
from interp_transfer.interventions.intervention import Intervention
from interp_transfer.io import write_json
from interp_transfer.mapping.fit import fit_each
from interp_transfer.paper.joint import Joint, best_joint
from interp_transfer.search.strengths import choose, strength_curve
from interp_transfer.stats import share_to_dict
from interp_transfer.vectors.extract import extract_each
from interp_transfer.vectors.vector import SteeringVector

HERE = Path(__file__).parent
RUNS = HERE.parent / "runs" / "joint"
TASK, SOURCE, TARGET = "corrupted", "micro-qwen-s-corrupted", "micro-qwen-m-corrupted"
SOURCE_SITES = [f"blocks.{layer}.hook_resid_pre" for layer in (2, 3, 4)]
TARGET_SITES = [f"blocks.{layer}.hook_resid_pre" for layer in (1, 2, 3, 4, 5)]
MOVED_TO = TARGET_SITES[2:]
N, VALIDATION = 300, 60
FINE = 0.05


def main() -> None:
    """Write docs/made/joint.md."""
    task, target = it.load_task(TASK), it.load_model(TARGET)
    budget = task.budget

    def native() -> dict[str, SteeringVector]:
        return extract_each(target, task.contrast("train"), TARGET_SITES)

    def moved(kind: str) -> dict[str, SteeringVector]:
        source = it.load_model(SOURCE)
        home = extract_each(source, task.contrast("train"), SOURCE_SITES)
        sites = [(s, t) for s in SOURCE_SITES for t in MOVED_TO]
        pairs = it.collect(source, target, task.texts("train"), *map(list, zip(*sites, strict=True)), progress=False)
        return {f"{s} to {t}": mapper.transfer(home[s]) for (s, t), mapper in fit_each(pairs, kind, progress=False).items()}

    ways: dict[str, Callable[[], dict[str, SteeringVector]]] = {
        "native": native,
        "moved, autoencoder": lambda: moved("autoencoder"),
        "moved, affine": lambda: moved("affine"),
    }
    rows: list[dict[str, Any]] = []
    for name, vectors in ways.items():
        file = RUNS / f"{name.replace(', ', '-')}.json"
        if not file.is_file():
            evaluators = evaluator(target, task, "validation", n=VALIDATION), evaluator(target, task, "test", n=N)
            given = vectors()
            joint = best_joint(evaluators[0], given, budget=budget, progress=False)
            sys.stderr.write(f"{name}: {joint!r}\n")
            file.parent.mkdir(parents=True, exist_ok=True)
            rows_of = [*judged(evaluators[1], joint), finer(*evaluators, joint, given[joint.steps[0].vector])]
            write_json(file, [{"vectors": name, **row} for row in rows_of])
        rows += json.loads(file.read_text())
    head = "| vectors | condition | validation, intact | test, success | test, intact | clean KL |\n|---|---|---|---|---|---|\n"
    said = (
        f"Vectors chosen on {VALIDATION} validation prompts within {budget:g} nats per token, judged on {N} test prompts "
        "(random: five draws of each vector, 1500); [95% interval]. The control `forced_first_token` solves this task (see the "
        "table of all tasks): it says little about what a vector knows."
    )
    (HERE / "made" / "joint.md").write_text(f"{head}{chr(10).join(map(line, rows))}\n\n{said}\n")


def judged(test: Evaluator, joint: Joint) -> list[dict[str, Any]]:
    """A row for each condition."""
    rows = [{"condition": "unsteered", **test.unsteered().to_dict()}]
    for count in sorted({1, len(joint.steps)}):
        steps, given = joint.steps[:count], joint.interventions[:count]
        added = " and ".join(f"{s.vector}, {s.positions}, {s.strength:g}" for s in steps)
        name, chosen = "best alone" if count == 1 else f"{count} together", {"validation": share_to_dict(steps[-1].intact)}
        rows.append({"condition": f"{name}: {added}", **chosen, **test.judge([given], 0.0, progress=False).to_dict()})
        rows.append({"condition": f"{name}: random vectors", **test.judge(random_draws(given), 0.0, progress=False).to_dict()})
    rows.append({"condition": "mean ablated at the first", **test.mean_ablated(joint.interventions[0]).to_dict()})
    return rows


def finer(validation: Evaluator, test: Evaluator, joint: Joint, vector: SteeringVector) -> dict[str, Any]:
    """The best vector alone with its strength in fine steps: several strengths are more ways to come close to the budget."""
    first = joint.steps[0]
    strengths = [round(first.strength + k * FINE, 2) for k in range(-5, 6) if first.strength + k * FINE > 0]
    swept = strength_curve(validation, lambda x: [it.add(vector, x, first.positions)], strengths, progress=False)
    best = choose(swept, joint.budget)
    judged = test.judge([(it.add(vector, best.strength, first.positions),)], best.strength, progress=False)
    name = f"best alone, strength in steps of {FINE:g}: {first.vector}, {first.positions}, {best.strength:g}"
    return {"condition": name, "validation": share_to_dict(best.intact), **judged.to_dict()}


def random_draws(given: tuple[Intervention, ...]) -> list[tuple[Intervention, ...]]:
    """Random vectors in place of each, five times."""
    return list(zip(*(random_like(one, seed) for seed, one in enumerate(given)), strict=True))


def line(row: dict[str, Any]) -> str:
    """A line of the table."""
    shares = [row.get("validation"), row["success"], row["intact"]]
    return f"| {row['vectors']} | {row['condition']} | {' | '.join(map(cell, shares))} | {row['clean_kl']:.4f} |"


def cell(rate: dict[str, Any] | None) -> str:
    """A rate with its interval and n; nothing where it was not measured."""
    return "" if rate is None else f"{rate['rate']:.3f} [{rate['low']:.3f}, {rate['high']:.3f}] n {rate['n']}"


if __name__ == "__main__":
    main()
