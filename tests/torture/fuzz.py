"""Read thousands of damaged artifacts of every kind, and list what is neither refused by a named error nor read as it was.

A kind is read in a forked child, which reports each outcome, so that a crash or a hang names its seed. While a file is read,
an audit hook listens to what the process does. ``fuzz`` is the entry; ``damaged`` writes the artifact of one seed for a look.
"""

import json
import os
import random
import select
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from resource import RLIMIT_AS, setrlimit
from shutil import rmtree
from typing import Any, NamedTuple, NoReturn

from interp_transfer.io import DIGEST
from tests.torture.artifacts import KINDS, Kind, settled
from tests.torture.mutations import FOLDER, Damaged, Files, Link, mutate
from tests.torture.watch import Watch

SECONDS = 5.0
"""Longest time that one load may take."""
LONGEST = 1000
"""Characters of an error, its path left out."""
TIMES, ALLOWANCE = 10, 64 << 20
"""Memory that a load may take: so many times the size of the files, and so many bytes."""
ADDRESSES = 2 << 30
"""Bytes of address space that a child may add, to protect the machine."""
WARM_UP = 20
"""Loads before the first that counts."""
OUTCOMES = ("error", "equal", "other")


class _Expected(NamedTuple):
    """What both artifacts of a kind hold, and the number of digests in the first."""

    content: Any
    other: Any
    digests: int


class _Hang(BaseException):
    """A load took longer than ``SECONDS``."""


def fuzz(count: int = 10_000, seed: int = 0, kinds: Sequence[str] = (), *, progress: bool = True) -> list[dict[str, Any]]:
    """Read damaged artifacts.

    Args:
        count: of each kind; slow kinds take a share of it.
        seed: of the first; the others follow.
        kinds: names of kinds; all if empty.
        progress: show a bar.

    Returns:
        A row for each kind: ``kind``, ``mutations``, how many were ``errors``, ``equal`` and ``other``, the ``faults`` as
        texts that name the seed, ``seconds``, ``peak_memory`` (of all loads, the largest growth as a share of what is allowed)
        and ``why`` there may be others.
    """
    from tqdm import tqdm

    chosen = {name: KINDS[name] for name in kinds or KINDS}
    numbers = {name: max(1, round(kind.share * count)) for name, kind in chosen.items()}
    rows = []
    with tqdm(total=sum(numbers.values()), desc="fuzz", unit="file", disable=not progress) as bar:
        for name, kind in chosen.items():
            bar.set_postfix_str(name)
            begin, seen, faults, peak = time.monotonic(), Counter[str](), [], 0.0
            for number, outcome, share in outcomes(name, kind, seed, numbers[name]):
                seen[outcome] += 1
                peak = max(peak, share)
                bar.update()
                if outcome not in OUTCOMES:
                    faults.append(f"{name}, seed {number}: {outcome}")
            counts = {"errors": seen["error"], "equal": seen["equal"], "other": seen["other"]}
            spent = {"seconds": round(time.monotonic() - begin, 1), "peak_memory": round(peak, 3)}
            why = kind.why or "the whole file of another artifact stands in its place"
            rows.append({"kind": name, "mutations": numbers[name], **counts, "faults": faults, **spent, "why": why})
    return rows


def outcomes(name: str, kind: Kind, seed: int, count: int) -> Iterator[tuple[int, str, float]]:
    """Seed, outcome and share of the allowed memory of each load: one of ``OUTCOMES``, or the fault in words."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as root:
        pair = _pair(kind, Path(root))
        following, end = seed, seed + count
        while following < end:
            for number, outcome, share in _child(name, kind, pair, Path(root), range(following, end)):
                following = number + 1
                yield number, outcome, share


def damaged(name: str, seed: int, folder: Path) -> str:
    """Write the artifact that a kind has at a seed into an empty folder; return the names of its mutations."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as root:
        names, files = _mutated(KINDS[name], name, _pair(KINDS[name], Path(root)), seed)
    _write(files, folder)
    return names


def _pair(kind: Kind, root: Path) -> tuple[Files, Files]:
    made: list[Files] = []
    for number in (0, 1):
        folder = root / f"made-{number}"
        folder.mkdir()
        kind.make(folder, number)
        files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock")
        content = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
        made.append({name: settled(name, data, kind.old) for name, data in content.items()})
    return made[0], made[1]


def _mutated(kind: Kind, name: str, pair: tuple[Files, Files], seed: int) -> tuple[str, Damaged]:
    return mutate(*pair, list(kind.targets or pair[0]), random.Random(f"{name} {seed}"))


def _write(files: Damaged | Files, folder: Path) -> int:
    """Write an artifact into a folder; return its bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    size = 0
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content == FOLDER:
            path.mkdir()
        elif isinstance(content, Link):
            path.symlink_to(content.target)
        else:
            size += path.write_bytes(content)
    return size


def _child(name: str, kind: Kind, pair: tuple[Files, Files], root: Path, seeds: range) -> Iterator[tuple[int, str, float]]:
    """What a child reports, up to the end of the seeds or of the child."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads, which wait here
        pid = os.fork()
    if pid == 0:
        os.close(read)
        _serve(name, kind, pair, root, seeds, write)
    os.close(write)
    done = seeds.start
    for line in _lines(read, pid):
        yield json.loads(line)
        done += 1
    os.close(read)
    status = os.waitpid(pid, 0)[1]
    if done < seeds.stop:
        told = root / "child.txt"
        reason = told.read_text() if told.is_file() else "a crash, or a hang outside Python"
        yield done, f"the process ended with status {status} ({reason})", 0.0


