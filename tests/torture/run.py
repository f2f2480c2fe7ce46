"""Kill each job that resumes, damage each kind of file, and write a table of what came of it (``make torture``).

Exits with 1 if a result was lost, doubled or changed, if something was left over, or if a damaged file was read as something
else without a named error.
"""

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}

import torch

from interp_transfer.io import atomic_write
from tests.torture.fuzz import fuzz
from tests.torture.kills import kills

ROOT = Path(__file__).parents[2]
MOMENTS, MUTATIONS = 50, 10_000
KILLS = {"job": "job", "kills": "kills", "resumed": "resumed", "equal": "equal", "left_over": "left over"}
FUZZ = {"kind": "file", "mutations": "mutations", "errors": "named errors", "equal": "equal loads", "other": "other content"}


def table(columns: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as Markdown, numbers to the right, with the number of faults last and a row of sums."""
    first, *numbers = columns
    sums = {
        first: "all",
        **{name: sum(row[name] for row in rows) for name in numbers},
        "faults": sum((r["faults"] for r in rows), []),
    }
    lines = [
        " | ".join([*columns.values(), "faults"]),
        " | ".join(["---", *["---:"] * len(columns)]),
        *(" | ".join([row[first], *(f"{row[name]:,}" for name in numbers), str(len(row["faults"]))]) for row in [*rows, sums]),
    ]
    return "\n".join(f"| {line} |" for line in lines)


def main() -> int:
    """Do both, print what is wrong, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, default=MOMENTS, help="times that each job is killed and let finish")
    parser.add_argument("--mutations", type=int, default=MUTATIONS, help="damaged files of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "made" / "torture.md")
    given = parser.parse_args()
    torch.set_num_threads(1)
    start = time.perf_counter()
    killed, damaged = kills(given.moments, given.seed), fuzz(given.mutations, given.seed)
    minutes = (time.perf_counter() - start) / 60
    page = (
        f"Seed {given.seed}, {given.moments} moments a job, {minutes:.0f} minutes on {os.cpu_count()} cores.\n\n"
        f"{table(KILLS, killed)}\n\n{table(FUZZ, damaged)}\n"
    )
    with atomic_write(given.page) as part:
        part.write_text(page, encoding="utf-8")
    faults = [f"{row['job']}: {fault}" for row in killed for fault in row["faults"]]
    faults += [f"{row['kind']}: {fault}" for row in damaged for fault in row["faults"]]
    lost = [row["job"] for row in killed if row["equal"] < given.moments or row["left_over"]]
    sys.stdout.write("\n".join([page, *faults, *(f"lost or left over: {job}" for job in lost)]) + "\n")
    return 1 if faults or lost else 0


if __name__ == "__main__":
    sys.exit(main())
