"""What the organisms add to the toolkit: models, tasks, and a judge."""

from functools import cache
from typing import Any

from interp_transfer.organisms.command import demo
from interp_transfer.plugins import KnownModel, Plugin


@cache
def _models() -> dict[str, KnownModel]:
    from interp_transfer.organisms.catalogue import list_organisms

    return {organism.name: _known(organism.name) for organism in list_organisms()}


def _known(name: str) -> KnownModel:
    from interp_transfer.organisms.capability import FOLDER, instructions, songs
    from interp_transfer.organisms.catalogue import ZOO, is_shipped, list_organisms, read_card
    from interp_transfer.organisms.measure import skills_each
    from interp_transfer.organisms.tasks.registry import card_key, tuned_suffix

    card = read_card(name) if is_shipped(name) else {}
    names = {organism.name for organism in list_organisms()}
    sites = card.get("sites", {})

    def variant(task: Any) -> str:
        tuned = f"{name}-{tuned_suffix(task)}"
        return tuned if tuned in names else name

    return KnownModel(
        name,
        ZOO / name,
        card,
        site=lambda task: sites.get(card_key(task), sites.get(task.name)),
        variant=variant,
        sae=sae if (sae := ZOO / "saes" / name).is_dir() else None,
        skills=skills_each,
        checks={"instructions": instructions, "songs": songs},
        harness=FOLDER,
    )


@cache
def _tasks() -> dict[str, Any]:
    from interp_transfer.organisms.tasks.registry import TASKS

    return dict(TASKS)


def _build(name: str, out: Any, **options: Any) -> dict[str, Any]:
    from interp_transfer.organisms.sites import build_organism

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
