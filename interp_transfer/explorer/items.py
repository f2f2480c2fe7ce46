"""What the explorer can add: the vector of a contrast, at any site; or vectors that were given, where they are."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from interp_transfer.evaluation.task import Task
from interp_transfer.explorer.made import Made
from interp_transfer.mapping.collect import collect
from interp_transfer.mapping.fit import fit
from interp_transfer.vectors.controls import random_vectors
from interp_transfer.vectors.extract import extract

TEXTS = 200
"""Texts of a task that a mapper is fitted on when none is given, or at another site than its own."""
KIND = "affine"
"""Kind of that mapper; it is fitted in closed form."""

Say = Callable[[str], Any]
"""Receives a line on what is being done."""


@runtime_checkable
class Item(Protocol):
    """Something that can be added."""

    @property
    def name(self) -> str:
        """Its name in the list."""
        ...

    def site(self, side: str) -> str | None:
        """Where it is in the source or the target when nothing is chosen; None where it is not."""
        ...

    def fixed(self, side: str) -> str:
        """Why it cannot be elsewhere; empty if it can."""
        ...

    def vectors(self, sites: Mapping[str, str], say: Say) -> dict[str, Made]:
        """Return vectors by what they are: "source", "target" (what steers the target) and "native" (the target's own)."""
        ...


@dataclass(frozen=True, eq=False)
class GivenItem:
    """Vectors that exist.

    Attributes:
        name: see `Item`.
        made: the vectors, see `Item.vectors`.
    """

    name: str
    made: Mapping[str, Made]

    def site(self, side: str) -> str | None:
        """See `Item`."""
        return self.made[side].value.site if side in self.made else None

    def fixed(self, side: str) -> str:
        """See `Item`."""
        if side not in self.made:
            return f"nothing is added to the {side}: this vector is not of it, and no mapper moves it there"
        return f"this vector belongs to {self.made[side].value.site}; with a task it can be extracted elsewhere"

    def vectors(self, sites: Mapping[str, str], say: Say) -> dict[str, Made]:  # noqa: ARG002
        """See `Item`."""
        return dict(self.made)


@dataclass(eq=False)
class ContrastItem:
    """The vector of a task's contrast, moved by a mapper if there are two models; extracted and fitted when first asked for.

    Attributes:
        task: the task.
        models: by side, "source" and perhaps "target".
        sites: by side, where it is when nothing is chosen.
        made: what exists: vectors by (what, site), moved ones by ("target", source's site, target's site).
    """

    task: Made
    models: Mapping[str, Made]
    sites: Mapping[str, str]
    made: dict[tuple[str, ...], Made] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The task's name."""
        task: Task = self.task.value
        return task.name

    def site(self, side: str) -> str | None:
        """See `Item`."""
        return self.sites.get(side)

    def fixed(self, side: str) -> str:  # noqa: ARG002
        """See `Item`."""
        return ""

    def vectors(self, sites: Mapping[str, str], say: Say) -> dict[str, Made]:
        """See `Item`."""
        vectors = {"source": self._extracted("source", sites["source"], say)}
        if "target" in self.models:
            vectors["target"] = self._moved(sites["source"], sites["target"], say)
            vectors["native"] = self._extracted("target", sites["target"], say)
        return vectors

    def _extracted(self, side: str, site: str, say: Say) -> Made:
        if (side, site) not in self.made:
            say(f"extracting the vector of {self.name} at {site} of the {side}")
            task, model = self.task.value, self.models[side]
            vector = extract(model.value, task.contrast("train"), site, task.read, progress=False)
            read = "" if task.read == "last" else ", {task}.read"
            self.made[side, site] = Made(
                vector,
                "vector" if side == "source" else "native",
                lambda model, task: f"it.extract({model}, {task}.contrast('train'), {site!r}{read.format(task=task)})",
                (model, self.task),
            )
        return self.made[side, site]

    def _moved(self, source: str, target: str, say: Say) -> Made:
        if ("target", source, target) not in self.made:
            vector = self._extracted("source", source, say)
            mapper = self._mapper(source, target, say)
            moved = mapper.value.transfer(vector.value)
            needs = mapper, vector
            self.made["target", source, target] = Made(moved, "moved", lambda m, v: f"{m}.transfer({v})", needs)
        return self.made["target", source, target]

    def _mapper(self, source: str, target: str, say: Say) -> Made:
        if ("mapper", source, target) not in self.made:
            a, b = self.models["source"], self.models["target"]
            texts = self.task.value.texts("train")[:TEXTS]
            say(f"fitting a mapper from {source} to {target} on {len(texts)} texts")
            pairs = collect(a.value, b.value, texts, source, target, too_long="drop", progress=False)
            mapper = fit(pairs, KIND, models=(a.value, b.value), progress=False)
            read = f"{source!r}, {target!r}, too_long='drop'"
            collected = Made(
                None,
                "pairs",
                lambda a, b, task: f"it.collect({a}, {b}, {task}.texts('train')[:{TEXTS}], {read})",
                (a, b, self.task),
            )
            self.made["mapper", source, target] = Made(
                mapper, "mapper", lambda p, a, b: f"it.fit({p}, {KIND!r}, models=({a}, {b}))", (collected, a, b)
            )
        return self.made["mapper", source, target]


def random_like(vector: Made) -> Made:
    """A vector in a random direction, of the length of another."""
    [drawn] = random_vectors(vector.value, 1)
    imports = ("from interp_transfer.vectors.controls import random_vectors",)
    return Made(drawn, "random", lambda v: f"random_vectors({v}, 1)[0]", (vector,), imports)
