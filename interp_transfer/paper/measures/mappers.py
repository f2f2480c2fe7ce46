"""Kinds of mappers and modes of moving, side by side: does a map that is not linear do better than one in closed form?

Each mapper is fitted with several seeds, which are a source of spread of their own; closed forms differ by the texts that are
held out. KL and agreement are of full replacement on the target's own answers to clean prompts; what the moved vector does is
judged at the strength that validation prompts choose within the task's budget.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from interp_transfer.activations.align import DEFAULT_STRATEGY
from interp_transfer.evaluation.evaluator import random_like
from interp_transfer.interventions.follow import follow
from interp_transfer.interventions.generation import generate_tokens
from interp_transfer.interventions.intervention import Intervention
from interp_transfer.interventions.predictions import teacher_forced
from interp_transfer.interventions.transforms import MeanAblate
from interp_transfer.mapping.move import DEFAULT_MODE
from interp_transfer.models.tokens import tokenize
from interp_transfer.paper.bench import bench, some
from interp_transfer.paper.rows import Estimate, Found, Row, Verdict, between, estimate_of, graded, share, spread, value_of
from interp_transfer.stats import mean_interval

AFFINE = ("affine", "procrustes")
"""Closed forms; the best of these stands for linear maps."""
NEARLY = 0.05
"""Share of prompts that counts as no difference."""


def measure(
    edition: str,
    n: int,
    seed: int,
    task: str,
    source: str,
    target: str,
    mappers: Mapping[str, Mapping[str, Any]],
    modes: Sequence[str] = (DEFAULT_MODE,),
    replacement: bool = True,
    strategy: str = DEFAULT_STRATEGY,
    sites: Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> list[Row]:
    """A row for each mapper and mode, then native, random, and the site's mean.

    Args:
        edition: "organisms" or "paper".
        n: prompts.
        seed: of the prompts; mappers take this and the next ones.
        task: its name.
        source: model that vectors are found on.
        target: model that they go to.
        mappers: settings of ``fit`` by a name to show; ``kind`` is one of them, and ``seeds`` how many are fitted, 1 unless
            given. Estimates are of the first seed.
        modes: of moving.
        replacement: measure full replacement too.
        strategy: how tokens are paired.
        sites: of both.
        options: of the task.
    """
    b = bench(edition, task, source, target, seed, sites, options)
    pairs, test, side = b.pairs(strategy), b.target.test(n), b.target
    clean = some(b.task.clean("test"), n, seed, "clean prompts")
    read, own = tokenize(side.model, clean), generate_tokens(side.model, clean, max_new_tokens=40, progress=False)

    def replaced(put: Intervention | None) -> dict[str, Any]:
        if put is None:
            return {"KL": None, "agreement": None}
        left = teacher_forced(side.model, read, own, put)
        return {"KL": mean_interval(left.kl.tolist()), "agreement": mean_interval(left.agreement.tolist())}

    unexplained = b.unexplained(n, strategy)
    rows: list[Row] = []
    for name, given in mappers.items():
        settings = dict(given)
        kind, seeds = settings.pop("kind"), settings.pop("seeds", 1)
        fitted = [b.fit(pairs, kind, seed + k, settings) for k in range(seeds)]
        put = follow(b.source.model, b.source.site, side.site, fitted[0]) if replacement else None
        left, fvu = replaced(put), unexplained(fitted[0])
        for mode in modes:
            moved = [m.transfer(b.source.vector, mode) for m in fitted]
            strengths = [side.fair(v) for v in moved]
            judged = [test.judge([(side.steer(v, x),)], x, progress=False) for v, x in zip(moved, strengths, strict=True)]
            norm = moved[0].norm / side.vector.norm
            row: dict[str, Any] = {"mapper": name, "mode": mode, "FVU": fvu, **left}
            row |= {"cosine to native": moved[0].cosine(side.vector), "length to native": norm}
            row |= {"strength": f"{strengths[0]:g}", "success": share(judged[0].success), "intact": share(judged[0].intact)}
            several = [c.intact.value for c in judged]
            rows.append(row | {"intact, seeds": spread(several) if seeds > 1 else None})
    x = side.fair(side.vector)
    noise = side.fair_random(side.vector)
    mean_of_site = pairs.rows()[2].double().mean(dim=0).float()
    native = test.judge([(side.steer(side.vector, x),)], x, progress=False)
    random = test.judge([(r,) for r in random_like(side.steer(side.vector, noise), seed)], noise, progress=False)
    ablated = test.mean_ablated(side.steer(side.vector, 1.0), progress=False)
    blank = dict.fromkeys(rows[0], None)
    for name, judged, put in (
        ("native vector", native, None),
        ("random vectors", random, None),
        ("mean ablated", ablated, Intervention(side.site, MeanAblate(mean_of_site), "all") if replacement else None),
    ):
        row = {**blank, "mapper": name, "mode": "-", **replaced(put)}
        row |= {"strength": f"{judged.strength:g}" if judged.strength else "-"}
        rows.append(row | {"success": share(judged.success), "intact": share(judged.intact)})
    return rows


def verdict(found: Found) -> Verdict:
    """Whether the paper's map beats the best closed form, by what the moved vector does; or which mode moves a vector."""
    modes = {row["mode"] for rows in found.values() for row in rows} - {"-"}
    return _on_modes(found) if len(modes) > 1 else _on_mappers(found)


