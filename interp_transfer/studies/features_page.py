"""The page of moved features: a card for each feature in the source and in the target."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from interp_transfer.evaluation.task import Task
from interp_transfer.features.cards import STRENGTHS, FeatureCard, feature_cards, shown_texts, with_completions
from interp_transfer.features.sae import Sae
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.reporting.feature_page import Opening, write_features
from interp_transfer.reporting.formats import short
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
    opening = _opening(result, cards, moved)
    first = {card.index for card in cards[:WITH_COMPLETIONS]} | ({opening.feature} if opening else set())

    def completed(card: FeatureCard, sae: Sae, model: HookedModel, side: int) -> FeatureCard:
        if card.index not in first or not card.size > 0:
            return card
        strengths = {*STRENGTHS, *([opening.strengths[side]] if opening and card.index == opening.feature else [])}
        how: dict[str, Any] = {"positions": task.positions, "max_new_tokens": task.max_new_tokens}
        return with_completions(card, sae, model, prompts, sorted(strengths), **how)

    here = [completed(card, result.sae, source, 0) for card in cards]
    there = {card.index: completed(card, result.moved, target, 1) for card in moved}
    title = f"Features of {result.source.name} and what they are in {result.target.name}"
    first_sentence, *others = result.sentences()
    notes = [first_sentence, *([_said(opening, result)] if opening else []), *others]
    write_features(folder, title, here, there, _facts(result, order), notes, meanings=_meanings(result), opening=opening)


def _opening(result: MovedFeatures, cards: Sequence[FeatureCard], moved: Sequence[FeatureCard]) -> Opening | None:
    """The first sentence's feature, at the strengths of that sentence in units of the size of each card."""
    direction = next(iter(result.directions.values()))
    conditions = (direction.source["feature"], direction.target["moved feature"])
    ranking = direction.ranking
    difference = float((ranking["wanted"] - ranking["other"])[ranking["feature"] == direction.feature].iloc[0])
    pair = [next((card for card in side if card.index == direction.feature), None) for side in (cards, moved)]
    if any(card is None or not card.size > 0 for card in pair):
        return None
    steps = [c.strength * difference / card.size for c, card in zip(conditions, pair, strict=True) if card is not None]
    return Opening(direction.feature, (float(f"{steps[0]:.4g}"), float(f"{steps[1]:.4g}")))


def _said(opening: Opening, result: MovedFeatures) -> str:
    here, there = map(short, opening.strengths)
    return (
        f"The page opens at this feature and these strengths: {here} times its mean activation in {result.source.name}, "
        f"{there} times in {result.target.name}"
    )


def _meanings(result: MovedFeatures) -> dict[str, str]:
    """What each column of `_facts` holds."""
    meanings = {"difference": "mean activation on the wanted side of the contrast minus that on the other side"}
    for name in result.directions:
        for side, model in (("source", result.source.name), ("moved", result.target.name)):
            meanings[f"{name}, {side}"] = (
                f"success of \u201c{name}\u201d when the feature is added in {model}, validation prompts"
            )
    return meanings | {
        "match": "most similar feature of the target's own SAE",
        "cosine": "cosine between the decoder rows of the moved feature and its match",
        "correlation": "correlation of the activations of the moved feature and its match",
        "overlap": "share of their (up to ten) most activating tokens that the moved feature and its match have in common",
    }


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
