"""Shuffled reading of a store of pairs against raw reads of the same files, one after the other, warm and cold.

The raw side reads as many bytes at a time as a batch has, each time into memory of its own, as whoever takes batches gets it.
Warm, all is in the page cache already; cold, the files' pages are dropped before each pass, by ``posix_fadvise``, which needs
no rights. Throughput is rows in a second, so wall time is compared; CPU time beside it, as it does not count that shuffling
uses several threads. Checksums, which are compared at the first use of a shard in a process, are left out.

Measured in a process of its own, whose threads wait as they do by default: where CPU time is compared they are put to sleep
between pieces of work, and waking them takes longer than to copy a hundred kilobytes.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.measure import WALL, Result, ratio
from interp_transfer.activations.store.manifest import columns_like
from interp_transfer.activations.store.reader import BATCH_SIZE, Store, open_store
from interp_transfer.activations.store.writer import StoreWriter

WIDTHS = {"source": 896, "target": 1536}
GOAL = 1.25
"""In time; 0.8 of the throughput."""

_BLOCK = 8192
_REPETITIONS = 3


def run(folder: Path, gigabytes: float) -> list[Result]:
    """All rows of the table, from another process."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    command = [sys.executable, "-m", "benchmarks.store", str(folder), str(gigabytes), str(torch.get_num_threads())]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return [Result(**row) for row in json.loads(done.stdout)]


def measured(folder: Path, gigabytes: float) -> list[Result]:
    size = round(1e9 * gigabytes)
    name = f"shuffled reading of {gigabytes:g} GB"
    free, needed = shutil.disk_usage(folder).free, size + (2 << 30)
    if free < needed:
        why = f"not run: {free / 1e9:.1f} GB of disk are free, {needed / 1e9:.1f} are needed"
        return [Result(f"{name}, {state}", None, GOAL, 0, why) for state in ("warm", "cold")]
    store = made(folder / "store", size)
    files = [store.folder / shard.file for shard in store.manifest.shards]
    row_bytes = sum(file.stat().st_size for file in files) // len(store)

    def ours() -> None:
        for _ in store.shuffled(0):
            pass

    def theirs() -> None:
        for _ in raw(files, BATCH_SIZE * row_bytes):
            pass

    check(store, sum(map(len, raw(files, BATCH_SIZE * row_bytes))))
    value, times = ratio(ours, theirs, _REPETITIONS, WALL)
    work, _ = ratio(ours, theirs, _REPETITIONS)
    what = f"{len(store):,} rows of float32 in {len(files)} shards, batches of {BATCH_SIZE}"
    results = [Result(f"{name}, warm", value, GOAL, _REPETITIONS, f"{what}; {times}; {work:.2f} in CPU time")]
    if why := not_cold(files, size):
        return [*results, Result(f"{name}, cold", None, GOAL, 0, why)]
    value, times = ratio(ours, theirs, _REPETITIONS, WALL, before=lambda: drop(files))
    return [*results, Result(f"{name}, cold", value, GOAL, _REPETITIONS, f"pages dropped by posix_fadvise; {what}; {times}")]


def made(folder: Path, size: int) -> Store:
    """A store of about so many bytes. Each row begins with its number."""
    generator = torch.Generator().manual_seed(0)
    block = {name: torch.randn(_BLOCK, width, generator=generator) for name, width in WIDTHS.items()}
    rows = size // (4 * sum(WIDTHS.values()))
    with StoreWriter(folder, columns_like(block)) as writer:
        for start in range(0, rows, _BLOCK):
            count = min(_BLOCK, rows - start)
            for part in block.values():
                part[:, 0] = torch.arange(start, start + _BLOCK)  # exact in float32, below 16 million
            writer.append({name: part[:count] for name, part in block.items()}, upto=start + count)
    os.sync()
    return open_store(folder, check=False)


def check(store: Store, raw_bytes: int) -> None:
    """Refuse to time unless every row comes once, whole, with its partner, and the raw side reads all bytes."""
    seen = torch.zeros(len(store), dtype=torch.int32)
    plain = store.read(0, _BLOCK)
    for rows in store.shuffled(0):
        number = rows["source"][:, 0].long()
        assert torch.equal(rows["target"][:, 0].long(), number), "rows lost their partners"
        seen[number] += 1
        for name, part in rows.items():
            assert torch.equal(part[:, 1:], plain[name][number % _BLOCK, 1:]), "other rows than were written"
    assert bool((seen == 1).all()), "rows lost or doubled"
    assert raw_bytes == sum(shard.bytes for shard in store.manifest.shards)


def raw(files: list[Path], at_once: int) -> Iterator[torch.Tensor]:
    """The bytes of some files."""
    for file in files:
        left = file.stat().st_size
        with file.open("rb", buffering=0) as data:
            while left:
                part = torch.empty(min(at_once, left), dtype=torch.uint8)
                view, done = memoryview(part.numpy().data), 0
                while done < len(part):
                    done += data.readinto(view[done:])
                left -= len(part)
                yield part


def drop(files: list[Path]) -> None:
    """Out of the page cache."""
    for file in files:
        with file.open("rb") as data:
            os.posix_fadvise(data.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def not_cold(files: list[Path], size: int) -> str:
    """Why nothing can be measured cold, if so."""
    if sys.platform != "linux":
        return "not run: pages of files can be dropped on Linux alone"
    drop(files)
    before = _from_disk()
    for _ in raw(files, 1 << 23):
        pass
    read = _from_disk() - before
    return "" if read > 0.9 * size else f"not run: of {size / 1e9:.1f} GB, {read / 1e9:.1f} came from the disk after a drop"


def _from_disk() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("read_bytes:")).split()[1])


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[3]))
    print(json.dumps([asdict(result) for result in measured(Path(sys.argv[1]), float(sys.argv[2]))]))
