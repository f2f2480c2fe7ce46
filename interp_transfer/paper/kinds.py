"""The kinds of measurement: a module of `measures` each, looked up by its name."""

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp_transfer.names import find
from interp_transfer.paper.rows import Found, Row, Verdict

FOLDER = Path(__file__).with_name("measures")
GIVEN = ("edition", "n", "seed")
"""Arguments of every `measure` that are no settings."""


@dataclass(frozen=True)
class Kind:
    """How a case is measured, and what is made of all of them.

    Attributes:
        name: of its module.
        measure: ``measure(edition=, n=, seed=, **settings)`` gives the rows of a case.
        verdict: on the rows of all cases of an experiment.
    """

    name: str
    measure: Callable[..., list[Row]]
    verdict: Callable[[Found], Verdict]

    def check(self, settings: Mapping[str, Any]) -> None:
        """Refuse settings that the measurement does not know, or that it lacks.

        Raises:
            ValueError: naming them.
        """
        known = inspect.signature(self.measure).parameters
        unknown = sorted(set(settings) - (set(known) - set(GIVEN)))
        missing = [p for p, what in known.items() if what.default is what.empty and p not in {*GIVEN, *settings}]
        if unknown or missing:
            offered = ", ".join(name for name in known if name not in GIVEN)
            raise ValueError(f"kind {self.name!r}: unknown settings {unknown}, missing ones {missing}; it takes {offered}")


def kind(name: str) -> Kind:
    """The kind of this name.

    Raises:
        ValueError: for an unknown one, naming the closest.
    """
    known = {path.stem: path.stem for path in sorted(FOLDER.glob("[a-z]*.py"))}
    module = importlib.import_module(f"interp_transfer.paper.measures.{find(name, known, 'kind of measurement')}")
    return Kind(name, module.measure, module.verdict)
