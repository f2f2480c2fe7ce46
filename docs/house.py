"""The house: lines by folder (`make size`), and the picture of docs/architecture.md, both read off the source.

python docs/house.py          prints the lines of Python by folder
python docs/house.py FILE.svg draws which folder imports which, in the order of imports
"""

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1] / "interp_transfer"
LEAVES = ("organisms", "paper")
CELL, LEFT, TOP = 24, 180, 110
HEAD = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">'
LABEL = '<text x="{x}" y="{y}" text-anchor="{anchor}" class="{kind}" transform="{turn}">{text}</text>'
SQUARE = '<rect x="{x}" y="{y}" width="{side}" height="{side}" class="{kind}"><title>{title}</title></rect>'


def rows() -> list[str]:
    """The folders and files on top, in the order of imports, as tests/test_imports.py states it."""
    tree = ast.parse((ROOT.parent / "tests" / "test_imports.py").read_text())
    values = {n.targets[0].id: n.value for n in tree.body if isinstance(n, ast.Assign) and isinstance(n.targets[0], ast.Name)}
    return [*ast.literal_eval(values["ROWS"]), *ast.literal_eval(values["LEAVES"])]


def files(row: str) -> list[Path]:
    """The Python files of a row."""
    return sorted((ROOT / row).rglob("*.py")) if (ROOT / row).is_dir() else [ROOT / f"{row}.py"]


def lines(row: str) -> int:
    """Lines of Python of a row."""
    return sum(len(file.read_text().splitlines()) for file in files(row))


def imports(row: str) -> set[str]:
    """The other rows that a row imports."""
    nodes = (node for file in files(row) for node in ast.walk(ast.parse(file.read_text())))
    modules = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    return {m.split(".")[1] for m in modules if m.startswith("interp_transfer.")} - {row}


def size() -> str:
    """A table of lines by folder."""
    count = {row: lines(row) for row in rows()} | {"__init__": lines("__init__")}
    core = sum(n for row, n in count.items() if row not in LEAVES)
    whole = {"core": core, "all": sum(count.values())}
    return "\n".join(f"{row:15s} {n:6,d}" for row, n in {**count, **whole}.items())


def picture() -> str:
    """A matrix: each folder is a row and a column, and a square marks that the row imports the column."""
    order = rows()
    width, height = LEFT + CELL * len(order) + 20, TOP + CELL * len(order) + 20
    parts = []
    for i, row in enumerate(order):
        y, kind = TOP + CELL * i, "leaf" if row in LEAVES else "core"
        parts.append(LABEL.format(x=LEFT - 60, y=y + 16, anchor="end", kind="row", turn="", text=row))
        parts.append(LABEL.format(x=LEFT - 12, y=y + 16, anchor="end", kind="note", turn="", text=f"{lines(row):,}"))
        x = LEFT + CELL * i + 16
        parts.append(LABEL.format(x=x, y=TOP - 8, anchor="start", kind="row", turn=f"rotate(-60 {x} {TOP - 8})", text=row))
        for k, target in enumerate(order):
            mark = "self" if k == i else kind if target in imports(row) else "none"
            parts.append(SQUARE.format(x=LEFT + CELL * k, y=y, side=CELL - 2, kind=mark, title=f"{row} imports {target}"))
    style = (ROOT.parent / "docs" / "static" / "house.css").read_text()
    parts = [HEAD.format(width=width, height=height), f"<style>{style}</style>", *parts, "</svg>", ""]
    return "\n".join(parts)


if __name__ == "__main__":
    if sys.argv[1:]:
        Path(sys.argv[1]).write_text(picture())
    else:
        sys.stdout.write(size() + "\n")
