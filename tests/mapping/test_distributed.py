"""Ranks do what one process does: the same rows, moments and mappers, also after a rank was killed."""

import hashlib
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch

import interp_transfer as it
from interp_transfer.activations.agreement import Agreement
from interp_transfer.activations.store.manifest import read_manifest
from interp_transfer.mapping import distributed, pair_reader, training
from interp_transfer.mapping.distributed import rank_and_size
from interp_transfer.mapping.fit import _Massive, _Seen
from interp_transfer.mapping.mappers import Mapper
from interp_transfer.mapping.moments import Moments
from interp_transfer.mapping.row_blocks import MemoryPart, StoredPart
from interp_transfer.mapping.stored import open_pairs
from interp_transfer.models.identity import identity
from interp_transfer.models.load import load_model
from tests.checkpoints import make_checkpoint, word_tokenizer
from tests.mapping.test_stored_pairs import WORDS, S, T, content, figures, planted, sentences

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]

TEXTS = sentences(60)
KINDS: dict[str, dict[str, Any]] = {
    "affine": {},
    "low_rank": {},
    "autoencoder": {"epochs": 3, "batch_size": 64, "width": 12},
    "residual": {"epochs": 2, "batch_size": 89, "width": 8},
}


@dataclass
class Outcome:
    """What one rank returned, or its error; neither if it was killed."""

    value: Any = None
    error: str = ""


def as_rank(work: Callable[[int], Any], rank: int, size: int, port: int, line: Any) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    try:
        outcome = Outcome(work(rank))
    except Exception as error:
        outcome = Outcome(error=f"{type(error).__name__}: {error}")
    line.send(outcome)
    line.recv()  # rank 0 holds the rendezvous, so it stays until all have finished


def run(work: Callable[[int], Any], size: int = 2) -> list[Outcome]:
    """Run a function in so many ranks, as a launcher starts them; as torchrun does, kill all when one is killed."""
    context = multiprocessing.get_context("fork")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    lines = [context.Pipe() for _ in range(size)]
    children = [context.Process(target=as_rank, args=(work, rank, size, port, lines[rank][1])) for rank in range(size)]
    for child in children:
        child.start()
    outcomes = [Outcome() for _ in children]
    waiting = set(range(size))
    try:
        while waiting and all(child.is_alive() for child in children):
            assert wait([*(lines[i][0] for i in waiting), *(child.sentinel for child in children)], 120), "a rank hangs"
            for rank in [i for i in waiting if lines[i][0].poll()]:
                outcomes[rank] = lines[rank][0].recv()
                waiting.discard(rank)
        if not waiting:
            for ours, _ in lines:
                ours.send("done")
            for child in children:
                child.join(5)
    finally:
        for child in children:
            child.kill()
            child.join()
    return outcomes


