"""Several processes do what one does: the same bytes on disk, moments, mappers. And none waits for the dead."""

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import pytest
import torch

import interp_transfer as it
from interp_transfer.activations.agreement import Agreement
from interp_transfer.mapping import collect as collecting
from interp_transfer.mapping import meeting, processes, training
from interp_transfer.mapping.fit import _Massive, _Seen
from interp_transfer.mapping.mappers import Mapper
from interp_transfer.mapping.moments import Moments, RunningMoments, merged
from interp_transfer.mapping.processes import Crew, together
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
    "procrustes": {},
    "autoencoder": {"epochs": 3, "batch_size": 64, "width": 12},
    "residual": {"epochs": 2, "batch_size": 89, "width": 8},
}


@dataclass
class Outcome:
    """What became of one process: what its work gave, or its error; neither, if it was killed."""

    value: Any = None
    error: str = ""


def as_rank(work: Callable[[int], Any], rank: int, count: int, port: int, line: Any) -> None:
    torch.set_num_threads(1)
    if count > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    try:
        found = Outcome(work(rank))
    except Exception as error:
        found = Outcome(error=f"{type(error).__name__}: {error}")
    line.send(found)
    line.recv()  # the notes of all lie with rank 0, so it stays until all are done


def run(work: Callable[[int], Any], count: int = 2) -> list[Outcome]:
    """Let so many processes do some work together, as a launcher would start them."""
    context = multiprocessing.get_context("fork")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    lines = [context.Pipe() for _ in range(count)]
    children = [context.Process(target=as_rank, args=(work, rank, count, port, lines[rank][1])) for rank in range(count)]
    for child in children:
        child.start()
    for _, theirs in lines:
        theirs.close()
    found = []
    try:
        for (ours, _), child in zip(lines, children, strict=True):
            assert wait([ours, child.sentinel], 120), "a process stands still"
            found.append(ours.recv() if ours.poll() else Outcome())
    finally:
        for ours, _ in lines:
            with suppress(OSError):  # of one that is gone
                ours.send("done")  # the others hold copies of this end, so that closing it says nothing
            ours.close()
        for child in children:
            child.join(5)
            child.kill()
            child.join()
    return found


def values(outcomes: list[Outcome]) -> list[Any]:
    assert [outcome.error for outcome in outcomes] == [""] * len(outcomes)
    return [outcome.value for outcome in outcomes]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two models of one tokenizer, and one of another."""
    root = tmp_path_factory.mktemp("models")
    made = {name: make_checkpoint(root / name, "qwen2", seed, hidden_size=d) for name, seed, d in (("a", 0, 16), ("b", 1, 24))}
    loaded = {name: load_model(str(folder), device="cpu") for name, folder in made.items()}
    return loaded | {
        "c": load_model(str(make_checkpoint(root / "c", "llama", 2)), device="cpu", tokenizer=word_tokenizer(WORDS))
    }


@pytest.fixture(autouse=True)
def small_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    """So small that some dozen texts are many."""
    monkeypatch.setattr(collecting, "ROWS_PER_PORTION", 50)


def collected(models: dict[str, Any], store: Path | None = None, texts: Any = TEXTS, pair: str = "cb", **how: Any) -> Any:
    return it.collect(models[pair[0]], models[pair[1]], texts, S, T, store=store, progress=False, **how)


def files(folder: Path) -> dict[str, str]:
    """What a store's files hold; but for the lock, which holds nothing."""
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


def digest(tensors: dict[str, torch.Tensor]) -> str:
    return hashlib.sha256(b"".join(value.numpy().tobytes() for value in tensors.values())).hexdigest()


# --- shares


