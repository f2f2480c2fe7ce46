"""The order of imports, leftwards only, and that importing the package costs next to nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import interp_transfer

ORDER = (
    "plots",
    "data",
    "models",
    "activations",
    "interventions",
    "evaluation",
    "features",
    "mapping",
    "steering",
    "reporting",
    "experiment",
    "studies",
    "reproduction",
    "cli",
)
ROOT = Path(interp_transfer.__file__).parent
PACKAGE = "interp_transfer"


def part_of(file: Path) -> str:
    """Which of the parts a file belongs to, or "" for the package's own __init__."""
    first = file.relative_to(ROOT).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def imported(source: str, package: str) -> set[str]:
    """The parts that a module imports, wherever in it: in functions and under TYPE_CHECKING too.

    Args:
        source: its text.
        package: the package that it is in, for relative imports.
    """
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names |= {f"{module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func):
            names |= {arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)}
    return {name.split(".")[1] for name in names if name.startswith(f"{PACKAGE}.")}


FILES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=[str(f.relative_to(ROOT)) for f in FILES])
def test_imports_go_leftwards(file: Path) -> None:
    part = part_of(file)
    if not part:
        return
    assert part in ORDER, f"{file.name} is in no part of the design: {ORDER}"
    package = ".".join([PACKAGE, *file.relative_to(ROOT).parent.parts])
    allowed = {*ORDER[: ORDER.index(part) + 1], "__version__"}
    wrong = imported(file.read_text(), package) - allowed
    assert not wrong, f"{file.relative_to(ROOT)} imports {sorted(wrong)}, which lie to the right of {part}"


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
    assert imported(source, f"{PACKAGE}.models") == {"mapping"}


def test_no_module_imports_the_package_itself() -> None:
    """It would go around the order: every name is there."""
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert PACKAGE not in names, file


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_imports_nothing_heavy() -> None:
    heavy = ("torch", "transformers", "transformer_lens", "sae_lens", "numpy", "pandas", "plotly", "sklearn", "scipy", "rich")
    out = run(f"import sys, interp_transfer; print([m for m in {heavy!r} if m in sys.modules])")
    assert out == "[]"


def test_the_public_names_are_there() -> None:
    out = run(
        "import interp_transfer as it\n"
        "missing = [n for n in it.__all__ if getattr(it, n, None) is None]\n"
        "print(missing, sorted(it.__all__) == it.__all__, set(it.__all__) <= set(dir(it)))"
    )
    assert out == "[] True True"
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        interp_transfer.nonsense  # noqa: B018
