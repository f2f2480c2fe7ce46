"""Sphinx configuration: Markdown pages, the notebooks as a tutorial, and an API reference from the docstrings."""

import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

project = "interp_transfer"
author = "The interp_transfer authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = "interp_transfer"
html_theme_options = {"top_of_page_buttons": []}
html_show_copyright = False
html_use_index = False
html_static_path = ["static"]
html_css_files = ["pages.css"]
exclude_patterns = ["_build", "made/*.md"]  # these are parts of pages
autodoc_typehints = "none"  # shapes stand in the signatures and are explained in the docstrings
autodoc_member_order = "bysource"
napoleon_use_ivar = True  # attributes as a list, not an entry for each
myst_heading_anchors = 3


def tutorial(_app: Any) -> None:
    """Writes the notebooks' pages, before Sphinx looks for documents."""
    from notebooks import write_pages

    write_pages(HERE.parent / "examples", HERE / "tutorial")


def picture(_app: Any) -> None:
    """Draws the picture of the house from the imports as they are."""
    import house

    (HERE / "made" / "house.svg").write_text(house.picture())


def script(app: Any, exception: Exception | None) -> None:
    """Puts plotly's script beside the pages, which the figures of the tutorial need: built pages fetch nothing."""
    from plotly.offline import get_plotlyjs

    if exception is None and app.builder.format == "html":
        (Path(app.outdir) / "_static" / "plotly.min.js").write_text(get_plotlyjs(), encoding="utf-8")


ACCESSIBLE = {
    'class="caption" role="heading">': 'class="caption" role="heading" aria-level="2">',
    '<aside class="sidebar-drawer">': '<aside class="sidebar-drawer" aria-label="All pages">',
    '<aside class="toc-drawer">': '<aside class="toc-drawer" aria-label="This page">',
    '<div class="highlight"><pre>': '<div class="highlight"><pre tabindex="0">',
    '<div class="table-wrapper colwidths-auto docutils container">': (
        '<div class="table-wrapper colwidths-auto docutils container" tabindex="0">'
    ),
}
"""What Sphinx and the theme leave out: levels of headings, names of landmarks, and that a key scrolls what is too wide."""


def accessible(app: Any, exception: Exception | None) -> None:
    """Adds to the pages what axe misses in them."""
    if exception is None and app.builder.format == "html":
        for page in Path(app.outdir).rglob("*.html"):
            text = page.read_text(encoding="utf-8")
            for old, new in ACCESSIBLE.items():
                text = text.replace(old, new)
            page.write_text(text, encoding="utf-8")


def setup(app: Any) -> None:
    """Sphinx calls this."""
    app.connect("builder-inited", tutorial)
    app.connect("builder-inited", picture)
    app.connect("build-finished", script)
    app.connect("build-finished", accessible)
