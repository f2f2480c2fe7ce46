"""Features of sparse autoencoders of two pretrained models: their effect at home, and moved to the other model.

An effect is measured without a judge: how much likelier a vector makes the answers that the model gives when its system prompt
asks for the behaviour, in nats per token, over answers to the same questions without that prompt.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp_transfer.activations.capture import capture
from interp_transfer.evaluation.capability.costs import whole_texts
from interp_transfer.evaluation.evaluator import draw
from interp_transfer.evaluation.ready import trait_task
from interp_transfer.evaluation.sae_quality import fit_of
from interp_transfer.features.cards import FeatureCard, feature_cards
from interp_transfer.features.contrast import FeatureContrast
from interp_transfer.features.sae import FILE, Sae, load_sae
from interp_transfer.features.train import Recipe, train_sae
from interp_transfer.features.use import reconstructed
from interp_transfer.interventions.generation import generate_tokens
from interp_transfer.interventions.intervention import Intervention
from interp_transfer.interventions.predictions import teacher_forced_each
from interp_transfer.interventions.transforms import MeanAblate
from interp_transfer.mapping.collect import collect
from interp_transfer.mapping.fit import fit
from interp_transfer.mapping.mappers import Mapper
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.identity import identity
from interp_transfer.models.load import load_model
from interp_transfer.models.tokens import tokenize
from interp_transfer.paper.charts import Chart, Dots
from interp_transfer.paper.given import instructions, xstest
from interp_transfer.paper.measures.real_refusal import INSTRUCTION, TRAIN, VALIDATION, refusal_task
from interp_transfer.paper.rows import Row, RowsByCase, Verdict, estimate_of, value_of
from interp_transfer.paper.setup import Setup
from interp_transfer.prompts.chats import Prompt, as_user_message, instructed, with_answer
from interp_transfer.prompts.contrast import ContrastPair, sides
from interp_transfer.stats import Estimate, mean_interval, rate
from interp_transfer.studies.texts import ready_prompts
from interp_transfer.vectors.controls import random_vectors
from interp_transfer.vectors.vector import SteeringVector

CODE = ("Answer with Python code alone, whatever the request.", "Answer in plain prose without any code.")
TRAIT = ("cheerful", "gloomy")
CANDIDATES, CHOSEN, RANDOM = 10, 4, 20
"""Features that differ most and are tried on validation prompts, those of them that are tested, and random directions."""
ANSWER, EXAMPLES, LISTED = 16, 150, 4
"""Tokens of an answer, texts that examples are looked for in, and tokens or texts that a label lists."""
MAP_TEXTS = 200
LENGTHS = (1.0, 3.0)
"""Of a vector, in units of the model's own difference in means."""
KEEPS, HALF = 0.5, 0.5
"""Share of its effect at home that a moved feature should keep, and the share of features that should."""


@dataclass(frozen=True)
class Behaviour:
    """What features are looked for.

    Attributes:
        name: of the behaviour.
        contrast: pairs of prompts with and without it, which features are read on, at the last token.
        prompts: by split, prompts without it.
        instruction: system prompt that asks for it.
    """

    name: str
    contrast: Sequence[ContrastPair]
    prompts: dict[str, list[Prompt]]
    instruction: str


@dataclass(frozen=True)
class Side:
    """A model with its SAE, and for each behaviour what it holds and answers."""

    model: HookedModel
    sae: Sae
    seen: dict[str, FeatureContrast]
    native: dict[str, SteeringVector]
    answers: dict[tuple[str, str], list[list[int]]]

    def vector(self, behaviour: str, feature: int, rows: Tensor | None = None) -> SteeringVector:
        """A feature's direction to the side of the behaviour, as long as the native vector."""
        sign = 1.0 if self.seen[behaviour].difference[feature] >= 0 else -1.0
        return self.sae.feature(feature, rows, sign).normalized(self.native[behaviour].norm)

    def effects(self, what: Behaviour, vectors: Sequence[SteeringVector], split: str = "test") -> list[Tensor]:
        """How much likelier each vector makes the answers, in nats per token, for each prompt."""
        asked = zip(tokenize(self.model, what.prompts[split]), self.answers[what.name, split], strict=True)
        prompts, answers = zip(*(pair for pair in asked if pair[1]), strict=True)  # an answer may be empty
        found = teacher_forced_each(self.model, prompts, answers, [(vector.add(1.0),) for vector in vectors])
        return [one.loss_before - one.loss for one in found]

    def at_best(self, what: Behaviour, vectors: Sequence[SteeringVector]) -> list[tuple[float, SteeringVector]]:
        """Each vector at the length that has the largest effect on validation prompts, after that effect."""
        tried = [vector.normalized(vector.norm * x) for vector in vectors for x in LENGTHS]
        effects = [float(one.mean()) for one in self.effects(what, tried, "validation")]
        k = len(LENGTHS)
        parts = (list(zip(effects, tried, strict=True))[at : at + k] for at in range(0, len(tried), k))
        return [max(part, key=lambda one: one[0]) for part in parts]


