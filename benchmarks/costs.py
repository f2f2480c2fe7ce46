"""What importing the package costs in seconds, and loading a checkpoint in memory; each in processes of its own."""

import statistics
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks.measure import Result
from benchmarks.models import make

IMPORT = """
import time
start = time.perf_counter()
import interp_transfer
print(time.perf_counter() - start)
"""

# Anonymous memory is what the process has for itself; the pages of the checkpoint, mapped into memory, can be dropped by the
# system at any time, so they are told apart and reported beside it.
LOAD = """
import sys, threading, time
import interp_transfer as it
from interp_transfer.models.hooked_model import huggingface_model
import torch, transformers, transformer_lens, accelerate

def status(key):
    with open("/proc/self/status") as file:
        return 1024 * next(int(line.split()[1]) for line in file if line.startswith(key + ":"))

it.load_model(sys.argv[2], device="cpu")  # a small one first: what is imported and set up once is not the model's
torch.set_num_threads(2)
peak = {"RssAnon": 0, "VmRSS": 0}
before = {key: status(key) for key in peak}
done = False

def watch():
    while not done:
        for key in peak:
            peak[key] = max(peak[key], status(key))
        time.sleep(0.001)

thread = threading.Thread(target=watch)
thread.start()
model = it.load_model(sys.argv[1], device="cpu")
done = True
thread.join()
weights = sum(p.numel() * p.element_size() for p in huggingface_model(model).parameters())
print(weights, *((peak[key] - before[key]) / weights for key in peak))
"""


def run(root: Path) -> list[Result]:
    return [importing(), *loading(root)]


def importing(n: int = 7) -> Result:
    seconds = [float(_output(IMPORT)) for _ in range(n)]
    return Result("seconds to import interp_transfer", statistics.median(seconds), 0.5, n, "wall time, in fresh processes")


def loading(root: Path, n: int = 3) -> list[Result]:
    small = make(root / "small", "d256 x 6 layers")
    results = []
    for stored in (torch.float32, torch.bfloat16):
        big = make(root / "big", "the shape of Qwen2.5-0.5B", dtype=stored)
        runs = [[float(x) for x in _output(LOAD, str(big), str(small)).split()] for _ in range(n)]
        weights, anonymous, resident = (statistics.median(column) for column in zip(*runs, strict=True))
        note = (
            f"{weights / 2**20:.0f} MiB of float32 weights, stored as {str(stored).removeprefix('torch.')}; anonymous memory. "
            f"RSS, which counts the mapped pages of the file too: {resident:.2f}"
        )
        results.append(Result(f"memory of loading, (peak - before) / weights, {stored}", anonymous, 1.2, n, note))
    return results


def _output(code: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]
