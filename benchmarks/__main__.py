"""Run all benchmarks, print a table, write `results.json` beside this file."""

import json
import os
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin while they wait would be counted as work

import torch
import transformers
from rich.console import Console
from rich.table import Table

from benchmarks import capture, costs, generation

N = {"d256 x 6 layers": 21, "the shape of Qwen2.5-0.5B": 5}


def main() -> None:
    torch.set_num_threads(2)
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        results = [*capture.run(root, N), *generation.run(root, N), *costs.run(root)]
    out = Path(__file__).with_name("results.json")
    out.write_text(json.dumps([result.to_dict() for result in results], indent=2) + "\n")
    table = Table("name", "ratio", "goal", "met", "n", "note")
    for result in results:
        met = "[green]yes" if result.met else "[red]no"
        table.add_row(result.name, f"{result.ratio:.3f}", f"{result.goal:g}", met, str(result.n), result.note)
    Console().print(table, f"written to {out}")


if __name__ == "__main__":
    main()
