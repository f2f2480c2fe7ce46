"""Kinds of measurement: a module with a function `measure`, looked up by its name.

``measure(setup, **settings)`` returns the rows of one case. The class of its first parameter (`OneModel`, `TwoModels`, ...)
takes the edition, n, the seed and those settings of the case that are its own; the others go to `measure`. Modules outside
this package need no such class and are passed a `Setup`. For experiments of the paper a module also has
``verdict(rows_by_case)``, and ``chart`` and ``headline`` if there is something to draw (see ``charts``). For tables of the
documentation it may have ``tables(name, rows_by_case)``, which returns the rows of each file to write, and
``figures(rows_by_case)``, which returns plotly figures by file name.
"""

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from interp_transfer.evaluation.kept import Kept
from interp_transfer.names import find
from interp_transfer.paper.rows import Row, RowsByCase, Verdict
from interp_transfer.paper.setup import Setup

FOLDER = Path(__file__).with_name("measures")


@dataclass(frozen=True)
class Kind:
    """How a case is measured, and what is concluded from all cases.

    Attributes:
        name: as TOML files call it.
        module: holds `measure` and the optional functions.
    """

    name: str
    module: ModuleType

    def measure(
        self,
        edition: str,
        n: int,
        seed: int,
        settings: Mapping[str, Any],
        data: Path | None = None,
        kept: Kept = Kept(),  # noqa: B008  # immutable
    ) -> list[Row]:
        """Measure a case; see `Setup` for the arguments."""
        setup = self._setup()
        known = _parameters(setup)
        own = {name: value for name, value in settings.items() if name in known}
        rest = {name: value for name, value in settings.items() if name not in known}
        made = setup(edition, n, seed, **own)
        made.data, made.kept = data, kept
        return self.module.measure(made, **rest)

    def check(self, settings: Mapping[str, Any]) -> None:
        """Refuse settings that the measurement does not take, or that it lacks.

        Raises:
            ValueError: naming them.
        """
        known = {**_parameters(self._setup()), **dict(list(inspect.signature(self.module.measure).parameters.items())[1:])}
        unknown = sorted(set(settings) - set(known))
        missing = [name for name, p in known.items() if p.default is p.empty and name not in settings]
        if unknown or missing:
            raise ValueError(
                f"kind {self.name!r}: unknown settings {unknown}, missing ones {missing}; it takes {', '.join(known)}"
            )

    def verdict(self, rows_by_case: RowsByCase) -> Verdict:
        """Whether the organisms agree with what the paper says."""
        return self.module.verdict(rows_by_case)

    def _setup(self) -> type[Setup]:
        first = next(iter(inspect.signature(self.module.measure).parameters.values())).annotation
        return first if isinstance(first, type) and issubclass(first, Setup) else Setup


def kind(name: str) -> Kind:
    """The kind of this name: a module of `measures`, or the dotted path of any other module.

    Raises:
        ValueError: for an unknown one, naming the closest.
    """
    if "." in name:
        return Kind(name, importlib.import_module(name))
    known = {path.stem: path.stem for path in sorted(FOLDER.glob("[a-z]*.py"))}
    return Kind(name, importlib.import_module(f"interp_transfer.paper.measures.{find(name, known, 'kind of measurement')}"))


def _parameters(setup: type[Setup]) -> dict[str, inspect.Parameter]:
    """The keyword parameters of a class and its bases."""
    there = [p for cls in setup.__mro__[:-1] for p in inspect.signature(cls.__init__).parameters.values()]
    return {p.name: p for p in there if p.kind is p.KEYWORD_ONLY}
