"""A vector moved by a map of many tokens, beside the same vector moved by another recipe: a map of 90 pooled sentences.

The recipe is that of ``saklas manifold transfer`` (release 5.3.0), as its documentation and its behaviour tell, written anew:

- Both models read the same short chats, in which an assistant answers plain questions about itself under a system prompt that
  asks for brevity, each rendered by the model's own template. The release has 96 of them; here are 90 of our own (``neutral``).
- Of each chat one row is taken after every block: that of the last token that is no special token, which in many templates is
  the line break after the end of the answer.
- For each block that both models have, the row's block of the source is mapped to the block of the same number of the target,
  however deep the two models are. Rows are centred, and the map is the least-squares one of smallest norm, without a penalty:
  the limit of ridge regression as the penalty goes to 0. With fewer rows than dimensions it reproduces all of them, and drops
  what of a vector lies outside their span. (Between models of equal width the release fits a rotation; no two here are.)
- A direction is multiplied by the matrix; its length is what results. A moved vector steers at all its blocks at once, on every
  one in proportion to that length: the release weighs blocks so that one factor is common to all.
- The quality that the release reports is R-squared on the rows that the map was fitted on. Nothing is tried in the target.

What belongs to extraction in the release, such as leaving blocks out, is not part of this: both recipes move the difference in
means of one contrast. The recipe is judged in two forms: at the block of the same number as the source's, and at all blocks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp_transfer.activations.capture import FULL_BATCH, capture
from interp_transfer.activations.positions import Layout, Positions
from interp_transfer.evaluation.evaluator import Condition
from interp_transfer.evaluation.judges.embedding import ENCODER
from interp_transfer.interventions.intervention import Intervention
from interp_transfer.mapping.collect import collect
from interp_transfer.mapping.fit import fit
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.identity import identity
from interp_transfer.models.load import load_model
from interp_transfer.models.sites import layer_of
from interp_transfer.paper.charts import Chart, dots
from interp_transfer.paper.measures.real_refusal import DIRECTIONS, KINDS, MAIN, Searched, refusal_task, searched
from interp_transfer.paper.measures.real_traits import PARTS, trait_task
from interp_transfer.paper.neutral import neutral_chats
from interp_transfer.paper.rows import Row, RowsByCase, Verdict, estimate_of, value_of
from interp_transfer.paper.setup import Setup
from interp_transfer.prompts.chats import PromptLike
from interp_transfer.prompts.contrast import Pairs
from interp_transfer.search.strengths import Steer, largest_within
from interp_transfer.stats import Difference, paired_difference
from interp_transfer.studies.controls import Fitter
from interp_transfer.studies.options import RunOptions
from interp_transfer.studies.texts import ANSWER_TOKENS, answered, mapper_tokens, paired, pairs_key, ready_prompts
from interp_transfer.studies.trial import Trial
from interp_transfer.vectors.controls import random_vectors
from interp_transfer.vectors.extract import extract, extract_each
from interp_transfer.vectors.vector import SteeringVector

REFUSAL = "refusal"
OURS, ONE_BLOCK, ALL_BLOCKS = "moved", "recipe, one block", "recipe, all blocks"
BY_CHATS = "moved, by the recipe's chats"
"""Moved by an affine map, as ours, of all tokens of the chats that the recipe pools: it tells the map from its texts."""
SHOWN = ("native", OURS, "random")
COUNTED = "both, ours alone, its alone, neither"
INSIDE = "in span"
AHEAD, CELLS = 4, 6
"""In how many cells ours should be ahead, of how many."""
MORE = 1.2
"""A cell in which ours costs so many times as much clean KL as the recipe does not count as ahead."""
SMALLEST = 1e-4
"""Singular values below this share of the largest are rounding: centring leaves one of them."""


def measure(
    setup: Setup,
    source: str,
    target: str,
    sites: Sequence[str],
    behaviour: str,
    tests: Sequence[str] = ("jailbreakbench",),
    conditions: Sequence[str] = MAIN,
    directions: int = DIRECTIONS,
    dtype: str = "bfloat16",
    encoder: str = ENCODER,
) -> list[Row]:
    """Measure a row for each condition.

    The vector, ours and the controls are those of ``real_refusal`` and ``real_traits``, under the same keys: where these ran
    before with the same conditions, only the recipe is searched and judged.

    Args:
        setup: the data, n and seed.
        source: model that vectors are found on.
        target: model that they are moved to.
        sites: of our vector in the source and in the target.
        behaviour: "refusal" (ablated), or the name of a trait.
        tests: files of harmful requests, for refusal.
        conditions: controls that are searched together with the vectors; of them "random" has a row.
        directions: number of random directions.
        dtype: that both models are loaded in.
        encoder: of the judge of traits.
    """
    if behaviour == REFUSAL:
        task = refusal_task(setup, "ablate", tests)
        ours = searched(setup, task, (source, target), sites, conditions, directions, dtype)
    else:
        ours = _trait(setup, behaviour, (source, target), sites, conditions, directions, dtype, encoder)
    trial, task = ours.trial, ours.trial.task
    judged = {"unsteered": trial.test.unsteered(False)} | trial.judge(ours.vectors, ours.strengths)
    chats = neutral_chats()
    recipe = Recipe.fit(*ours.models, chats)
    found = recipe.vectors(ours.models[0], task.contrast("train"), task.read)
    moved, inside = recipe.move(found, ours.models[1]), recipe.inside(found)
    block = _block_of(sites[0])
    if block not in moved:
        raise ValueError(f"site {sites[0]!r}: the recipe needs a block that both models have, of {len(moved)}")

    def everywhere(strength: float) -> Sequence[Intervention]:
        return [vector.add(strength, task.positions) for vector in moved.values()]

    pairs = collect(*ours.models, chats, *sites, progress=False)
    by_chats = fit(pairs, "affine", models=ours.models, seed=setup.seed, progress=False).transfer(ours.vector)
    vectors = {BY_CHATS: by_chats, ONE_BLOCK: moved[block]}
    steers: dict[str, SteeringVector | Steer] = {**vectors, ALL_BLOCKS: everywhere}
    limits = largest_within(trial.validation, steers, budget=trial.budget)
    strengths = {name: limit.strength for name, limit in limits.items()}
    settings = [[one.add(strengths[name], task.positions)] for name, one in vectors.items()]
    settings.append(list(everywhere(strengths[ALL_BLOCKS])))
    judged |= zip(steers, trial.test.judge_each(settings, list(strengths.values()), progress=False), strict=True)
    places = {name: sites[1] for name in (*SHOWN, BY_CHATS)}
    places |= {ONE_BLOCK: _after(block), ALL_BLOCKS: f"{_after(0)} to {_after(len(moved) - 1)}"}
    shown = [name for name in judged if name in ("unsteered", *SHOWN, *steers)]
    rows = [_row(name, places.get(name, "-"), judged[name], judged[OURS] if name in steers else None) for name in shown]
    return [{**row, INSIDE: f"{inside[block]:.2f}" if row["condition"] == ONE_BLOCK else None} for row in rows]


@dataclass(frozen=True)
class Recipe:
    """Maps between blocks of the same number, fitted on one row of each of some chats.

    Attributes:
        maps: by block, a matrix from the source's activations after it to the target's.
        spans: by block, an orthonormal basis of the source's centred rows.
    """

    maps: Mapping[int, Float[Tensor, "d_source d_target"]]
    spans: Mapping[int, Float[Tensor, "component d_source"]]

    @classmethod
    def fit(cls, source: HookedModel, target: HookedModel, chats: Sequence[PromptLike]) -> "Recipe":
        """Fit the map of every block that both models have."""
        blocks = range(min(int(source.cfg.n_layers), int(target.cfg.n_layers)))
        sites = [_after(block) for block in blocks]
        options: dict[str, Any] = {"batch_tokens": FULL_BATCH, "progress": False}
        x, y = (capture(model, chats, sites, last_content, **options) for model in (source, target))
        fitted = [least_squares(x[site], y[site]) for site in sites]
        maps, spans = ({block: one[part] for block, one in zip(blocks, fitted, strict=True)} for part in (0, 1))
        return cls(maps, spans)

    def vectors(self, source: HookedModel, contrast: Pairs, read: Positions) -> dict[int, SteeringVector]:
        """The difference in means of a contrast after each block of the source."""
        sites = {_after(block): block for block in self.maps}
        found = extract_each(source, contrast, list(sites), read, evidence_rows=1, progress=False)
        return {sites[site]: vector for site, vector in found.items()}

    def move(self, vectors: Mapping[int, SteeringVector], target: HookedModel) -> dict[int, SteeringVector]:
        """Vectors of blocks of the source, each moved to the target's block of the same number."""
        moved = {}
        for block, vector in vectors.items():
            direction = (vector.direction.double() @ self.maps[block]).float()
            note = f"moved from {vector.site} of {vector.model} by a map of pooled sentences"
            moved[block] = SteeringVector(direction, _after(block), identity(target), history=(note,))
        return moved

    def inside(self, vectors: Mapping[int, SteeringVector]) -> dict[int, float]:
        """The share of each vector's squared length that lies in the span of the rows: the rest is dropped."""
        shares = {}
        for block, vector in vectors.items():
            direction = vector.direction.double()
            shares[block] = float((self.spans[block] @ direction).square().sum() / direction.square().sum().clamp(min=1e-30))
        return shares


