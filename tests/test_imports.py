"""The order of imports, upwards only, that the leaves are leaves, and that importing the package costs next to nothing."""

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import interp_transfer

ROWS = (
    "escape",
    "names",
    "io",
    "extras",
    "progress",
    "stats",
    "plugins",
    "plots",
    "prompts",
    "models",
    "activations",
    "interventions",
    "vectors",
    "mapping",
    "features",
    "transfer",
    "evaluation",
    "search",
    "finetuning",
    "reporting",
    "studies",
    "deployment",
    "explorer",
    "cli",
)
"""The core. A file imports from its own row and the rows above it."""

LEAVES = ("organisms", "paper")
"""Guests of the core: they import it, and nothing imports them. They register by an entry point, see ``plugins``."""

ROOT = Path(interp_transfer.__file__).parent
PACKAGE = "interp_transfer"
FILES = sorted(ROOT.rglob("*.py"))


def row_of(file: Path) -> str:
    """The row or leaf that a file belongs to, or "" for the package's own __init__."""
    first = file.relative_to(ROOT).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def imported(source: str, package: str, *, deferred: bool = True) -> set[str]:
    """The modules and names that a module imports, dotted.

    Args:
        source: its text.
        package: the package that it is in, for relative imports.
        deferred: also what it imports inside functions and under TYPE_CHECKING.
    """
    tree = ast.parse(source)
    nodes = list(ast.walk(tree)) if deferred else tree.body
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names |= {f"{module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func):
            names |= {arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)}
    return {name for name in names if name.startswith(f"{PACKAGE}.")}


def rows_in(source: str, package: str) -> set[str]:
    return {name.split(".")[1] for name in imported(source, package)}


@pytest.mark.parametrize("file", FILES, ids=[str(f.relative_to(ROOT)) for f in FILES])
def test_imports_go_upwards(file: Path) -> None:
    row = row_of(file)
    if not row:
        return
    assert row in (*ROWS, *LEAVES), f"{file.name} is in no row of the design: {ROWS}, {LEAVES}"
    package = ".".join([PACKAGE, *file.relative_to(ROOT).parent.parts])
    above = ROWS if row in LEAVES else ROWS[: ROWS.index(row)]
    wrong = rows_in(file.read_text(), package) - {*above, row, "__version__"}
    assert not wrong, f"{file.relative_to(ROOT)} imports {sorted(wrong)}, which are not above {row}"


def test_no_cycles_between_modules() -> None:
    modules = {".".join([PACKAGE, *f.relative_to(ROOT).with_suffix("").parts]).removesuffix(".__init__"): f for f in FILES}
    graph = {}
    for name, file in modules.items():
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        there = imported(file.read_text(), package, deferred=False)
        graph[name] = {target for one in there for target in (one, one.rpartition(".")[0]) if target in modules} - {name}
    graph = {name: {t for t in targets if not name.startswith(f"{t}.")} for name, targets in graph.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError with the modules of a cycle


@pytest.mark.parametrize(
    "source",
    [
        "import interp_transfer.mapping.fit",
        "from interp_transfer.mapping import fit",
        "from interp_transfer import mapping",
        "def f():\n    from interp_transfer.mapping.fit import fit",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from interp_transfer.mapping.fit import fit",
        "from ..mapping import fit",
        "from .. import mapping",
        "import importlib\nimportlib.import_module('interp_transfer.mapping.fit')",
    ],
)
def test_the_test_sees_every_way_of_importing(source: str) -> None:
    assert rows_in(source, f"{PACKAGE}.models") == {"mapping"}


def test_no_module_imports_the_package_itself() -> None:
    """It would bypass the order: every name is there."""
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert PACKAGE not in names, file


@pytest.mark.parametrize("file", FILES, ids=[str(f.relative_to(ROOT)) for f in FILES])
def test_no_file_is_over_400_lines(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= 400


def test_the_core_names_no_guest() -> None:
    """No organism, no leaf: what the core knows of them it learns from plugins."""
    for file in FILES:
        if row_of(file) in {*ROWS, ""} and file.name != "plugins.py":
            text = file.read_text()
            lines = [line.strip() for line in text.splitlines() if re.search(r"organism|micro-|paper\.\w", line)]
            assert not lines, f"{file.relative_to(ROOT)}: {lines[0]}"


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_imports_nothing_heavy() -> None:
    heavy = ("torch", "transformers", "transformer_lens", "sae_lens", "numpy", "pandas", "plotly", "sklearn", "scipy", "rich")
    out = run(f"import sys, interp_transfer; print([m for m in {heavy!r} if m in sys.modules])")
    assert out == "[]"


def test_the_public_names_are_there_and_nothing_else() -> None:
    assert all(getattr(interp_transfer, name, None) is not None for name in interp_transfer.__all__)
    assert sorted(interp_transfer.__all__) == interp_transfer.__all__
    assert set(dir(interp_transfer)) - set(interp_transfer.__all__) <= {*LEAVES, "models"}, (
        "models is a plugin of the core's own"
    )
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        interp_transfer.nonsense  # noqa: B018


def test_a_plugin_is_reachable_by_its_name() -> None:
    if not (ROOT / "organisms").is_dir():
        pytest.skip("organisms/ was removed")
    assert interp_transfer.organisms.__name__ == "interp_transfer.organisms"
