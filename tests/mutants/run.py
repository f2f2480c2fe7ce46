"""Apply each fault of ``mutants.toml`` to a copy of the project and run its tests (``make mutants``).

Exits with 1 unless at least 90% are caught. A fault is caught if its tests fail; without the fault they pass.
"""

import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from tqdm import tqdm

ROOT = Path(__file__).parents[2]
ENOUGH = 0.9


def mutants() -> list[dict]:
    """The faults, each with its name, file, old and new text, and tests."""
    return tomllib.loads(Path(__file__).with_name("mutants.toml").read_text("utf-8"))["mutant"]


def passes(copy: Path, tests: list[str]) -> bool:
    """Whether tests pass in a copy of the project."""
    run = [sys.executable, "-m", "pytest", "-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", *tests]
    return subprocess.run(run, cwd=copy, capture_output=True, check=False).returncode == 0


def main() -> int:
    """Try every fault; print those that no test noticed."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "project"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv", "build", "__pycache__", "*.egg-info"))
        every = mutants()
        if not passes(copy, sorted({test for mutant in every for test in mutant["tests"]})):
            print("error: the tests fail without any fault: mend them first", file=sys.stderr)
            return 2
        survivors = []
        for mutant in tqdm(every, desc="faults", unit="fault"):
            file = copy / mutant["file"]
            right = file.read_text("utf-8")
            file.write_text(right.replace(mutant["old"], mutant["new"]), encoding="utf-8")
            if passes(copy, mutant["tests"]):
                survivors.append(mutant["name"])
            file.write_text(right, encoding="utf-8")
    caught = len(every) - len(survivors)
    print(f"{caught} of {len(every)} faults are caught")
    for name in survivors:
        print(f"survived: {name}")
    return 0 if caught >= ENOUGH * len(every) else 1


if __name__ == "__main__":
    sys.exit(main())
