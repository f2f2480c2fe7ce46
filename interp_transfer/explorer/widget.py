"""The explorer in a notebook, by anywidget: JupyterLab, VS Code and Colab.

A cell has two outputs, the live widget and its last state as plain HTML, which the widget hides while it is there. The plain
one is brought up to date after each run, so a notebook that is saved and opened without a kernel shows what was seen last.
"""

import sys
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

from interp_transfer.escape import visible
from interp_transfer.explorer.opening import ExploreOptions, session
from interp_transfer.explorer.page import last_state, save, style, title
from interp_transfer.explorer.running import Running
from interp_transfer.explorer.session import Session
from interp_transfer.extras import require
from interp_transfer.prompts.chats import PromptLike
from interp_transfer.reporting.render import source as template
from interp_transfer.reporting.widgets import VIEW, is_interactive

_OPEN: "dict[str, Explorer]" = {}
"""The explorer of each cell that has one, by the cell's id: when the cell runs again, the one before it is closed."""


class Explorer:
    """The result of ``explore``, displayed by a notebook.

    Attributes:
        session: what the page talks to; it can be driven from Python as well.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self._mark = f"interp-transfer-{uuid4().hex[:12]}"
        self._handle: Any = None

    def run(self, **changes: Any) -> dict[str, str]:
        """Generate without a page: change settings, and return the completions by panel.

        Args:
            changes: fields of `explorer.state.State`, such as ``strength=2.0``.

        Raises:
            ValueError: for settings that make no sense, and whatever generating raises.
        """
        errors: list[str] = []

        def emit(event: Mapping[str, Any]) -> None:
            if event["type"] == "error":
                errors.append(event["text"])

        self.session.handle({"type": "run", "state": {**self.session.state.to_dict(), **changes}}, emit)
        if errors:
            raise ValueError(errors[0])
        return dict(self.session.last["texts"])

    def save(self, path: str | Path) -> Path:
        """Write the last state as a page that needs neither a kernel nor a network."""
        if not self.session.last:
            self.run()
        return save(self.session, path)

    @property
    def code(self) -> str:
        """The Python that does what the last run did."""
        return self.session.last.get("code", "")

    def close(self) -> None:
        """End what is running, and the widget."""
        if "_widget" in self.__dict__:
            self._running.close()
            self._widget.close()
            del self.__dict__["_widget"], self.__dict__["_running"]

    def _repr_html_(self) -> str:
        if not self.session.last:
            self.session.handle({"type": "run", "state": self.session.state.to_dict()}, lambda _: None)
        return last_state(self.session, self._mark)

    def _ipython_display_(self) -> None:
        """The last state, and the live widget that hides it. A batch run has the former alone, with the first completions."""
        display = require("IPython.display", "notebooks", "a view in a notebook").display
        if not is_interactive():
            display({"text/plain": repr(self), "text/html": self._repr_html_()}, raw=True)
            return
        if "google.colab" in sys.modules:  # there, a widget that is not its own has to be allowed
            require("google.colab.output", "notebooks", "the explorer").enable_custom_widget_manager()
        self._replace_the_one_before()
        plain = {"text/plain": repr(self)}
        self._handle = display({**plain, "text/html": last_state(self.session, self._mark)}, raw=True, display_id=True)
        display({**plain, VIEW: self._widget._repr_mimebundle_()[0][VIEW]}, raw=True)

    def _replace_the_one_before(self) -> None:
        """Close the explorer that an earlier run of the same cell has shown."""
        from IPython import get_ipython  # pyright: ignore[reportPrivateImportUsage]

        parent = get_ipython().get_parent() if hasattr(get_ipython(), "get_parent") else {}
        cell = parent.get("metadata", {}).get("cellId")
        before = _OPEN.get(cell) if cell else None
        if before is not None and before is not self:
            before.close()
        if cell:
            _OPEN[cell] = self

    @cached_property
    def _running(self) -> Running:
        return Running(self.session, self._emit)

    def _emit(self, event: dict[str, Any]) -> None:
        self._widget.send(event)
        if event["type"] == "finished" and self._handle is not None:
            html = last_state(self.session, self._mark)
            self._handle.update({"text/plain": repr(self), "text/html": html}, raw=True)

    @cached_property
    def _widget(self) -> Any:
        anywidget = require("anywidget", "notebooks", "the explorer")
        widget = anywidget.AnyWidget(
            _esm=f"{template('live.js')}\nexport default {{render: (context) => renderWidget(context, '{self._mark}')}};\n",
            _css=style(),
        )
        widget.on_msg(lambda _, message, __: self._running.post(message))
        return widget

    def __repr__(self) -> str:
        return visible(f"Explorer({title(self.session)}; {', '.join(self.session.items)})"[:400])


def explore(
    source: Any = None,
    target: Any = None,
    what: Any = None,
    *,
    prompts: Sequence[PromptLike] | None = None,
    source_site: str | int | None = None,
    target_site: str | int | None = None,
    live: bool = False,
) -> Explorer:
    """Steer models by hand: choose a prompt, what is added and how strongly, and read what they say.

    Args:
        source: model that vectors come from, or its name. A run folder of ``interp-transfer run``, or a file of a vector, may
            be the only argument.
        target: model that vectors are moved to, or its name; it may be left out.
        what: what can be added: a task or its name, the folder of a run, a steering vector or its file, a probe, an SAE, a
            mapper; or a dictionary of these by name. With a task and two models, the task's vector is extracted and moved by a
            mapper that is fitted on the task's texts, unless a mapper is given.
        prompts: examples, texts or chats; those of the task by default.
        source_site: where the task's vector is extracted, a hook point or the number of a block; default: the one that the
            model's card names, or the block after 60% of the depth.
        target_site: where it is moved to, likewise.
        live: generate however long a token takes. By default models that are too slow show completions made before.

    Raises:
        ValueError: for anything unknown, a vector of another model, or nothing to add.
    """
    from_, to = (None if site is None else str(site) for site in (source_site, target_site))
    options = ExploreOptions(from_, to, live=live)
    return Explorer(session(source, target, what, prompts=prompts, options=options))