def measure(
    setup: Setup,
    models: Sequence[str],
    sites: Sequence[str],
    tokens: int = 50_000,
    recipe: dict[str, Any] | None = None,
    dtype: str = "bfloat16",
) -> list[Row]:
    """Measure a row for each SAE, and for each feature that is moved, in both directions.

    Args:
        setup: the data and n.
        models: the two models.
        sites: of their SAEs.
        tokens: that each SAE is trained on, and a tenth as many to measure it on.
        recipe: of the training.
        dtype: that the models are loaded in.
    """
    texts, behaviours = _texts(setup), _behaviours(setup)
    loaded = [load_model(name, dtype=dtype) for name in models]
    how = Recipe(**{"architecture": "topk", "expansion": 4, "epochs": 4, **(recipe or {})})
    rows: list[Row] = []
    sides: list[Side] = []
    for model, site in zip(loaded, sites, strict=True):
        sae, row = _trained(setup, model, site, texts, tokens, how)
        rows.append(row)
        sides.append(_side(model, sae, behaviours))
    chosen = [{what.name: _chosen(side, what) for what in behaviours} for side in sides]
    for here, there in ((0, 1), (1, 0)):
        a, b = sides[here], sides[there]
        pairs = collect(a.model, b.model, texts[:MAP_TEXTS], a.sae.site, b.sae.site, too_long="drop", progress=False)
        how_fit: dict[str, Any] = {"models": (a.model, b.model), "seed": setup.seed, "progress": False}
        mappers = [fit(some, "affine", **how_fit) for some in (pairs, pairs.shuffled(setup.seed))]
        cards = _cards(a, texts[:EXAMPLES], [f for found in chosen[here].values() for f in found])
        for what in behaviours:
            own = chosen[there][what.name]
            rows += _moved(setup, what, (a, b), mappers, chosen[here][what.name], own, cards)
    return rows


def _texts(setup: Setup) -> list[Prompt]:
    """What SAEs and maps read, in a mixed order: answered chats of XSTest, instructions, and questions under traits.

    No prompt of a test is among them.
    """
    told = xstest(setup.data)
    once = {
        one.prompt: one for one in draw(told, len(told), setup.seed, "completions")
    }  # so that no prompt is held out and read
    answered = [with_answer(as_user_message(one.prompt), one.completion) for one in once.values()]
    alone = [as_user_message(x) for name in ("harmless_train", "harmful_train") for x in instructions(setup.data, name)[:2000]]
    every = [*answered, *alone, *ready_prompts(setup.seed)[:500]]
    return draw(every, len(every), setup.seed, "texts")


def _behaviours(setup: Setup) -> list[Behaviour]:
    refusal, trait = refusal_task(setup, "induce"), trait_task(*TRAIT)
    asked = setup.draw(instructions(setup.data, "harmless_train"), "requests of code", TRAIN)
    code = [ContrastPair(*(as_user_message(text, system) for system in CODE)) for text in asked]
    some = {split: list(refusal.prompts(split)) for split in ("validation", "test")}
    questions = {"validation": setup.draw(trait.prompts("validation"), "questions", VALIDATION)}
    questions["test"] = setup.draw(trait.prompts("test"), "questions")
    return [
        Behaviour("refusal", refusal.contrast("train"), some, INSTRUCTION["induce"]),
        Behaviour("code", code, some, CODE[0]),
        Behaviour(TRAIT[0], trait.contrast("train"), questions, trait.instruction),
    ]