def values(outcomes: list[Outcome]) -> list[Any]:
    assert [outcome.error for outcome in outcomes] == [""] * len(outcomes)
    return [outcome.value for outcome in outcomes]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two models of one tokenizer, and one of another."""
    root = tmp_path_factory.mktemp("models")
    made = {name: make_checkpoint(root / name, "qwen2", seed, hidden_size=d) for name, seed, d in (("a", 0, 16), ("b", 1, 24))}
    loaded = {name: load_model(str(folder), device="cpu") for name, folder in made.items()}
    other = make_checkpoint(root / "c", "llama", 2)
    return loaded | {"c": load_model(str(other), device="cpu", tokenizer=word_tokenizer(WORDS))}


@pytest.fixture(autouse=True)
def small_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    """So small that some dozen texts are many."""
    monkeypatch.setattr(pair_reader, "ROWS_PER_PORTION", 50)


def collected(models: dict[str, Any], store: Path | None = None, texts: Any = TEXTS, pair: str = "cb", **how: Any) -> Any:
    return it.collect(models[pair[0]], models[pair[1]], texts, S, T, store=store, progress=False, **how)


def by_text(pairs: Any) -> dict[str, torch.Tensor]:
    """The rows in the order of the texts."""
    columns = content(pairs)
    order = columns["i"].argsort(stable=True)
    return {name: column[order] for name, column in columns.items()}


def assert_same_rows(one: Any, other: Any) -> None:
    left, right = by_text(one), by_text(other)
    assert left.keys() == right.keys()
    for name, rows in left.items():  # texts are padded together with others than in one process
        torch.testing.assert_close(right[name], rows, rtol=1e-5, atol=1e-5)
    assert figures(one)[:5] == figures(other)[:5] and one.dropped == other.dropped


def digest(tensors: dict[str, torch.Tensor]) -> str:
    return hashlib.sha256(b"".join(value.numpy().tobytes() for value in tensors.values())).hexdigest()


# --- shares


@pytest.mark.parametrize("size", [1, 2, 7])
def test_shares_are_all_rows_once(tmp_path: Path, size: int) -> None:
    memory, disk = planted(1000, tmp_path)
    texts = torch.arange(34) % 3 > 0
    for part in (memory.part(texts), disk.part(texts), replace(disk.part(texts), keep=lambda rows: rows[0][:, 0] > 3, kept=0)):
        assert isinstance(part, MemoryPart | StoredPart)
        shares = [list(part.blocks(rank, size)) for rank in range(size)]
        rows = torch.cat([x for share in shares for x, _ in share])
        assert torch.equal(rows, torch.cat([x for x, _ in part.blocks()]))
        sizes = [sum(len(x) for x, _ in share) for share in shares]
        assert getattr(part, "keep", None) or max(sizes) - min(sizes) <= 1


def test_figures_of_parts_add_up_to_those_of_the_whole() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = 100 + torch.randn(500, 8, generator=generator)
    guess = truth + torch.randn(500, 8, generator=generator)
    whole, total = Agreement(), Agreement()
    whole.update(truth, guess)
    for rows in (slice(0, 0), slice(0, 7), slice(7, 7), slice(7, 300), slice(300, 500)):
        part = Agreement()
        part.update(truth[rows], guess[rows])
        total = total.add(part)
    for figure in ("fvu", "cosine", "norm_ratio"):
        assert getattr(total, figure) == pytest.approx(getattr(whole, figure), rel=1e-12)


def test_a_process_alone_joins_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory, _ = planted(300, tmp_path)
    monkeypatch.setattr(distributed, "_initialize", None)
    it.fit(memory, "affine")
    for variables in ({"WORLD_SIZE": "1", "RANK": "0"}, {"WORLD_SIZE": "4"}):  # the latter may be a cluster's own
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("RANK", raising="RANK" in variables)
        it.fit(memory, "affine")


# --- collecting


def test_ranks_collect_the_rows_of_one_process(models: dict[str, Any], tmp_path: Path) -> None:
    streams = {
        "list": lambda: TEXTS,
        "generator": lambda: (text for text in TEXTS),
        "dataset": lambda: datasets.Dataset.from_dict({"text": TEXTS}),
        "stream": lambda: datasets.Dataset.from_dict({"text": TEXTS}).to_iterable_dataset(),
    }

    def work(_: int) -> tuple[list[str], list[str]]:
        stored = [digest(content(collected(models, tmp_path / name, make()))) for name, make in streams.items()]
        pairs = collected(models)  # without a store each rank has all rows
        return stored, [digest(content(pairs)), str(figures(pairs)[:5])]

    (stored, memory), *others = values(run(work, 3))
    assert all(other == (stored, memory) for other in others), "every rank has the rows of all"
    one = collected(models, tmp_path / "one")
    for name in streams:
        assert_same_rows(one, open_pairs(tmp_path / name))
    manifest = read_manifest(tmp_path / "list")
    assert manifest.upto == len(TEXTS) and manifest.meta["ranks"] == 3
    assert len(manifest.shards) > 6 and {shard.file.split("/")[0] for shard in manifest.shards} == {
        "rank-0",
        "rank-1",
        "rank-2",
    }
    assert len(open_pairs(tmp_path / "list").alignment.examples) == 8


@pytest.mark.parametrize("too_long", ["drop", "cut"])
def test_max_texts_and_long_texts_count_over_all_ranks(models: dict[str, Any], tmp_path: Path, too_long: str) -> None:
    texts = [("dogs " * 200).strip() if i % 7 == 3 else text for i, text in enumerate(TEXTS)]
    how: dict[str, Any] = {"too_long": too_long, "max_texts": 41}
    values(run(lambda _: len(collected(models, tmp_path / "all", texts, **how))))
    found, one = open_pairs(tmp_path / "all"), collected(models, None, texts, **how)
    assert_same_rows(one, found)
    assert (found.alignment.texts_cut, found.alignment.texts_dropped) == (one.alignment.texts_cut, one.alignment.texts_dropped)


def killed_at(number: int, rank: int, owner: Any, method: str) -> None:
    """Kill the process of this rank when it calls a function for the n-th time."""
    original, calls = getattr(owner, method), 0

    def deadly(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if rank_and_size()[0] == rank and calls == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(owner, method, deadly)


def test_a_collection_that_lost_a_rank_resumes_and_can_be_extended(models: dict[str, Any], tmp_path: Path) -> None:
    one = collected(models)
    whole = tmp_path / "whole"
    values(run(lambda _: len(collected(models, whole))))

    for dies in (0, 1):
        folder = tmp_path / str(dies)

        def doomed(_: int, folder: Path = folder, dies: int = dies) -> None:
            killed_at(3, dies, pair_reader.PairReader, "read")
            collected(models, folder)

        assert run(doomed)[dies] == Outcome(), "it was killed"
        assert 0 < read_manifest(folder / f"rank-{dies}").upto < len(TEXTS) // 2
        assert not (folder / "manifest.json").exists(), "nobody takes a part for the whole"
        values(run(lambda _, folder=folder: len(collected(models, folder))))
        for name, rows in content(open_pairs(folder)).items():
            assert torch.equal(rows, content(open_pairs(whole))[name]), "no row is lost or doubled"
        assert_same_rows(one, open_pairs(folder))
    more = TEXTS + sentences(31, seed=5)
    values(run(lambda _: len(collected(models, whole, more))))
    assert_same_rows(collected(models, None, more), open_pairs(whole))
    with pytest.raises(ValueError, match="was written by 2 ranks, and there are 1 now: start 2"):
        collected(models, whole, more)


# --- fitting


@pytest.mark.parametrize("size", [2, 3])
def test_moments_are_those_of_one_process(tmp_path: Path, size: int) -> None:
    memory, disk = planted(2999, tmp_path, massive=True)
    for pairs in (memory, disk):
        one = seen(pairs)
        for other in values(run(lambda _, pairs=pairs: seen(pairs), size)):
            for field in fields(Moments):
                a, b = (torch.as_tensor(getattr(each[0], field.name), dtype=torch.float64) for each in (one, other))
                assert (a - b).norm() <= 1e-9 * a.norm(), field.name
            assert other[1:3] == one[1:3]
            torch.testing.assert_close(other[3], one[3], rtol=1e-9, atol=0)


def seen(pairs: Any) -> tuple[Moments, int, int, torch.Tensor]:
    part = pairs.part(pairs.held_out(0.5, 0))
    one = _Seen(part, _Massive(part, 10.0), (6, 9))
    assert one.apart
    return one.moments, one.apart, one.long, one.opposite


@pytest.mark.parametrize("on_disk", [False, True])
def test_mappers_are_those_of_one_process(tmp_path: Path, on_disk: bool) -> None:
    pairs = planted(3000, tmp_path, massive=True)[on_disk]
    rows = pairs.source[S][:200]
    one, ranks = fitted(pairs, rows), values(run(lambda _: fitted(pairs, rows), 3))
    for kind in KINDS:
        (out, _, card), tolerance = one[kind], 1e-4 if kind in ("autoencoder", "residual") else 1e-5
        assert len({rank[kind][1] for rank in ranks}) == 1, "the very same in each rank"
        for other, _, theirs in (rank[kind] for rank in ranks):
            torch.testing.assert_close(other, out, rtol=tolerance, atol=tolerance)
            for figure in ("fvu", "cosine", "norm_ratio"):
                assert getattr(theirs, figure) == pytest.approx(getattr(card, figure), rel=1e-4)
            assert theirs.curve == pytest.approx(card.curve, rel=1e-4)
            assert (theirs.rows, theirs.massive_rows) == (card.rows, card.massive_rows)
            assert theirs.settings == pytest.approx(card.settings)


def fitted(pairs: Any, rows: torch.Tensor) -> dict[str, tuple[torch.Tensor, str, Any]]:
    mappers = {kind: it.fit(pairs, kind, progress=False, **settings) for kind, settings in KINDS.items()}
    return {kind: (mapper(rows), digest(mapper.state_dict()), mapper.card) for kind, mapper in mappers.items()}


def test_more_ranks_than_rows_in_a_batch(tmp_path: Path) -> None:
    memory, _ = planted(120, tmp_path)
    how: dict[str, Any] = {"epochs": 2, "batch_size": 2, "held_out": 0.25, "progress": False}
    alone = it.fit(memory, "autoencoder", **how)

    def work(_: int) -> list[float]:
        torch.distributed.init_process_group("gloo")  # a script may do so itself
        return it.fit(memory, "autoencoder", **how).card.curve

    for curve in values(run(work, 3)):
        assert curve == pytest.approx(alone.card.curve, rel=1e-3)


def test_a_training_that_lost_a_rank_resumes(tmp_path: Path) -> None:
    memory, _ = planted(600, tmp_path / "store")
    how: dict[str, Any] = {"epochs": 4, "batch_size": 64, "progress": False}

    def work(_: int, dies: bool) -> Any:
        if dies:
            killed_at(3, 1, training, "_error")
        return it.fit(memory, "autoencoder", checkpoint=tmp_path, **how).card.curve

    assert run(lambda rank: work(rank, dies=True))[1] == Outcome()
    whole = it.fit(memory, "autoencoder", **how).card.curve
    assert json.loads((tmp_path / "training.json").read_text())["curve"] == pytest.approx(whole[:2], rel=1e-4)
    for curve in values(run(lambda rank: work(rank, dies=False))):
        assert curve == pytest.approx(whole, rel=1e-4)


def test_ranks_that_make_different_calls_are_refused(models: dict[str, Any], tmp_path: Path) -> None:
    memory, _ = planted(300, tmp_path / "pairs")
    cases: list[tuple[Callable[[int], Any], str]] = [
        (lambda rank: it.fit(memory, "affine", seed=rank), "rank 1 has seed=1 and rank 0 has seed=0: make the same call"),
        (lambda rank: it.fit(memory, "autoencoder", epochs=rank + 1), "rank 1 has epochs=2 and rank 0 has epochs=1"),
        (lambda rank: it.fit(memory.shuffled(rank), "affine"), "rank 1 has first and last row="),
        (lambda rank: collected(models, None, TEXTS[: 60 - 7 * rank]), "rank 1 has number of texts=53 and rank 0"),
        (lambda rank: collected(models, tmp_path / "y" if rank else None), "rank 1 has in a store=True and rank 0"),
        (lambda rank: collected(models, dtype="float16" if rank else None), "rank 1 has dtype='float16'"),
    ]

    def work(rank: int) -> list[str]:
        messages = []
        for call, _ in cases:
            with pytest.raises(ValueError) as caught:
                call(rank)
            messages.append(str(caught.value))
        return messages

    for messages in values(run(work)):
        for (_, expected), message in zip(cases, messages, strict=True):
            assert expected in message


# --- started by launchers

SCRIPT = """
import os, signal, sys
from pathlib import Path
import interp_transfer as it
from interp_transfer.mapping import pair_reader

