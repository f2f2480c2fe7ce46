"""The notebooks of examples/: run them, and show what they have stored as pages of the tutorial.

    python docs/notebooks.py examples/01*.ipynb ...

runs notebooks and stores their outputs so that they can be read without a network and without a kernel: a PNG beside each
interactive figure, no progress bars, no scripts. conf.py calls `write_pages` before Sphinx looks for documents, which runs
nothing. Pages go to docs/tutorial/, which git ignores. Tables are pandas' own, widgets the HTML that they are; a plotly figure
is drawn again from its stored JSON, by the plotly.js of the installed package, so that the built pages fetch nothing.
"""

import base64
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import plotly.io

REPOSITORY = "OWNER/interp-transfer"
"""The public repository as GitHub names it. The notebooks' links to Colab and their installation are made from it."""
COLAB = "[Open in Colab](https://colab.research.google.com/github/{repository}/blob/main/examples/{name})"
INSTALL = """import sys

if "google.colab" in sys.modules:  # the package is not there yet
    %pip install --quiet "interp-transfer[notebooks,organisms] @ git+https://github.com/{repository}"
"""
PLOTLY = "application/vnd.plotly.v1+json"
WIDGET = "application/vnd.jupyter.widget-view+json"
SCRIPT = '<script src="../_static/plotly.min.js"></script>'
WIDTH = 760
"""Width of a figure's PNG in CSS pixels."""


def fenced(opening: str, text: str) -> str:
    """A fence that nothing in the text can close."""
    ticks = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{ticks}{opening}\n{text}\n{ticks}"


def html_block(html: str, style: str = "notebook-html") -> str:
    """HTML that the page holds as it is."""
    return fenced("{raw} html", f'<div class="{style}">\n{html}\n</div>')


def table_block(html: str) -> str:
    """A pandas table in the looks of the theme, in place of pandas' own."""
    html = re.sub(r"<style scoped>.*?</style>", "", html, flags=re.DOTALL)
    html = html.replace('border="1" class="dataframe"', 'class="dataframe docutils align-default"')
    return html_block(html, "table-wrapper docutils container notebook-table")


def figure_block(figure: dict[str, Any], name: str) -> str:
    """A plotly figure, drawn by the script that `SCRIPT` loads."""
    drawn = plotly.io.from_json(json.dumps(figure), skip_invalid=True)
    html = plotly.io.to_html(drawn, full_html=False, include_plotlyjs=False, div_id=name, config={"displayModeBar": False})
    return html_block(html)


def output_blocks(output: dict[str, Any], name: str) -> Iterator[str]:
    """What a cell printed or showed: the richest form that needs no network."""
    data = output.get("data", {})
    html, text = ("".join(data.get(kind, "")) for kind in ("text/html", "text/plain"))
    text = text or "".join(output.get("text", ""))
    if PLOTLY in data:
        yield figure_block(data[PLOTLY], name)
    elif 'class="dataframe"' in html:
        yield table_block(html)
    elif html and not re.search(r"https?://|<script", html):
        yield html_block(html)
    elif text.strip():
        yield fenced("{code-block} text\n:class: notebook-output\n", text.rstrip())


def page_of(notebook: Path) -> str:
    """A notebook as MyST Markdown.

    Raises:
        ValueError: If it is not of nbformat 4, or a cell with code has failed or was never run.
    """
    held = json.loads(notebook.read_text(encoding="utf-8"))
    if held.get("nbformat") != 4:
        raise ValueError(f"{notebook.name} is of nbformat {held.get('nbformat')}, not of 4: save it anew")
    said = f"*This page is the notebook `examples/{notebook.name}`, with the outputs that are stored in it.*"
    blocks: list[str] = []
    for i, cell in enumerate(held["cells"]):
        source = "".join(cell["source"]).strip()
        if cell["cell_type"] == "markdown":
            title, _, rest = source.partition("\n")
            blocks += [source] if blocks else [title, said, rest.strip()]
        elif cell["cell_type"] == "code" and source:
            if cell["execution_count"] is None or any(o["output_type"] == "error" for o in cell["outputs"]):
                raise ValueError(f"{notebook.name}, cell {i}: not run, or failed: run the notebook again")
            blocks.append(fenced("python", source))
            for j, output in enumerate(cell["outputs"]):
                blocks += output_blocks(output, f"figure-{i}-{j}")
    if any(PLOTLY in o.get("data", {}) for cell in held["cells"] for o in cell.get("outputs", [])):
        blocks.insert(2, fenced("{raw} html", SCRIPT))
    return "\n\n".join(block for block in blocks if block) + "\n"


def write_pages(notebooks: Path, folder: Path) -> None:
    """Writes a page for each notebook; pages that are as they should be are left alone, others' go.

    Args:
        notebooks: Folder of the notebooks.
        folder: Where pages go.
    """
    pages = {f"{path.stem}.md": page_of(path) for path in sorted(notebooks.glob("*.ipynb"))}
    folder.mkdir(exist_ok=True)
    for path in folder.glob("*.md"):
        if path.name not in pages:
            path.unlink()
    for name, text in pages.items():
        path = folder / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def addressed(notebook: dict[str, Any], name: str) -> None:
    """Gives a notebook's first two cells the link to Colab and the installation there, of `REPOSITORY`."""
    first, second = notebook["cells"][:2]
    title, *rest = [part for part in "".join(first["source"]).split("\n\n") if not part.startswith("[Open in Colab]")]
    first["source"] = "\n\n".join([title, COLAB.format(repository=REPOSITORY, name=name), *rest])
    code = re.sub(r'import sys\n\nif "google\.colab".*?\n    %pip [^\n]*\n+', "", "".join(second["source"]), flags=re.DOTALL)
    second["source"] = INSTALL.format(repository=REPOSITORY) + "\n" + code


def readable(outputs: list[Any]) -> list[Any]:
    """A cell's outputs as they are stored: a PNG beside each plotly figure, and no progress bars."""
    kept = []
    for output in outputs:
        data = output.get("data", {})
        if WIDGET in data or output.get("name") == "stderr":
            continue
        if PLOTLY in data:
            data.pop("text/html", None)
            data |= {"image/png": picture(data[PLOTLY]), "text/plain": "a plotly figure"}
            output.setdefault("metadata", {})["image/png"] = {"width": WIDTH}  # the file has twice as many pixels
        kept.append(output)
    return kept


def picture(figure: dict[str, Any]) -> str:
    """A plotly figure as PNG in base64, on white, with its title above it."""
    from interp_transfer.reporting.png_export import png

    drawn: Any = plotly.io.from_json(json.dumps(figure), skip_invalid=True)
    title = drawn.layout.title.text or ""
    margin = {"t": max(30, int(drawn.layout.margin.t or 80) - 30)} if title else {}
    return base64.b64encode(png(drawn.update_layout(title=None, margin=margin), title, "", WIDTH)).decode()


def run(path: Path) -> None:
    """Runs a notebook and stores it with its outputs.

    Raises:
        nbclient.exceptions.CellExecutionError: If a cell fails; the file is left as it was.
    """
    import nbformat
    from nbclient import NotebookClient

    os.environ["PLOTLY_RENDERER"] = "plotly_mimetype"  # figures as JSON, without a script
    notebook = nbformat.read(path, as_version=4)
    addressed(notebook, path.name)
    NotebookClient(notebook, timeout=1800, kernel_name="python3", record_timing=False, coalesce_streams=True).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = readable(cell.outputs)
    notebook.metadata.pop("widgets", None)
    nbformat.write(notebook, path)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        run(Path(name))