def least_squares(
    x: Float[Tensor, "row d_source"], y: Float[Tensor, "row d_target"]
) -> tuple[Float[Tensor, "d_source d_target"], Float[Tensor, "component d_source"]]:
    """The matrix of smallest norm that maps centred rows to centred rows with the least error, and a basis of the former."""
    a, b = (rows.double() - rows.double().mean(dim=0) for rows in (x, y))
    u, s, v = torch.linalg.svd(a, full_matrices=False)
    large = s > SMALLEST * s.max()
    return (v[large].T / s[large]) @ (u[:, large].T @ b), v[large]


def last_content(layout: Layout) -> Bool[Tensor, "row column"]:
    """The last token of each text that is neither special nor added to the vocabulary; the first where all are."""
    special = {*layout.tokenizer.all_special_ids, *layout.tokenizer.get_added_vocab().values()}
    plain = layout.real & ~torch.isin(layout.tokens, torch.tensor(sorted(special)))
    plain[:, 0] |= ~plain.any(dim=1)
    place = torch.where(plain, layout.position, -1)
    return place == place.max(dim=1, keepdim=True).values


def _trait(
    setup: Setup,
    name: str,
    models: tuple[str, str],
    sites: Sequence[str],
    conditions: Sequence[str],
    directions: int,
    dtype: str,
    encoder: str,
) -> Searched:
    """The vectors of a trait at their strengths, as ``real_traits`` finds them."""
    a, b = (load_model(one, dtype=dtype) for one in models)
    pair = (sites[0], sites[1])
    n = min(setup.n, PARTS["test"])
    how = RunOptions(mapper="affine", equal_cost=True, n=n, n_validation=PARTS["validation"], seed=setup.seed)
    texts = answered(b, ready_prompts(setup.seed), mapper_tokens((a, b)), ANSWER_TOKENS, progress=False)
    key = pairs_key((a, b), texts, pair, how.alignment)
    fitter = Fitter(paired((a, b), texts, pair, how.alignment, False), (a, b), key, setup.kept, False)
    mapper = fitter.fit(how.mapper, setup.seed)
    task, _ = trait_task(setup, name, b, encoder)
    vector, native = (
        extract(model, task.contrast("train"), site, task.read, seed=setup.seed, progress=False)
        for model, site in zip((a, b), pair, strict=True)
    )
    moved = mapper.transfer(vector)
    vectors = {"native": [native], OURS: [moved], "random": random_vectors(moved, directions, setup.seed)}
    if "shuffled" in conditions:
        shuffled = fitter.fit(how.mapper, setup.seed, shuffled="all")
        vectors["shuffled"] = [shuffled.transfer(vector).normalized(moved.norm)]
    trial = Trial(b, task, how, setup.kept, False)
    return Searched((a, b), vector, mapper, vectors, trial.strengths(vectors), trial)


