"""Sphinx configuration: Markdown pages and an API reference from the docstrings."""

project = "interp_transfer"
author = "The interp_transfer authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = "interp_transfer"
exclude_patterns = ["_build", "made/*.md"]  # these are parts of pages
autodoc_typehints = "none"  # shapes stand in the signatures and are explained in the docstrings
autodoc_member_order = "bysource"
myst_heading_anchors = 3