@pytest.mark.parametrize("count", [1, 2, 7])
def test_shares_are_all_rows_once(tmp_path: Path, count: int) -> None:
    memory, disk = planted(1000, tmp_path)
    texts = torch.arange(34) % 3 > 0
    for part in (memory.part(texts), disk.part(texts), replace(disk.part(texts), keep=lambda rows: rows[0][:, 0] > 3, kept=0)):
        assert isinstance(part, MemoryPart | StoredPart)
        shares = [list(part.blocks(share_of(rank, count))) for rank in range(count)]
        found = torch.cat([x for share in shares for x, _ in share])
        assert torch.equal(found, torch.cat([x for x, _ in part.blocks()]))
        sizes = [sum(len(x) for x, _ in share) for share in shares]
        assert getattr(part, "keep", None) or max(sizes) - min(sizes) <= 1


def share_of(rank: int, count: int) -> Any:
    one = Crew()
    one.rank, one.count = rank, count
    return one.bounds


def test_what_is_merged_is_as_if_it_was_found_at_once() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = 100 + torch.randn(500, 8, generator=generator)
    guess = truth + torch.randn(500, 8, generator=generator)
    whole, total, parts = Agreement(), Agreement(), []
    whole.update(truth, guess)
    for rows in (slice(0, 0), slice(0, 7), slice(7, 7), slice(7, 300), slice(300, 500)):
        one, some = RunningMoments(8, 8), Agreement()
        one.update(truth[rows], guess[rows])
        some.update(truth[rows] + 0, guess[rows])
        parts.append(one.result())
        total = total.add(some)
    for figure in ("fvu", "cosine", "norm_ratio"):
        assert getattr(total, figure) == pytest.approx(getattr(whole, figure), rel=1e-12)
    at_once, joined = RunningMoments(8, 8), parts[0]
    at_once.update(truth, guess)
    for part in parts[1:]:
        joined = merged(joined, part)
    for field in fields(Moments):
        a, b = (torch.as_tensor(getattr(found, field.name)) for found in (at_once.result(), joined))
        torch.testing.assert_close(b, a, rtol=1e-12, atol=1e-9)


def test_one_alone_meets_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory, _ = planted(300, tmp_path)
    monkeypatch.setattr(processes, "meet", None)
    it.fit(memory, "affine")
    for variables in ({"WORLD_SIZE": "1", "RANK": "0"}, {"WORLD_SIZE": "4"}):  # the latter is some cluster's own
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("RANK", raising="RANK" in variables)
        it.fit(memory, "affine")


# --- collecting


@pytest.mark.parametrize("count", [2, 3])
def test_together_they_write_the_store_of_one(models: dict[str, Any], tmp_path: Path, count: int) -> None:
    collected(models, tmp_path / "one")
    readers: list[list[int]] = values(run(lambda _: watched(models, tmp_path / "all"), count))
    assert files(tmp_path / "all") == files(tmp_path / "one"), "byte for byte"
    assert len(files(tmp_path / "one")) > 6, "portion by portion"
    beginnings = sorted(first for reader in readers for first in reader)
    assert len(set(beginnings)) == len(beginnings), "no portion was read twice"
    assert min(map(len, readers)) >= len(beginnings) // count, "each read its share"


def watched(models: dict[str, Any], folder: Path) -> list[int]:
    """Collect; with which texts the portions began that this process read."""
    read, seen = collecting._Request.read, []

    def note(self: Any, texts: Any, first: int, *rest: Any) -> Any:
        seen.append(first)
        return read(self, texts, first, *rest)

    collecting._Request.read = note  # type: ignore[method-assign]
    pairs = collected(models, folder)
    assert figures(pairs) == figures(open_pairs(folder))
    return seen[1:]  # the first few texts are read by all


@pytest.mark.parametrize("pair", ["ab", "cb"])
def test_without_a_store_each_has_all_rows(models: dict[str, Any], pair: str) -> None:
    alone = collected(models, None, TEXTS, pair)
    for rows, told in values(run(lambda _: held(models, pair), 3)):
        assert rows == digest(content(alone))
        assert told == figures(alone)


def held(models: dict[str, Any], pair: str) -> tuple[str, Any]:
    found = collected(models, None, (text for text in TEXTS), pair)
    return digest(content(found)), figures(found)