def _after(block: int) -> str:
    return f"blocks.{block}.hook_resid_post"


def _block_of(site: str) -> int:
    """The block whose output a site is; -1 for the embeddings."""
    block = layer_of(site)
    if block is None or not site.endswith(("hook_resid_pre", "hook_resid_post")):
        raise ValueError(f"site {site!r}: the recipe reads outputs of blocks: give the input or the output of one")
    return block - site.endswith("hook_resid_pre")


def _row(name: str, site: str, judged: Condition, ours: Condition | None) -> Row:
    pairs = [(x.success, y.success) for x, y in zip(ours.verdicts, judged.verdicts, strict=True)] if ours is not None else []
    row = {"condition": name, "steered at": site, "strength": f"{judged.strength:.3g}" if judged.strength else "-"}
    measured = {"success": judged.success, "intact": judged.intact, "clean KL": judged.cost}
    return {**row, **measured, COUNTED: "/".join(str(pairs.count(kind)) for kind in KINDS) if pairs else None}


def ahead(row: Row) -> Difference:
    """The share of prompts with success under our vector, minus that under the recipe's."""
    ours: list[bool] = []
    its: list[bool] = []
    for count, (one, other) in zip(map(int, str(row[COUNTED]).split("/")), KINDS, strict=True):
        ours += [one] * count
        its += [other] * count
    return paired_difference(ours, its)


