"""Tables of SAE features: the quality of the SAEs that ship, what one feature does, and SAEs moved whole."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from interp_transfer.activations.capture import capture
from interp_transfer.evaluation.sae_quality import fit_of, measure_sae
from interp_transfer.evaluation.tasks import load_task
from interp_transfer.features.sae import Sae, load_sae
from interp_transfer.features.train import train_sae
from interp_transfer.mapping.collect import collect
from interp_transfer.mapping.fit import fit
from interp_transfer.models.load import load_model
from interp_transfer.organisms.saes import RECIPES, SITES, TASK
from interp_transfer.stats import Estimate
from interp_transfer.studies.features import move_features
from interp_transfer.studies.features_result import MovedFeatures
from interp_transfer.transfer.saes import move_sae

Row = Mapping[str, Any]
STEPS = (300, 600, 1200)
"""Numbers of training steps that are compared, besides those of the whole recipe."""
LISTED = 5
"""Number of candidates that are listed for each direction."""


def measure(setup: Any, part: str, source: str, target: str) -> list[Row]:
    """Measure one part of the tables.

    Args:
        setup: n and seed.
        part: "quality" of the two SAEs, "features" of the source moved to the target, or "warm start" of a training.
        source: name of the model whose SAE is moved.
        target: name of the model that it is moved to.
    """
    if part == "quality":
        return [_quality(name) for name in (source, target)]
    if part == "warm start":
        return _warm_start(source, target)
    tasks = {name: load_task(TASK, direction=name) for name in ("remove", "induce")}
    result = move_features(
        load_model(source),
        load_model(target),
        tasks,
        load_sae(source),
        load_sae(target),
        n=setup.n,
        seed=setup.seed,
        progress=False,
    )
    return [*_conditions(result), *_candidates(result), *_flips(result), *_matches(result)]


def tables(name: str, rows_by_case: Mapping[str, Sequence[Row]]) -> dict[str, list[Row]]:
    """The rows of all parts; each change of columns starts another table."""
    return {name: [row for rows in rows_by_case.values() for row in rows]}


def _quality(name: str) -> Row:
    model = load_model(name)
    sae = load_sae(name, model=model)
    quality = measure_sae(sae, model, load_task(TASK), split="test")
    row: dict[str, Any] = {"SAE of": name, "site": SITES[name], "features": sae.n_features}
    row |= {"explained variance": quality.explained_variance, "active": quality.l0, "dead": quality.dead}
    row |= {"spliced in, nats": quality.spliced_kl, "mean-ablated": quality.mean_ablated_kl}
    return row | {"valid": quality.valid, "spliced": quality.valid_spliced}


def _conditions(result: MovedFeatures) -> list[Row]:
    rows: list[Row] = []
    for row in result.to_frame().to_dict("records"):
        first = {name: row[name] for name in ("direction", "model", "condition")}
        first["scale"] = f"{row['scale']:.3g}" if row["scale"] else "-"
        shares = {s: Estimate(row[s], row[f"{s}_low"], row[f"{s}_high"], row["n"]) for s in ("success", "intact")}
        rows.append({**first, **shares, "clean KL": float(row["clean_kl"])})
    return rows


def _candidates(result: MovedFeatures) -> list[Row]:
    """The first candidates by difference, and the best scale of each in both models."""
    rows: list[Row] = []
    for name, direction in result.directions.items():
        ranked = direction.ranking["feature"].tolist()
        for feature in direction.home["feature"].drop_duplicates().head(LISTED):
            means = direction.ranking.iloc[ranked.index(feature)]
            row: dict[str, Any] = {"direction": name, "feature": int(feature), "place": ranked.index(feature) + 1}
            row["difference"] = f"{means['wanted'] - means['other']:+.4f}"
            for title, frame in (("source, best scale", direction.home), ("moved, best scale", direction.there)):
                best = frame[frame["feature"] == feature].iloc[0]
                row[title] = "{success:.2f}, intact {intact:.2f} at {scale:.3g}".format(**best)
            rows.append(row)
    return rows


def _flips(result: MovedFeatures) -> list[Row]:
    """The paper's protocol: rows replaced by their reconstruction, with the feature set."""
    rows: list[Row] = []
    for name, direction in result.directions.items():
        for positions, scales in direction.flips.items():
            for scale, flips in scales.items():
                row = {"direction": name, "positions": positions, "scale": f"{scale:g}"}
                row |= {"reconstruction alone": flips.reconstruction, "feature set": flips.feature}
                rows.append(row | {"of those that reconstruction leaves": flips.corrected})
    return rows


def _matches(result: MovedFeatures) -> list[Row]:
    """What the moved SAE resembles."""
    plain = result.to_dict()
    matches = {"moved": plain["matches"], "moved by shuffled pairs": plain["shuffled_matches"]}
    rows: list[Row] = []
    for name, (explained, active, dead) in result.fits.items():
        row: dict[str, Any] = {"SAE in the target": name, "explained variance": explained, "active": active, "dead": dead}
        similar = matches.get(name, {})
        rows.append(row | {column: similar.get(column) for column in ("median cosine", "median correlation", "mutual")})
    return rows


def _warm_start(source: str, target: str) -> list[Row]:
    """Explained variance after some steps, from a moved SAE, one moved by shuffled pairs, and random weights."""
    task, here, there = load_task(TASK), SITES[source], SITES[target]
    models, sae = (load_model(source), load_model(target)), load_sae(source)
    pairs = collect(*models, task.texts("train"), here, there, progress=False)
    starts: dict[str, Sae | None] = {"random": None}
    for name, chosen in (("moved", pairs), ("moved by shuffled pairs", pairs.shuffled(0))):
        there_and_back = [fit(each, "affine", progress=False) for each in (chosen, chosen.reversed())]
        rows_here, rows_there = pairs.source[here][:2048].float(), pairs.target[there][:2048].float()
        starts[name] = move_sae(sae, there_and_back[0], there_and_back[1], rows_here, rows_there)
    acts = capture(models[1], task.texts("train"), there, progress=False)
    held_out = capture(models[1], task.texts("validation")[:300], there, progress=False)[there]
    recipe = RECIPES[target]
    recipe = replace(recipe, expansion=max(recipe.expansion, sae.n_features // acts[there].shape[1]))
    rows: list[Row] = []
    for steps in (*STEPS, recipe.epochs * (len(acts[there]) // recipe.batch_size)):
        row: dict[str, Any] = {"from, to": f"{source} to {target}", "steps": steps}
        for name, start in starts.items():
            trained = train_sae(acts, there, recipe, start=start, steps=steps)
            row[name] = f"{fit_of(trained, held_out)[0]:.4f}"
        rows.append(row)
    return rows