# --- fitting


@pytest.mark.parametrize("count", [2, 3])
def test_moments_are_those_of_one(tmp_path: Path, count: int) -> None:
    memory, disk = planted(2999, tmp_path, massive=True)
    for pairs in (memory, disk):
        one = seen(pairs)
        for other in values(run(lambda _, pairs=pairs: seen(pairs), count)):
            for field in fields(Moments):
                a, b = (torch.as_tensor(getattr(found[0], field.name), dtype=torch.float64) for found in (one, other))
                assert (a - b).norm() <= 1e-9 * a.norm(), field.name
            assert other[1:3] == one[1:3]
            torch.testing.assert_close(other[3], one[3], rtol=1e-9, atol=0)


@together
def seen(pairs: Any) -> tuple[Moments, int, int, torch.Tensor]:
    part = pairs.part(pairs.held_out(0.5, 0))
    found = _Seen(part, _Massive(part, 10.0), (6, 9))
    assert found.apart
    return found.moments, found.apart, found.long, found.opposite


@pytest.mark.parametrize("on_disk", [False, True])
def test_mappers_are_those_of_one(tmp_path: Path, on_disk: bool) -> None:
    pairs = planted(3000, tmp_path, massive=True)[on_disk]
    rows = pairs.source[S][:200]
    found = {count: values(run(lambda _: fitted(pairs, rows), count)) for count in (1, 2, 3)}
    for kind in KINDS:
        (out, _, card), trained = found[1][0][kind], kind in ("autoencoder", "residual")
        for count in (2, 3):
            assert len({rank[kind][1] for rank in found[count]}) == 1, "the very same in each process"
            for other, _, card_of_other in (rank[kind] for rank in found[count]):
                torch.testing.assert_close(other, out, rtol=1e-4 if trained else 1e-5, atol=1e-4 if trained else 1e-5)
                for figure in ("fvu", "cosine", "norm_ratio"):
                    assert getattr(card_of_other, figure) == pytest.approx(getattr(card, figure), rel=1e-4)
                assert card_of_other.curve == pytest.approx(card.curve, rel=1e-4)
                assert (card_of_other.rows, card_of_other.massive_rows) == (card.rows, card.massive_rows)
                assert card_of_other.settings == pytest.approx(card.settings)


def fitted(pairs: Any, rows: torch.Tensor) -> dict[str, tuple[torch.Tensor, str, Any]]:
    mappers = {kind: it.fit(pairs, kind, progress=False, **settings) for kind, settings in KINDS.items()}
    return {kind: (mapper(rows), digest(mapper.state_dict()), mapper.card) for kind, mapper in mappers.items()}


def test_more_processes_than_rows_in_a_batch(tmp_path: Path) -> None:
    memory, _ = planted(120, tmp_path)
    how: dict[str, Any] = {"epochs": 2, "batch_size": 2, "held_out": 0.25, "progress": False}
    alone = it.fit(memory, "autoencoder", **how)

    def work(_: int) -> list[float]:
        torch.distributed.init_process_group("gloo")  # a user who does so is gone along with
        return it.fit(memory, "autoencoder", **how).card.curve

    for curve in values(run(work, 3)):
        assert curve == pytest.approx(alone.card.curve, rel=1e-3)


# --- when something goes wrong