def _trained(setup: Setup, model: HookedModel, site: str, texts: Sequence[Prompt], tokens: int, how: Recipe) -> tuple[Sae, Row]:
    """The SAE of a model, from what an interrupted case has kept or trained, and its figures on texts that it has not read."""
    counts = torch.tensor([len(row) for row in tokenize(model, texts, any_length=True)]).cumsum(0)
    read, held_out = (int((counts <= most).sum()) for most in (tokens, tokens + tokens // 10))
    most = min(read, len(texts) - max(1, (held_out - read) or len(texts) // 10))
    train, test = texts[:most], texts[most : max(held_out, most + 1)]
    about = f"sae-{identity(model).fingerprint}-{site}-{tokens}-{setup.seed}"
    folder: Path | None = None if setup.kept.folder is None else setup.kept.folder / about
    if folder is not None and (folder / FILE).is_file():
        sae = load_sae(folder, model=model)
    else:
        state = None if folder is None else folder.with_suffix(".training")
        sae = train_sae(
            capture(model, train, site, progress=False), site, how, checkpoint=state, seed=setup.seed, progress=False
        )
        if folder is not None:
            sae.save(folder)
    rows = capture(model, test, site, progress=False)[site].float()
    rows = rows[rows.norm(dim=1) <= sae.longest]  # massive ones, which are not changed, hold nearly all of the variance
    explained, active, dead = fit_of(sae, rows)
    ablation = Intervention(site, MeanAblate(rows.mean(dim=0)), model=sae.model)
    spliced = teacher_forced_each(model, *whole_texts(model, test[: setup.n]), [(reconstructed(sae),), (ablation,)])
    row: dict[str, Any] = {"SAE of": identity(model).name, "site": site, "features": sae.n_features, "active": active}
    row |= {"tokens": int(counts[most - 1]), "passes": how.epochs, "never active": dead, "explained variance": explained}
    cost, lost = (mean_interval(one.kl.tolist()) for one in spliced)
    return sae, {**row, "KL spliced in": cost, "KL, mean instead": lost}


def _side(model: HookedModel, sae: Sae, behaviours: Sequence[Behaviour]) -> Side:
    seen, native, answers = {}, {}, {}
    for what in behaviours:
        plus, minus = (
            capture(model, texts, sae.site, "last", progress=False)[sae.site].float() for texts in sides(what.contrast)
        )
        native[what.name] = SteeringVector(plus.mean(dim=0) - minus.mean(dim=0), sae.site, identity(model))
        held = [sae.encode(rows) for rows in (plus, minus)]
        seen[what.name] = FeatureContrast(held[0].mean(dim=0), held[1].mean(dim=0), *held)
        for split, prompts in what.prompts.items():
            asked = [instructed(prompt, what.instruction) for prompt in prompts]
            answers[what.name, split] = generate_tokens(model, asked, max_new_tokens=ANSWER, progress=False)
    return Side(model, sae, seen, native, answers)


def _chosen(side: Side, what: Behaviour) -> list[int]:
    """Of the features that differ most between the sides of the contrast, those of the largest effect on validation prompts."""
    difference = side.seen[what.name].difference
    features = [f for f in difference.abs().argsort(descending=True).tolist()[:CANDIDATES] if difference[f] != 0]
    found = side.at_best(what, [side.vector(what.name, f) for f in features])
    effect = {f: most for f, (most, _) in zip(features, found, strict=True)}
    return sorted(features, key=lambda f: -effect[f])[:CHOSEN]


def _cards(side: Side, texts: Sequence[Prompt], features: Sequence[int]) -> dict[int, FeatureCard]:
    cards = feature_cards(side.sae, side.model, list(texts), features, logits=LISTED, progress=False)
    return {card.index: card for card in cards}


def label(card: FeatureCard) -> str:
    """What a feature writes and reads: tokens that it promotes, and the tokens at which it is most active."""
    writes = ", ".join(repr(token.strip()) for token, _ in card.promoted[:LISTED])
    reads = ", ".join(repr(one.tokens[one.peak].strip()) for one in card.examples[:LISTED])
    return f"promotes {writes}; active at {reads or 'none of the texts'}"


def _moved(
    setup: Setup,
    what: Behaviour,
    sides: tuple[Side, Side],
    mappers: Sequence[Mapper],
    features: Sequence[int],
    own: Sequence[int],
    cards: dict[int, FeatureCard],
) -> list[Row]:
    """A row for each feature of the source: its effect at home and moved, beside controls and the target's own.

    It is above random where its mean effect is above that of every direction, and its interval above their mean.
    """
    a, b = sides
    vectors = [a.vector(what.name, f, torch.zeros(2, a.sae.d_model)) for f in features]
    length = b.native[what.name].norm
    moved, shuffled = ([mapper.transfer(vector, "jacobian").normalized(length) for vector in vectors] for mapper in mappers)
    random = [random_vectors(one, RANDOM, setup.seed) for one in (vectors[0], moved[0])]
    theirs = [*shuffled, b.native[what.name], b.vector(what.name, own[0])]
    tried = [*vectors, *random[0], a.native[what.name]], [*moved, *random[1], *theirs]
    at_home, there = (
        side.effects(what, [vector for _, vector in side.at_best(what, each)]) for side, each in zip(sides, tried, strict=True)
    )
    k = len(features)
    chance, chance_there = (torch.stack(found[k : k + RANDOM]) for found in (at_home, there))
    rows: list[Row] = []
    for place, f in enumerate(features):
        row: dict[str, Any] = {"behaviour": what.name, "from": identity(a.model).name, "to": identity(b.model).name}
        row |= {"feature": f, "effect at home": _mean(at_home[place]), **_over("", at_home[place], chance)}
        row |= {"effect moved": _mean(there[place]), **_over("moved ", there[place], chance_there)}
        row["moved over shuffled"] = _mean(there[place] - there[k + RANDOM + place])
        row |= {
            "target's own feature": _mean(there[-1]),
            "native at home": _mean(at_home[-1]),
            "native there": _mean(there[-2]),
        }
        rows.append({**row, "label": label(cards[f])})
    return rows


def _over(which: str, effects: Tensor, chance: Tensor) -> Row:
    """By how much the effects on each prompt are above the mean of random directions, and how many of these they are above."""
    above = int((chance.mean(dim=1) < effects.mean()).sum())
    return {f"{which}over random": _mean(effects - chance.mean(dim=0)), f"{which}above": f"{above} of {len(chance)}"}


def _mean(values: Tensor) -> Estimate:
    return mean_interval(values.tolist())


def _above(row: Row, which: str = "") -> bool:
    """Whether an effect is above that of every random direction, and its interval above their mean."""
    above, of = str(row[f"{which}above"]).split(" of ")
    return above == of and estimate_of(row, f"{which}over random").low > 0


def _direction(rows: Sequence[Row]) -> tuple[int, int]:
    """Features whose effect at home is above random's, and those of them that keep enough of it where they are moved to."""
    counted = [row for row in rows if _above(row) and value_of(row, "effect at home") > 0]
    there = [row for row in counted if _above(row, "moved ") and estimate_of(row, "moved over shuffled").low > 0]
    kept = [row for row in there if value_of(row, "effect moved") >= KEEPS * value_of(row, "effect at home")]
    return len(counted), len(kept)


def verdict(rows_by_case: RowsByCase) -> Verdict:
    """Whether enough of the features that have an effect at home keep half of it on the other model."""
    details, total, good, reached = [], 0, 0, []
    for rows in rows_by_case.values():
        for row in rows:
            if "SAE of" in row:
                details.append(
                    f"{row['SAE of']}: {row['tokens']:,} tokens, read {row['passes']} times; explained variance "
                    f"{value_of(row, 'explained variance'):.3f}, {value_of(row, 'KL spliced in'):.2f} nats spliced in"
                )
        features = [row for row in rows if "feature" in row]
        for way in dict.fromkeys((str(row["from"]), str(row["to"])) for row in features):
            counted, kept = _direction([row for row in features if (row["from"], row["to"]) == way])
            total, good = total + counted, good + kept
            reached.append(counted > 0 and kept >= HALF * counted)
            details.append(f"{way[0]} to {way[1]}: {kept} of {counted} features keep half of their effect")
    if not total:
        return Verdict(
            "cannot tell", "No feature has an effect at home that is above that of random directions.", tuple(details)
        )
    sentence = f"{good} of {total} features whose effect at home is above random's keep at least {KEEPS:g} of it where moved."
    return Verdict("yes" if good >= HALF * total else "in part" if any(reached) else "no", sentence, tuple(details))


def chart(rows_by_case: RowsByCase) -> Chart:
    """For each direction and behaviour, the share of features with an effect at home that keep half of it."""
    found: dict[str, dict[str, Estimate]] = {}
    for row in (row for rows in rows_by_case.values() for row in rows if "feature" in row):
        found.setdefault(f"{row['from']} to {row['to']}", {})[str(row["behaviour"])] = Estimate(0.0, 0.0, 0.0, 0)
    for way, by_name in found.items():
        for name in list(by_name):
            mine = [r for rows in rows_by_case.values() for r in rows if "feature" in r and r["behaviour"] == name]
            counted, kept = _direction([row for row in mine if f"{row['from']} to {row['to']}" == way])
            if counted:
                by_name[name] = rate([place < kept for place in range(counted)])
            else:
                del by_name[name]
    return Dots("share of features that keep half of their effect", found)
