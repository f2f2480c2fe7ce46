"""Render pages from the files in ``templates/``.

A page is one file that fetches nothing: the content security policy in its head forbids it. The policy names the hashes of the
page's own scripts, so no other script runs, whatever text a model wrote. Every string is made visible (`visible`) and escaped.

Data and the plotting library are packed (gzip, base64), which makes a page a third as large. ``page.js`` unpacks them; the
browser runs the library only if its hash is in the policy.
"""

import base64
import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.graph_objects import Figure
from plotly.offline import get_plotlyjs

from interp_transfer.escape import marked_breaks, visible, without_surrogates
from interp_transfer.io import write_files
from interp_transfer.plots.style import glyph, percent
from interp_transfer.reporting.completions import readable
from interp_transfer.reporting.formats import fixed, p_value, perplexity, points, short, strength


def render(
    template: str,
    *,
    figures: Mapping[str, Figure] | None = None,
    scripts: Sequence[str] = (),
    blocks: Mapping[str, Any] | None = None,
    connect: bool = False,
    **values: Any,
) -> str:
    """Fill a template.

    Args:
        template: name of a file in ``templates/``.
        figures: figures by name, drawn by the macro ``plot``; plotly is added when there are any.
        scripts: names of further files in ``templates/`` that run at the end of the page, in order.
        blocks: data for these scripts, by name.
        connect: let the scripts talk to the server that the page comes from.
        values: variables of the template.
    """
    data = {name: json.loads(str(figure.to_json())) for name, figure in (figures or {}).items()} | dict(blocks or {})
    sources = [source(name) for name in (*(["page.js"] if data else []), *scripts)]
    library = get_plotlyjs() if figures else ""
    return (
        _environment()
        .get_template(template)
        .render(
            values,
            policy=_policy([*sources, library] if library else sources) + ("; connect-src 'self'" if connect else ""),
            data=packed(json.dumps(data, ensure_ascii=False, separators=(",", ":"))) if data else "",
            library=_packed_library() if library else "",
            scripts=list(map(Markup, sources)),
        )
    )


def packed(text: str) -> str:
    """Return a text as base64 of its gzip stream, the same at any time, without halves of surrogate pairs."""
    return base64.b64encode(gzip.compress(without_surrogates(text).encode(), 9, mtime=0)).decode()


@cache
def _packed_library() -> str:
    return packed(get_plotlyjs())


def write_page(text: str, out: Path) -> Path:
    """Write a page; its folder is made if it is missing, an older page is replaced at once.

    Raises:
        ValueError: when it cannot be written.
    """
    [path] = write_files({out: text.encode()})
    return path


def source(name: str) -> str:
    """The text of a file in ``templates/``."""
    return (Path(__file__).parent / "templates" / name).read_text(encoding="utf-8")


def _policy(sources: Sequence[str]) -> str:
    hashes = [base64.b64encode(hashlib.sha256(source.encode()).digest()).decode() for source in sources]
    allowed = " ".join(f"'sha256-{each}'" for each in hashes) or "'none'"
    return (
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data: blob:; style-src 'unsafe-inline'; "
        f"script-src {allowed}"
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("interp_transfer.reporting"),
        autoescape=True,
        finalize=lambda value: visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for function in (glyph, percent, short, fixed, strength, points, perplexity, p_value, marked_breaks, readable):
        environment.filters[function.__name__] = function
    return environment