def killed_at(number: int, rank: int, method: str = "read", owner: Any = None) -> None:
    """The process of this rank is killed when it comes to something for the so-manieth time."""
    owner = owner or collecting._Request
    original, calls = getattr(owner, method), 0

    def deadly(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if processes.crew().rank == rank and calls == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(owner, method, deadly)


@pytest.mark.parametrize(("dies", "count"), [(1, 2), (0, 2), (2, 3)])
def test_the_dead_are_named_and_the_rest_is_collected(models: dict[str, Any], tmp_path: Path, dies: int, count: int) -> None:
    collected(models, tmp_path / "one")

    def work(_: int) -> None:
        killed_at(3, dies)
        collected(models, tmp_path / "all")

    outcomes = run(work, count)
    assert outcomes[dies] == Outcome(), "it was killed"
    for rank, outcome in enumerate(outcomes):
        if rank != dies:
            assert outcome.error.startswith(f"ProcessError: rank {dies} is gone"), outcome.error
            assert f"this is rank {rank} of {count}. Start all of them again: the same call goes on" in outcome.error
    there = open_pairs(tmp_path / "all").store.manifest.upto
    assert 0 < there < len(TEXTS)
    shutil.copytree(tmp_path / "all", tmp_path / "alone")
    values(run(lambda _: watched(models, tmp_path / "all"), 2))
    collected(models, tmp_path / "alone")
    assert files(tmp_path / "all") == files(tmp_path / "alone") == files(tmp_path / "one")


def test_a_training_that_lost_a_process_goes_on(tmp_path: Path) -> None:
    memory, _ = planted(600, tmp_path / "store")
    how: dict[str, Any] = {"epochs": 4, "batch_size": 64, "progress": False}

    def work(_: int, folder: Path, dies: bool = True) -> Any:
        if dies:
            killed_at(3, 1, "_error", training)
        return it.fit(memory, "autoencoder", checkpoint=folder, **how).card.curve

    survivor, dead = run(lambda rank: work(rank, tmp_path / "a"))
    assert dead == Outcome() and "rank 1 is gone" in survivor.error
    whole = it.fit(memory, "autoencoder", **how).card.curve
    assert json.loads((tmp_path / "a" / "training.json").read_text())["curve"] == pytest.approx(whole[:2], rel=1e-4)
    for curve in values(run(lambda rank: work(rank, tmp_path / "a", dies=False))):
        assert curve == pytest.approx(whole, rel=1e-4)


def test_an_error_is_passed_on_and_the_next_call_works(models: dict[str, Any], tmp_path: Path) -> None:
    memory, _ = planted(300, tmp_path / "pairs")

    def work(rank: int) -> tuple[str, float]:
        read, calls = collecting._Request.read, 0

        def failing(self: Any, *args: Any) -> Any:
            nonlocal calls
            calls += 1
            if rank == 1 and calls == 2:
                raise ValueError("this text\nis none")
            return read(self, *args)

        collecting._Request.read = failing  # type: ignore[method-assign]
        with pytest.raises((ValueError, ConnectionError)) as caught:
            collected(models, tmp_path / "store")
        return f"{caught.type.__name__}: {caught.value}", it.fit(memory, "affine").card.fvu

    outcomes = values(run(work, 3))
    assert outcomes[1][0] == "ValueError: this text\nis none", "its own"
    for said, _ in (outcomes[0], outcomes[2]):
        assert said.startswith("ProcessError: rank 1 stopped with ValueError: this text is none; this is rank ")
    assert {fvu for _, fvu in outcomes} == {outcomes[0][1]} and outcomes[0][1] < 1


def test_processes_that_ask_for_different_things_are_refused(models: dict[str, Any], tmp_path: Path) -> None:
    memory, _ = planted(300, tmp_path / "pairs")
    cases: list[tuple[Callable[[int], Any], str]] = [
        (lambda rank: it.fit(memory, "affine", seed=rank), "rank 1 was given seed=1 and rank 0 seed=0: make the same call"),
        (lambda rank: it.fit(memory, "autoencoder", epochs=rank + 1), "rank 1 was given epochs=2 and rank 0 epochs=1"),
        (lambda rank: it.fit(memory.shuffled(rank), "affine"), "rank 1 was given first and last row="),
        (lambda rank: collected(models, None, TEXTS[rank:]), "rank 1 was given texts='the next"),
        (lambda rank: collected(models, None, TEXTS[: 60 - 7 * rank]), "rank 1 was given texts='the next"),
        (lambda rank: collected(models, tmp_path / "x", TEXTS[: 60 - 7 * rank]), "rank 1 was given texts='the next"),
        (lambda rank: collected(models, tmp_path / "y" if rank else None), "rank 1 was given in a store=True and rank 0"),
        (lambda rank: collected(models, dtype="float16" if rank else None), "rank 1 was given dtype="),
        (lambda rank: collected(models) if rank else it.fit(memory, "affine"), "rank 1 calls collect(...) and rank 0 fit(...)"),
    ]

    def work(rank: int) -> list[str]:
        said = []
        for call, _ in cases:
            with pytest.raises((ValueError, ConnectionError)) as caught:
                call(rank)
            said.append(str(caught.value))
        return said

    first, second = values(run(work))
    for (_, expected), said, heard in zip(cases, first, second, strict=True):
        assert expected in said
        assert said in heard or "calls" in heard


def test_who_does_not_come_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory, _ = planted(300, tmp_path)

    def work(rank: int) -> str:
        it.fit(memory, "affine")
        monkeypatch.setattr(meeting, "ARRIVAL", timedelta(seconds=1))
        time.sleep(2 * rank)
        with pytest.raises(ConnectionError) as caught:
            it.fit(memory, "affine")
        return str(caught.value)

    for said in values(run(work)):
        assert said.startswith(
            "rank 1 of 2 did not come to fit(...) within 1 seconds: all processes have to make the same calls"
        )


# --- started by launchers

SCRIPT = """
import os, signal, sys
from pathlib import Path
import interp_transfer as it
from interp_transfer.mapping import collect as collecting

out, a, b = map(Path, sys.argv[1:4])
collecting.ROWS_PER_PORTION = 50
source, target = it.load_model(str(a), device="cpu"), it.load_model(str(b), device="cpu")
texts = ["the cat sat on a mat"[: 3 + 4 * (i % 6)] for i in range(60)]
read, calls = collecting._Request.read, 0

def deadly(*args):
    global calls
    calls += 1
    if calls == 3 and (os.environ["RANK"], os.environ["TORCHELASTIC_RESTART_COUNT"]) == ("1", os.environ.get("DIES")):
        os.kill(os.getpid(), signal.SIGKILL)
    return read(*args)

collecting._Request.read = deadly
pairs = it.collect(source, target, texts, "blocks.1.hook_resid_pre", "blocks.2.hook_resid_pre", store=out / "store")
mapper = it.fit(pairs, "autoencoder", epochs=2)
if os.environ.get("RANK", "0") == "0":
    mapper.save(out / "mapper")
"""


def launched(launcher: list[str], out: Path, models: dict[str, Any], **env: str) -> tuple[dict[str, str], Any]:
    """What the script leaves when it is started by a launcher; what the launcher said is in the error."""
    out.mkdir()
    script = out / "script.py"
    script.write_text(SCRIPT)
    folders = [identity(models[name]).name for name in "ab"]
    env = {**os.environ, **env}
    env |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(it.__file__).parents[1])}
    command = [sys.executable, *launcher, str(script), str(out), *folders]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return files(out / "store"), Mapper.load(out / "mapper")


def test_torchrun_starts_again_and_all_is_as_from_one(models: dict[str, Any], tmp_path: Path) -> None:
    texts = ["the cat sat on a mat"[: 3 + 4 * (i % 6)] for i in range(60)]
    mapper = it.fit(collected(models, tmp_path / "one", texts, "ab"), "autoencoder", epochs=2, progress=False)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "1"]
    accelerate = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0"]
    for name, launcher, env in (("torchrun", torchrun, {"DIES": "0"}), ("accelerate", accelerate, {})):
        found, other = launched(launcher, tmp_path / name, models, **env)
        assert found == files(tmp_path / "one"), name
        rows = torch.randn(50, 16, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(other(rows), mapper(rows), rtol=1e-3, atol=1e-3)
        assert other.card.rows == mapper.card.rows
