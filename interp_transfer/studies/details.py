"""What result.json holds of a run besides its conditions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from interp_transfer.activations.positions import describe
from interp_transfer.evaluation.evaluator import Condition
from interp_transfer.evaluation.side_effects import SideEffects
from interp_transfer.evaluation.task import Task
from interp_transfer.io import file_hash
from interp_transfer.mapping.mappers import Mapper
from interp_transfer.mapping.pairs import PairedActivations
from interp_transfer.mapping.stored import StoredPairs
from interp_transfer.mapping.token_classes import fits_by_token_class
from interp_transfer.models.hooked_model import HookedModel, parameter_count
from interp_transfer.models.identity import identity
from interp_transfer.models.tokens import tokenizer_fingerprint
from interp_transfer.plots.transfer import LONGEST
from interp_transfer.prompts.chats import Chat
from interp_transfer.prompts.contrast import sides
from interp_transfer.search.strengths import LARGEST, RULE, StrengthSearch
from interp_transfer.stats import paired_difference
from interp_transfer.studies.inputs import DIGEST, ChosenSite
from interp_transfer.studies.options import RunOptions
from interp_transfer.studies.texts import MapperTexts
from interp_transfer.studies.trial import Trial
from interp_transfer.vectors.planes import transfer_planes
from interp_transfer.vectors.vector import SteeringVector

CLASS_PROMPTS = 100
"""Number of prompts that show the behaviour, and of clean ones, on which a mapper is measured by class of token."""


def asked(
    task: str | Task | Mapping[str, Any], source: Any, target: Any, how: RunOptions, *, repeatable: bool = True
) -> dict[str, Any]:
    """The options, and with them the names that a run can be repeated by; None for those if anything is an object.

    ``repeatable`` says whether everything else was named, such as texts.
    """
    if isinstance(task, Mapping):
        task = {**task, "path": str(task["path"]), DIGEST: file_hash(Path(task["path"]).expanduser())}
    by_name = repeatable and not isinstance(task, Task) and all(isinstance(model, str | Path) for model in (source, target))
    names = {"task": task, "source": str(source), "target": str(target)}
    return {"options": how.to_dict(), "asked": names | how.to_dict() if by_name else None}


def input_details(
    task: Task, source: HookedModel, sites: Mapping[str, ChosenSite], pairs: PairedActivations, texts: MapperTexts
) -> dict[str, Any]:
    """Task, source, the sites of both sides, and the texts that mappers are fitted on."""
    here = identity(source)
    return {
        "description": task.description,
        "direction": task.options.get("direction"),
        "source": {"name": here.name, "fingerprint": here.fingerprint, "site": sites["source"].name},
        "sites": {side: site.to_dict() for side, site in sites.items()},
        "texts": {"of": texts.origin + pairs.alignment.too_long, "n": len(texts.texts), "tokens": len(pairs)},
        "left_out": _left_out(task, pairs),
        "alignment": {
            "strategy": pairs.alignment.strategy,
            "coverage": pairs.alignment.coverage,
            "by_role": {role: list(counts) for role, counts in pairs.alignment.by_role.items()},
        },
    }


def _left_out(task: Task, pairs: PairedActivations) -> dict[str, str]:
    """The conditions that a run lacks, each with the reason."""
    reasons = {}
    if task.answers is None:
        reasons["forced_first_token"] = "the task has no right answers"
    if not task.instruction and any(isinstance(prompt, Chat) for prompt in task.prompts("test")[:1]):
        reasons["system_prompt"] = "no system prompt that asks for the behaviour was given (--instruction TEXT)"
    if isinstance(pairs, StoredPairs):
        reasons["shuffled_within_text"] = "pairs in a store on disk are shuffled across texts only"
    return reasons


def vector_details(task: Task, vector: SteeringVector, moved: SteeringVector, native: SteeringVector) -> dict[str, Any]:
    """The vector before and after it was moved, and the data of the picture of the move."""
    positive, negative = ([str(prompt)[:LONGEST] for prompt in side] for side in sides(task.contrast("train")))
    return {
        "picture": transfer_planes(vector, moved, native, (positive, negative)),
        "vector": {
            "method": vector.method,
            "positions": vector.positions,
            "applied_at": describe(task.positions),
            "norm": vector.norm,
            "moved_norm": moved.norm,
            "native_norm": native.norm,
            "cosine_to_native": moved.cosine(native),
        },
    }


def mapper_details(
    mapper: Mapper, source: HookedModel, target: HookedModel, task: Task, how: RunOptions, prompts: Sequence[Any]
) -> dict[str, Any]:
    """The mapper's card, and how well it fits each class of tokens on prompts that it was not fitted on.

    Tokens correspond one to one only where both models have the same tokenizer, so classes are left out otherwise.
    """
    card = mapper.card
    names = ("kind", "parameters", "fvu", "cosine", "norm_ratio", "rows", "held_out_rows", "settings", "training")
    details = {name: getattr(card, name) for name in names}
    details |= {"fraction_of_target": card.parameters / parameter_count(target), "mode": how.mode, "norm": how.norm}
    if tokenizer_fingerprint(source) == tokenizer_fingerprint(target):
        texts = [*prompts[:CLASS_PROMPTS], *task.clean("test")[:CLASS_PROMPTS]]
        fits = fits_by_token_class(mapper, source, target, texts, task.trigger)
        details["by_place"] = {by: {name: fit.to_dict() for name, fit in classes.items()} for by, classes in fits.items()}
    return details


def comparison_details(
    trial: Trial,
    searches: Mapping[str, Sequence[StrengthSearch]],
    conditions: Mapping[str, Condition],
    at_one: Mapping[str, Condition],
    effects: Mapping[str, SideEffects],
) -> dict[str, Any]:
    """How strengths were chosen, moved against native, figures at strength 1, and side effects."""

    def outcomes(name: str, measure: str) -> list[bool]:
        return [getattr(verdict, measure) for verdict in conditions[name].verdicts]

    return {
        "strength_rule": {
            "budget_nats_per_token": trial.budget,
            "fractions": list(trial.options.fractions),
            "split": "validation",
            "n": len(trial.validation.prompts),
            "rule": LARGEST if trial.options.equal_cost else RULE,
        },
        "sweep": [
            {"condition": name, "draw": k, "saturated": search.saturated, **point.to_dict()}
            for name, draws in searches.items()
            for k, search in enumerate(draws)
            for point in search.curve
        ],
        "moved_against_native": {
            measure: paired_difference(outcomes("moved", measure), outcomes("native", measure)).to_dict()
            for measure in ("success", "intact")
        },
        "side_effects": {name: effect.to_dict() for name, effect in effects.items()},
        "at_strength_one": {name: condition.to_dict() for name, condition in at_one.items()},
    }
