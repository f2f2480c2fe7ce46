"""The page of moved features: a card for each feature in the source and in the target."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from interp_transfer.evaluation.task import Task
from interp_transfer.features.cards import FeatureCard, feature_cards, shown_texts, with_completions
from interp_transfer.features.sae import Sae
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.reporting.feature_page import write_features
from interp_transfer.studies.features_result import MovedFeatures

WITH_COMPLETIONS = 20
"""Number of listed features that are shown with completions."""
PROMPTS = 3
"""Number of prompts that are completed for each of them."""
TEXTS = 400
"""Number of validation texts that examples of features are taken from."""


def write_features_page(
    result: MovedFeatures, source: HookedModel, target: HookedModel, task: Task, listed: int, folder: Path, progress: bool
) -> None:
    """Write ``features.html``."""
    texts = task.texts("validation")[:TEXTS]
    ranked = next(iter(result.directions.values())).ranking["feature"].tolist()
    order = [*ranked, *sorted(set(range(result.sae.n_features)) - set(ranked))][:listed]
    cards = feature_cards(result.sae, source, texts, order, progress=progress)
    moved = feature_cards(result.moved, target, texts, order, also=shown_texts(cards), progress=progress)
    prompts = task.prompts("test")[:PROMPTS]
    first = {card.index for card in cards[:WITH_COMPLETIONS]}

    def completed(card: FeatureCard, sae: Sae, model: HookedModel) -> FeatureCard:
        if card.index not in first or not card.size > 0:
            return card
        return with_completions(card, sae, model, prompts, positions=task.positions, max_new_tokens=task.max_new_tokens)

    here = [completed(card, result.sae, source) for card in cards]
    there = {card.index: completed(card, result.moved, target) for card in moved}
    title = f"Features of {result.source.name} and what they are in {result.target.name}"
    write_features(folder, title, here, there, _facts(result, order), result.sentences())


def _facts(result: MovedFeatures, order: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Columns for each feature: difference, success by direction and model, and the match in the target's own SAE."""
    ranking = next(iter(result.directions.values())).ranking
    difference = dict(zip(ranking["feature"], ranking["wanted"] - ranking["other"], strict=True))
    facts: dict[int, dict[str, Any]] = {k: {"difference": float(difference[k])} if k in difference else {} for k in order}
    for name, direction in result.directions.items():
        for side, frame in (("source", direction.home), ("moved", direction.there)):
            for row in frame.drop_duplicates("feature").to_dict("records"):
                if row["feature"] in facts:
                    facts[row["feature"]][f"{name}, {side}"] = round(row["success"], 3)
    for index, row in result.matches.to_dict("index").items():
        if index in facts:
            facts[int(index)] |= {"match": int(row["match"]), "cosine": round(row["cosine"], 3)}  # type: ignore[call-overload]
            facts[int(index)] |= {k: round(row[k], 3) for k in ("correlation", "overlap") if row[k] == row[k]}  # type: ignore[call-overload]
    return facts
