"""Foreign text for each kind of output: visible, Markdown, HTML of notebooks.

Prompts, completions, reasons of judges, and names of files and models may hold anything. Pages (``reporting.render``), figures
(``plots.style``) and CSV (``reporting.csv_export``) have escapes of their own. All but CSV show characters that would be hidden
as `visible` does.
"""

import html
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

_JOINERS = "\u200c\u200d"  # emoji and some scripts need them
_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
_MARKDOWN = re.compile(r"[\\`*|$~]|(?<![^\W_])_|_(?![^\W_])|(?<=\])[(\[:]|^[#+\-](?=[\s#])|^>|^(?:\d+)[.)](?=\s)")
"""What Markdown reads as markup: code, emphasis, cells, formulas, links, and at the beginning headings, lists and quotes."""
_ENTITY = re.compile(r"&(?=#?\w+;)")


def visible(text: str) -> str:
    """Return a text in which nothing is hidden and nothing reorders its surroundings.

    Control characters become control pictures. Characters that change the direction of writing, have no width or break lines
    become their code points in brackets. Line breaks and tabs stay.
    """
    if text.isprintable() and text.isascii():
        return text
    return "".join(map(_visible, text))


def one_line(text: str) -> str:
    """Return a visible text on one line."""
    return " ".join(visible(text).split())


def marked_breaks(text: str) -> str:
    """Return a text in which every line break is preceded by an arrow."""
    return text.replace("\n", "\u21b5\n")


def shown(text: str) -> str:
    """Return a token's text in which line breaks and tabs are visible as well."""
    return marked_breaks(visible(text)).replace("\t", "\u21e5\t")


def without_surrogates(text: str) -> str:
    """Return a text that can be encoded as UTF-8: halves of surrogate pairs are replaced by U+FFFD."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


def markdown(text: str) -> str:
    """Return a line of Markdown that shows a text: no cell or line ends in it, and no markup or HTML begins in it."""
    line = re.sub(r"[\n\t]", " ", visible(text))
    line = _MARKDOWN.sub(lambda match: f"{match[0][:-1]}\\{match[0][-1]}", _ENTITY.sub("&amp;", line))
    return line.replace("<", "&lt;")


def markdown_code(text: str) -> str:
    """Return a text as code in a line of Markdown."""
    line = re.sub(r"[\n\t]", " ", visible(text))
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    return f"{fence} {line} {fence}" if len(fence) > 1 else f"`{line}`"


def data_frame(rows: Sequence[Mapping[str, Any]]) -> "pd.DataFrame":
    """Return rows as a frame, in whose strings pandas accepts no halves of surrogate pairs."""
    import pandas as pd

    def plain(cell: Any) -> Any:
        return without_surrogates(cell) if isinstance(cell, str) else cell

    return pd.DataFrame([{plain(name): plain(cell) for name, cell in row.items()} for row in rows])


def html_table(title: str, frame: "pd.DataFrame", **options: Any) -> str:
    """Return a title and a frame as HTML for a notebook, which reads no formulas in it.

    Args:
        title: above the table.
        frame: numbers are rounded to three decimals.
        options: of ``DataFrame.to_html``.
    """

    def plain(cell: Any) -> Any:
        return visible(cell) if isinstance(cell, str) else cell

    shown_frame = frame.round(3).map(plain).rename(index=plain, columns=plain)
    table = shown_frame.to_html(escape=True, **options)
    return f'<div class="tex2jax_ignore mathjax_ignore"><p><b>{html.escape(visible(title))}</b></p>{table}</div>'


def _visible(char: str) -> str:
    if char in "\n\t" or char in _JOINERS or unicodedata.category(char) not in _HIDDEN:
        return char
    code = ord(char)
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"\u27e8U+{code:04X}\u27e9"