def chart(rows_by_case: RowsByCase) -> Chart:
    """The success of every condition in each cell."""
    names = ("unsteered", *SHOWN, BY_CHATS, ONE_BLOCK, ALL_BLOCKS)
    return dots(rows_by_case, "success", "success", "condition", {one: one for one in names})


def verdict(rows_by_case: RowsByCase) -> Verdict:
    """In how many cells ours is ahead of both forms of the recipe."""
    good, details = 0, []
    for case, rows in rows_by_case.items():
        found = {str(row["condition"]): row for row in rows}
        differences = {name: ahead(found[name]) for name in (ONE_BLOCK, ALL_BLOCKS)}
        costs = {name: value_of(found[name], "clean KL") for name in (OURS, ONE_BLOCK, ALL_BLOCKS)}
        above = estimate_of(found[OURS], "success").low > value_of(found["random"], "success")
        dearer = [name for name in differences if costs[OURS] > MORE * costs[name]]
        good += above and not dearer and all(one.low > 0 for one in differences.values())
        said = [f"{name} {estimate_of(row, 'success'):.2f}" for name, row in found.items()]
        said += [
            f"ours minus {name} {one.difference:+.2f} [{one.low:+.2f}, {one.high:+.2f}]" for name, one in differences.items()
        ]
        said += [] if above else ["ours is not above random"]
        said += [f"not at equal cost: clean KL {costs[OURS]:.3f}, that of {name} {costs[name]:.3f}" for name in dearer]
        details.append(f"{case}: {', '.join(said)}")
    open_ = CELLS - len(rows_by_case)
    answer = "yes" if good >= AHEAD else "cannot tell" if good + open_ >= AHEAD else "in part" if good else "no"
    sentence = f"Ours is ahead of both forms of the recipe, at no higher cost, in {good} of {len(rows_by_case)} cells; "
    sentence += f"{AHEAD} of {CELLS} decide."
    return Verdict(answer, sentence, tuple(details))
