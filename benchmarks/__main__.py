"""Run benchmarks, all or those that are named, print a table, write `results.json` beside this file."""

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin while they wait would be counted as work

import torch
import transformers
from rich.console import Console
from rich.table import Table

from benchmarks import capture, clean_kl, collection, costs, generation, gpu, moments, ridge, store, sweep, training
from benchmarks.measure import Result

N = {"d256 x 6 layers": 21, "the shape of Qwen2.5-0.5B": 5}
RESULTS = Path(__file__).with_name("results.json")


@dataclass(frozen=True)
class Options:
    """How large the large ones are.

    Attributes:
        folder: for what they write, removed afterwards.
        threads: of each process.
        pairs: at most, of the moments.
        gigabytes: of the store that is read.
    """

    folder: Path
    threads: int
    pairs: int
    gigabytes: float


BENCHMARKS: dict[str, Callable[[Options], list[Result]]] = {
    "capture": lambda options: capture.run(options.folder, N),
    "generation": lambda options: generation.run(options.folder, N),
    "costs": lambda options: costs.run(options.folder),
    "clean-kl": lambda options: clean_kl.run(options.folder),
    "sweep": lambda options: sweep.run(options.folder),
    "collection": lambda options: collection.run(options.folder),
    "store": lambda options: store.run(options.folder, options.gigabytes),
    "mapping-ridge": lambda _: ridge.run(),
    "mapping-moments": lambda options: moments.run(options.pairs, options.threads),
    "mapping-training": lambda _: training.run(),
    "gpu": lambda options: gpu.run(options.folder),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"which, of {', '.join(BENCHMARKS)}; all of them, unless said")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=moments.SIZES[-1], help="of mapping-moments, at most")
    parser.add_argument("--gigabytes", type=float, default=5.0, help="of the store that is read")
    asked = parser.parse_args()
    if unknown := set(asked.names) - set(BENCHMARKS):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}: there are {', '.join(BENCHMARKS)}")
    torch.set_num_threads(asked.threads)
    transformers.utils.logging.disable_progress_bar()
    results: list[Result] = []
    for name in asked.names or BENCHMARKS:
        with tempfile.TemporaryDirectory() as folder:
            results += BENCHMARKS[name](Options(Path(folder), asked.threads, asked.pairs, asked.gigabytes))
        write(results, keep=bool(asked.names))
    show(results)


def write(results: list[Result], keep: bool) -> None:
    """Into the file; ``keep`` what others it holds."""
    rows = {row["name"]: row for row in json.loads(RESULTS.read_text())} if keep and RESULTS.is_file() else {}
    rows |= {result.name: result.to_dict() for result in results}
    RESULTS.write_text(json.dumps(list(rows.values()), indent=2) + "\n")


def show(results: list[Result]) -> None:
    """As a table."""
    words = {True: "[green]yes", False: "[red]no", None: "not run"}
    table = Table("name", "ratio", "goal", "met", "n", "note")
    for result in results:
        value = "" if result.ratio is None else f"{result.ratio:.4g}"
        table.add_row(result.name, value, f"{result.goal:g}", words[result.met], str(result.n), result.note)
    Console().print(table, f"written to {RESULTS}")


if __name__ == "__main__":
    main()
