"""What the organisms add to the toolkit: models, tasks, and a judge.

It is imported for every name that is looked up, so each function imports what it needs.
"""

from functools import cache
from pathlib import Path
from typing import Any

from interp_transfer.organisms.command import demo
from interp_transfer.plugins import KnownModel, Plugin


@cache
def _models() -> dict[str, KnownModel]:
    from interp_transfer.organisms.catalogue import list_organisms

    return {organism.name: _known(organism.name) for organism in list_organisms()}


def _known(name: str) -> KnownModel:
    from interp_transfer.organisms.catalogue import ZOO, is_shipped, list_organisms, read_card

    card = read_card(name) if is_shipped(name) else {}
    names = {organism.name for organism in list_organisms()}
    sites = card.get("sites", {})

    def site(task: Any) -> str | None:
        from interp_transfer.organisms.tasks.registry import card_key

        return sites.get(card_key(task), sites.get(task.name))

    def variant(task: Any) -> str:
        from interp_transfer.organisms.tasks.registry import tuned_suffix

        tuned = f"{name}-{tuned_suffix(task)}"
        return tuned if tuned in names else name

    return KnownModel(
        name,
        ZOO / name,
        card,
        site=site,
        variant=variant,
        sae=sae if (sae := ZOO / "saes" / name).is_dir() else None,
        skills=skills,
        checks={"instructions": _instructions, "songs": _songs},
        harness=Path(__file__).parent / "harness",
    )


def skills(*args: Any, **options: Any) -> Any:
    """What a model of the micro-world can do besides its task, see ``measure.skills_each``."""
    from interp_transfer.organisms.measure import skills_each

    return skills_each(*args, **options)


def _instructions(*args: Any, **options: Any) -> Any:
    from interp_transfer.organisms.capability import instructions

    return instructions(*args, **options)


def _songs(*args: Any, **options: Any) -> Any:
    from interp_transfer.organisms.capability import songs

    return songs(*args, **options)


@cache
def _tasks() -> dict[str, Any]:
    from interp_transfer.organisms.tasks.registry import TASKS

    return dict(TASKS)


def _build(name: str, out: Any, *, data: Path | None = None, **options: Any) -> dict[str, Any]:
    from interp_transfer.organisms.sites import build_organism

    if data is not None:
        raise ValueError(f"{name!r} is trained on the micro-world, which is part of the package: leave out --data")
    return build_organism(name, out, **options)


def _measure(model: Any, card: dict[str, Any]) -> dict[str, Any]:
    from interp_transfer.organisms.measure import measure

    return measure(model, card["tasks"])


def _bandit() -> Any:
    from interp_transfer.organisms.bandit import BanditJudge

    return BanditJudge()


PLUGIN = Plugin(
    models=_models, tasks=_tasks, judges={"bandit": _bandit}, commands={"demo": demo}, build=_build, measure=_measure
)