def _on_mappers(found: Found) -> Verdict:
    better, fits, details = [], [], []
    for case, rows in found.items():
        moved = {str(row["mapper"]): estimate_of(row, "intact") for row in rows if row["mode"] != "-"}
        groups = ({n: e for n, e in moved.items() if (n in AFFINE) == linear} for linear in (True, False))
        (name, linear), (other, rest) = (max(group.items(), key=lambda one: one[1].value) for group in groups)
        better += [case] if rest.low > linear.value + NEARLY else []
        left = {str(row["mapper"]): value_of(row, "FVU") for row in rows if isinstance(row.get("FVU"), Estimate)}
        if left:
            fits.append(min(x for n, x in left.items() if n not in AFFINE) < min(x for n, x in left.items() if n in AFFINE))
        near = abs(rest.value - linear.value) <= NEARLY
        word = "as much as" if near else "more than" if rest.value > linear.value else "less than"
        native = next(value_of(row, "intact") for row in rows if row["mapper"] == "native vector")
        told = f"{other} leaves {rest.value:.3f} intact, {word} {name} ({linear.value:.3f})"
        details.append(f"{case}: {told}; native {native:.3f}")
    where = f" ({'; '.join(better)})" if better else ""
    sentence = f"The moved vector leaves clearly more answers intact through a map that is not linear in {len(better)} of "
    sentence += f"{len(found)} cases{where}."
    if fits:
        sentence += f" Such a map leaves less of the variance unexplained in {sum(fits)} of {len(fits)}."
    return Verdict(graded(len(better) + sum(fits), len(found) + len(fits)), sentence, tuple(details))


def _on_modes(found: Found) -> Verdict:
    details, raw, others = [], [], []
    for case, rows in found.items():
        best: dict[str, float] = {}
        for row in rows:
            mode = str(row["mode"])
            if mode != "-":
                best[mode] = max(best.get(mode, 0.0), value_of(row, "success"))
        native = next(value_of(row, "success") for row in rows if row["mapper"] == "native vector")
        details.append(f"{case}: success of {', '.join(f'{m} {x:.3f}' for m, x in best.items())}; native {native:.3f}")
        raw.append(best.pop("raw", math.nan))
        others.append(min(best.values()))
    agrees = "no" if max(raw) < 0.5 * min(others) else "in part"
    sentence = "A literal f(v) does next to nothing" if agrees == "no" else "A literal f(v) does less than mapped activations"
    sentence += f" (success {between(raw)}); the least of the other three ways brings about {between(others)}."
    return Verdict(agrees, sentence, tuple(details))