out, a, b = map(Path, sys.argv[1:4])
pair_reader.ROWS_PER_PORTION = 50
source, target = it.load_model(str(a), device="cpu"), it.load_model(str(b), device="cpu")
texts = ["the cat sat on a mat"[: 3 + 4 * (i % 6)] for i in range(60)]
read, calls = pair_reader.PairReader.read, 0

def deadly(*args):
    global calls
    calls += 1
    if calls == 3 and (os.environ["RANK"], os.environ["TORCHELASTIC_RESTART_COUNT"]) == ("1", os.environ.get("DIES")):
        os.kill(os.getpid(), signal.SIGKILL)
    return read(*args)

pair_reader.PairReader.read = deadly
pairs = it.collect(source, target, texts, "blocks.1.hook_resid_pre", "blocks.2.hook_resid_pre", store=out / "store")
mapper = it.fit(pairs, "autoencoder", epochs=2)
if os.environ.get("RANK", "0") == "0":
    mapper.save(out / "mapper")
"""
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "1"]
ACCELERATE = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0"]


@pytest.mark.slow
@pytest.mark.parametrize(("launcher", "env"), [(TORCHRUN, {"DIES": "0"}), (ACCELERATE, {})], ids=["torchrun", "accelerate"])
def test_a_launcher_restarts_the_job(models: dict[str, Any], tmp_path: Path, launcher: list[str], env: dict[str, str]) -> None:
    texts = ["the cat sat on a mat"[: 3 + 4 * (i % 6)] for i in range(60)]
    one = collected(models, None, texts, "ab")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    folders = [identity(models[name]).name for name in "ab"]
    env = {**os.environ, **env}
    env |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(it.__file__).parents[1])}
    command = [sys.executable, *launcher, str(script), str(tmp_path), *folders]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    pairs = open_pairs(tmp_path / "store")
    assert_same_rows(one, pairs)
    mapper = it.fit(pairs, "autoencoder", epochs=2, progress=False)
    rows = torch.randn(50, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(Mapper.load(tmp_path / "mapper")(rows), mapper(rows), rtol=1e-3, atol=1e-3)
