"""The explorer's pages: the one that is served, and its last state without scripts."""

import re
from functools import cache
from pathlib import Path

from markupsafe import Markup

from interp_transfer.explorer.session import Session
from interp_transfer.models.identity import identity
from interp_transfer.reporting.render import render, source, write_page

ROOT = ".it-explorer"


@cache
def style() -> str:
    """The style sheet of everything inside an explorer: it changes nothing else on a page.

    The colours are those of all pages, light or dark as the system is, or as the page around the explorer is.
    """
    light, dark = re.findall(r":root (\{[^}]*\})", source("page.css"))[:2]
    return (
        f"{ROOT} {light}\n@media (prefers-color-scheme: dark) {{ {ROOT}:not([data-theme=light]) {dark} }}\n"
        f"{ROOT}[data-theme=dark] {dark}\n{ROOT}[data-theme] {{ color-scheme: inherit; }}\n{source('live.css')}"
    )


def live_page(session: Session) -> str:
    """The page that talks to the server that it comes from."""
    return render("live.html.j2", scripts=["live.js"], connect=True, title=title(session), css=Markup(style()))


def title(session: Session) -> str:
    """The names of the models."""
    return " \u2192 ".join(identity(made.value).name for made in session.models.values())


def last_state(session: Session, mark: str = "", *, with_style: bool = True) -> str:
    """The last state as a piece of HTML without scripts.

    Args:
        session: whose.
        mark: a class of the element, by which a live explorer hides it.
        with_style: with the style sheet; a page that holds it already needs none.
    """
    last = session.last
    return render(
        "live_last.html.j2",
        mark=mark,
        css=Markup(style()) if with_style else "",
        models=title(session),
        slow=session.about()["slow"],
        last=last,
        settings=_settings(session) if last else "",
        reading=next((each["what"] for each in last.get("read", {}).values()), ""),
    )


def save(session: Session, path: str | Path) -> Path:
    """Write the last state as a page that needs neither a kernel nor a network.

    Raises:
        ValueError: when it cannot be written.
    """
    piece = Markup(last_state(session, with_style=False))
    return write_page(render("live_saved.html.j2", title=title(session), css=Markup(style()), last=piece), Path(path))


def _settings(session: Session) -> str:
    state = session.state
    if session.slow:
        return "completions made before"
    blocks = {side: getattr(state, f"{side}_block") for side in session.models}
    where = [f"block {block} of the {side}" for side, block in blocks.items() if block is not None]
    return "; ".join(
        [f"added: {state.item}", f"strength {state.strength:g}", f"at tokens: {state.positions}", *where, "greedy decoding"]
    )
