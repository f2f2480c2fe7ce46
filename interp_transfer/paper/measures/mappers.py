"""Kinds of mappers and modes of moving compared: does a map that is not linear do better than one in closed form?

Each mapper is fitted with several seeds, which are a source of spread of their own; closed forms differ by the texts that are
held out. KL and agreement are of full replacement on the target's own answers to clean prompts; what the moved vector does is
judged at the strength that validation prompts choose within the task's budget.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from interp_transfer.evaluation.replacement import MAPPED, validate_replacement
from interp_transfer.interventions.follow import follow
from interp_transfer.interventions.generation import generate_tokens
from interp_transfer.interventions.intervention import Intervention
from interp_transfer.interventions.predictions import teacher_forced_each
from interp_transfer.interventions.transforms import MeanAblate
from interp_transfer.mapping.mappers import Mapper
from interp_transfer.mapping.move import DEFAULT_MODE
from interp_transfer.models.tokens import tokenize
from interp_transfer.paper.charts import Chart, Dots, Headline, Line, dots
from interp_transfer.paper.rows import (
    Row,
    RowsByCase,
    Verdict,
    estimate_of,
    grade,
    mean_and_range,
    value_of,
    value_range,
)
from interp_transfer.paper.setup import TwoModels, shares
from interp_transfer.paper.token_means import token_means
from interp_transfer.stats import Estimate, mean_interval

AFFINE = ("affine", "procrustes")
"""Closed forms; the best of these stands for linear maps."""
NEARLY = 0.05
"""Difference between two shares of prompts that counts as none."""


def measure(
    setup: TwoModels,
    mappers: Mapping[str, Mapping[str, Any]],
    modes: Sequence[str] = (DEFAULT_MODE,),
    replacement: bool = True,
    detailed: bool = False,
) -> list[Row]:
    """Measure a row for each mapper and mode, then native, random, and the site's mean.

    Args:
        setup: the models and the task; mappers take its seed and the next ones.
        mappers: settings of ``fit`` by the name that the table shows. ``kind`` is one of them; ``seeds`` is how many are
            fitted, 1 unless given; ``shuffled`` fits on shuffled pairs. Estimates are of the first seed.
        modes: of moving.
        replacement: measure full replacement too.
        detailed: add full replacement by group of clean prompts, MvA (the share of completions that are closer to the
            target's than mean-ablated ones), the vector at strength 1, parameters, CPU seconds, and the token's mean.
    """
    source, target = setup.source, setup.target
    pairs, native = setup.pairs(), target.vector
    replaced = _replacement(setup, detailed)
    rows: list[Row] = []
    for name, options in mappers.items():
        settings = dict(options)
        kind, seeds, shuffled = settings.pop("kind"), settings.pop("seeds", 1), settings.pop("shuffled", False)
        start = time.process_time()
        fitted = [
            setup.fit(pairs.shuffled(seed) if shuffled else pairs, kind, seed, settings)
            for seed in range(setup.seed, setup.seed + seeds)
        ]
        seconds = (time.process_time() - start) / seeds
        put = follow(source.model, source.site, target.site, fitted[0]) if replacement else None
        left, fvu = replaced(put), setup.fvu(fitted[0])
        for mode in modes:
            moved = [mapper.transfer(source.vector, mode) for mapper in fitted]
            judged = target.judge_fair(moved)
            row: dict[str, Any] = {"mapper": name, "mode": mode, "FVU": fvu, **left}
            row |= {"cosine to native": moved[0].cosine(native), "length to native": moved[0].norm / native.norm}
            row |= {"strength": f"{judged[0].strength:.3g}", **shares(judged[0])}
            row["intact, seeds"] = mean_and_range([c.intact.value for c in judged]) if seeds > 1 else None
            if detailed:
                row["success, seeds"] = mean_and_range([c.success.value for c in judged]) if seeds > 1 else None
                row |= {"parameters": fitted[0].card.parameters, "CPU seconds": seconds}
                row |= _at_strength_one(setup, fitted[0], mode)
            rows.append(row)
    rows += _baselines(setup, pairs, replaced if replacement else lambda _: replaced(None), dict.fromkeys(rows[0], None))
    if detailed and replacement:
        means = Intervention(target.site, token_means(pairs, seed=setup.seed), "all")
        rows.append({**dict.fromkeys(rows[0], None), "mapper": "mean of the token", "mode": "-", **replaced(means)})
    return rows


def _baselines(setup: TwoModels, pairs: Any, replaced: Callable[..., dict[str, Any]], blank: Row) -> list[Row]:
    target, native = setup.target, setup.target.vector
    site_mean = Intervention(target.site, MeanAblate(pairs.rows()[2].double().mean(dim=0).float()), "all")
    conditions = {
        "native vector": (target.judge_fair([native])[0], None),
        "random vectors": (target.judge_random(), None),
        "mean ablated": (target.test.mean_ablated(target.steer(native, 1.0), progress=False), site_mean),
    }
    rows: list[Row] = []
    for name, (judged, put) in conditions.items():
        row = {**blank, "mapper": name, "mode": "-", **replaced(put)}
        rows.append(row | {"strength": f"{judged.strength:.3g}" if judged.strength else "-", **shares(judged)})
    return rows


def _replacement(setup: TwoModels, detailed: bool) -> Callable[[Intervention | None], dict[str, Any]]:
    """A function that measures full replacement by an intervention; without one, its columns are empty."""
    target, task = setup.target, setup.task
    clean = task.clean("test")
    groups = {"": clean}
    if detailed and task.group is not None:
        groups = {f", {name}": [p for p in clean if task.group(p) == name] for name in sorted(set(map(task.group, clean)))}
    prompts = {name: setup.draw(part, f"clean prompts{name}") for name, part in groups.items()}
    tokens = {name: tokenize(target.model, part) for name, part in prompts.items()}
    answers = {name: generate_tokens(target.model, part, max_new_tokens=40, progress=False) for name, part in prompts.items()}

    def replaced(put: Intervention | None) -> dict[str, Any]:
        row: dict[str, Any] = {}
        for name in prompts:
            if put is None:
                row |= {f"KL{name}": None, f"agreement{name}": None}
                continue
            [left] = teacher_forced_each(target.model, tokens[name], answers[name], [(put,)])
            row |= {f"KL{name}": mean_interval(left.kl.tolist()), f"agreement{name}": mean_interval(left.agreement.tolist())}
        if detailed:
            row["MvA"] = _closer(setup, put, next(iter(prompts.values()))) if put is not None else None
        return row

    return replaced


def _closer(setup: TwoModels, put: Intervention, prompts: Sequence[str]) -> Estimate:
    compared = validate_replacement(setup.source.model, setup.target.model, put, prompts, progress=False)
    return compared.slices["all"][MAPPED].mva["rougeL"].share


def _at_strength_one(setup: TwoModels, mapper: Mapper, mode: str) -> dict[str, Any]:
    row = {}
    for norm in ("mapped", "spread"):
        vector = mapper.transfer(setup.source.vector, mode, norm)
        row[f"success at 1, {norm}"] = setup.target.judge(vector, 1.0).success
    return row


def tables(name: str, rows_by_case: RowsByCase) -> dict[str, list[Row]]:
    """The table itself; for the table of all tasks also a short one of success, a row for each task."""
    rows: dict[str, list[Row]] = {name: [{"case": case, **row} for case, rows in rows_by_case.items() for row in rows]}
    if name == "mappers":
        rows["success"] = [
            {"task": case, **{str(r["mapper"]): r["success"] for r in rows if r["success"] is not None}}
            for case, rows in rows_by_case.items()
        ]
    return rows


def verdict(cases: RowsByCase) -> Verdict:
    """Whether the paper's map beats the best closed form, by what the moved vector does; or which mode moves a vector."""
    modes = {row["mode"] for rows in cases.values() for row in rows} - {"-"}
    return _on_modes(cases) if len(modes) > 1 else _on_mappers(cases)


def _on_mappers(cases: RowsByCase) -> Verdict:
    better, fits, details = [], [], []
    for case, rows in cases.items():
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
        summary = f"{other} leaves {rest.value:.3f} intact, {word} {name} ({linear.value:.3f})"
        details.append(f"{case}: {summary}; native {native:.3f}")
    where = f" ({'; '.join(better)})" if better else ""
    sentence = f"The moved vector leaves clearly more answers intact through a map that is not linear in {len(better)} of "
    sentence += f"{len(cases)} cases{where}."
    if fits:
        sentence += f" Such a map leaves less of the variance unexplained in {sum(fits)} of {len(fits)}."
    return Verdict(grade(len(better) + sum(fits), len(cases) + len(fits)), sentence, tuple(details))


def _on_modes(cases: RowsByCase) -> Verdict:
    details, raw, others = [], [], []
    for case, rows in cases.items():
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
    sentence += f" (success {value_range(raw)}); the least of the other three ways brings about {value_range(others)}."
    return Verdict(agrees, sentence, tuple(details))


def chart(cases: RowsByCase) -> Chart:
    """Intact answers by kind of mapper; or success by mode."""
    if not _modes(cases):
        names = {str(row["mapper"]): str(row["mapper"]) for rows in cases.values() for row in rows if row["mode"] != "-"}
        names |= {"native vector": "native", "random vectors": "random"}
        return dots(cases, "intact answers under the moved vector", "intact", "mapper", names)
    groups: dict[str, dict[str, Estimate]] = {}
    for case, rows in cases.items():
        baselines = {"native vector": "native", "random vectors": "random"}
        beside = {baselines[str(r["mapper"])]: estimate_of(r, "success") for r in rows if r["mapper"] in baselines}
        for row in rows:
            if row["mode"] != "-":
                groups.setdefault(f"{case}; {row['mapper']}", {})[str(row["mode"])] = estimate_of(row, "success")
        groups |= {name: {**group, **beside} for name, group in groups.items() if name.startswith(f"{case};")}
    return Dots("success under the moved vector", groups)


def _modes(cases: RowsByCase) -> bool:
    return len({row["mode"] for rows in cases.values() for row in rows} - {"-"}) > 1


def headline(cases: RowsByCase) -> Headline:
    """Intact answers by the best non-linear and the best affine map; or success of f(v) and of the least other mode."""
    lines = []
    modes = _modes(cases)
    for case, rows in cases.items():
        column, own = ("success", {"raw"}) if modes else ("intact", {str(r["mapper"]) for r in rows} - set(AFFINE))
        mine = [(str(row["mode" if modes else "mapper"]) in own, row) for row in rows if row["mode"] != "-"]
        ours = max((estimate_of(row, column) for is_own, row in mine if is_own), key=lambda one: one.value)
        rest: dict[str, float] = {}
        for is_own, row in mine:
            if not is_own:
                name = str(row["mode"]) if modes else "linear"
                rest[name] = max(rest.get(name, 0.0), value_of(row, column))
        lines.append(Line(case, ours, min(rest.values())))
    if modes:
        return Headline("success of a literal f(v)", "least of the other modes", tuple(lines))
    return Headline("intact, best non-linear map", "best affine map", tuple(lines))