def _lines(read: int, pid: int) -> Iterator[bytes]:
    """Lines of a pipe, up to its end; a child that is silent for too long is killed."""
    left, silence = b"", 60.0  # it begins with the imports
    while True:
        if not select.select([read], [], [], silence)[0]:
            os.kill(pid, signal.SIGKILL)
        if not (piece := os.read(read, 1 << 16)):
            return
        *whole, left = (left + piece).split(b"\n")
        yield from whole
        silence = 4 * SECONDS


def _serve(name: str, kind: Kind, pair: tuple[Files, Files], root: Path, seeds: range, write: int) -> NoReturn:
    """Load the artifact of each seed, and report."""
    code = 1
    try:
        out = os.fdopen(write, "w", encoding="utf-8", buffering=1)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        warnings.simplefilter("ignore")
        os.environ["XDG_CACHE_HOME"] = str(root / "cache")
        folder = root / "read"
        watch = Watch(folder, root / "cache")
        sys.addaudithook(watch)
        signal.signal(signal.SIGALRM, _hang)
        _write(pair[0], folder)
        with watch.learning():
            content = kind.load(folder)
        rmtree(folder)
        _write(pair[1], folder)
        expected = _Expected(content, kind.load(folder), _digests(pair[0]))
        for seed in range(-WARM_UP, 0):  # imports what errors need
            _outcome(kind, _mutated(kind, name, pair, seed)[1], folder, expected, watch)
        most = _kilobytes("VmSize") * 1024 + ADDRESSES
        setrlimit(RLIMIT_AS, (most, most))
        for seed in seeds:
            names, files = _mutated(kind, name, pair, seed)
            outcome, share = _outcome(kind, files, folder, expected, watch)
            outcome = outcome if outcome in OUTCOMES else f"{names}: {outcome}"
            out.write(json.dumps([seed, outcome, share]) + "\n")
        code = 0
    except BaseException as error:  # noqa: BLE001 - the parent tells it
        (root / "child.txt").write_text(f"{type(error).__name__}: {str(error)[:300]} at {_last_line(error)}")
    finally:
        os._exit(code)


def _outcome(kind: Kind, files: Damaged, folder: Path, expected: _Expected, watch: Watch) -> tuple[str, float]:
    rmtree(folder)
    rmtree(watch.cache, ignore_errors=True)
    size = _write(files, folder)
    allowed = TIMES * size + ALLOWANCE
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _kilobytes("VmRSS")
    with watch.listening() as noticed:
        outcome = _loaded(kind, files, folder, expected)
    share = 1024 * max(0, _kilobytes("VmHWM") - before) / allowed
    if noticed:
        outcome = "; ".join(noticed[:3])
    elif share > 1 and outcome in OUTCOMES:
        outcome = f"{share * allowed / 1e6:.0f} MB of memory for {size} bytes"
    return outcome, share


def _loaded(kind: Kind, files: Damaged, folder: Path, expected: _Expected) -> str:
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        again = kind.load(folder)
    except ValueError as error:
        return _error_fault(error, folder) or "error"
    except _Hang:
        return f"took longer than {SECONDS} s"
    except BaseException as error:  # noqa: BLE001 - every other exception is a fault
        return f"{type(error).__name__}: {str(error)[:300]!r} at {_last_line(error)}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if again == expected.content:
        return "equal"
    # A whole other artifact may be in the place of the file; without its digest a file is one of an older version.
    if kind.why or again == expected.other or _digests(files) < expected.digests:
        return "other"
    return f"other content without an error: {_difference(expected.content, again)}"


def _digests(files: Damaged | Files) -> int:
    """Number of entries of files that hold a digest."""
    return sum(content.count(DIGEST.encode()) for content in files.values() if isinstance(content, bytes))


def _error_fault(error: ValueError, folder: Path) -> str:
    """What is wrong with an error, or an empty text."""
    text, cause = str(error), error
    while cause is not None:
        if isinstance(cause, MemoryError) or "allocate" in str(cause):
            return f"memory ran out: {str(cause)[:200]!r}"
        cause = cause.__cause__ or cause.__context__
    problems = {
        "does not name the file": str(folder) not in text,
        "has several lines": len(text.splitlines()) != 1,
        f"has {len(text)} characters": len(text.replace(str(folder), "")) > LONGEST,
        "has a trace": "Traceback" in text or 'File "' in text or " object at 0x" in text,
        "cannot be printed": not _printable(text),
    }
    wrong = [problem for problem, there in problems.items() if there]
    return f"the error {', '.join(wrong)}: {text[:300]!r} at {_last_line(error)}" if wrong else ""


def _printable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return all(sign >= " " for sign in text)


def _last_line(error: BaseException) -> str:
    trace, place = error.__traceback__, ""
    while trace is not None:
        code = trace.tb_frame.f_code
        if "interp_transfer" in code.co_filename or not place:
            place = f"{Path(code.co_filename).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


def _difference(one: Any, other: Any) -> str:
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        return next((_difference(a, b) for a, b in zip(one, other, strict=True) if a != b), "")
    return f"{str(one)[:80]} -> {str(other)[:80]}"


def _hang(*_: object) -> NoReturn:
    raise _Hang


def _kilobytes(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise AssertionError(f"the kernel does not report {name}")
