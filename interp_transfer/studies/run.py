"""The whole pipeline on one screen.

prompts -> activations -> steering vector -> mapper -> moved vector -> intervention -> comparison -> report
"""

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from interp_transfer.activations.align import DEFAULT_STRATEGY, find_strategy
from interp_transfer.activations.positions import Layout, Positions, describe, select, token_spans
from interp_transfer.evaluation.compare import Result, about
from interp_transfer.evaluation.evaluator import (
    CLEAN_PROMPTS,
    Condition,
    Evaluator,
    add_readings,
    draw,
    evaluator,
    mean_ablation,
    random_like,
)
from interp_transfer.evaluation.metrics import loss_recovered
from interp_transfer.evaluation.side_effects import SideEffects
from interp_transfer.evaluation.side_effects import side_effects as side_effects_of
from interp_transfer.evaluation.task import Task
from interp_transfer.evaluation.tasks import load_task
from interp_transfer.interventions.follow import follow
from interp_transfer.interventions.intervention import Intervention, add
from interp_transfer.mapping.collect import collect
from interp_transfer.mapping.fit import check_kind, fit
from interp_transfer.mapping.mappers import Mapper
from interp_transfer.mapping.move import DEFAULT_MODE, DEFAULT_NORM, MODES, find_mode, find_norm
from interp_transfer.mapping.token_classes import fits_by_token_class
from interp_transfer.models.hooked_model import HookedModel, parameter_count
from interp_transfer.models.identity import identity
from interp_transfer.models.load import load_model
from interp_transfer.models.sites import check_site
from interp_transfer.models.tokens import tokenize, tokenizer_fingerprint, tokenizer_of
from interp_transfer.plugins import known_model
from interp_transfer.reporting.report import write_report
from interp_transfer.reporting.run_folder import read_result
from interp_transfer.search.strengths import RULE, STRENGTHS, choose, sweep_strengths
from interp_transfer.stats import paired_difference
from interp_transfer.vectors.extract import extract
from interp_transfer.vectors.vector import SteeringVector

EXAMPLES = 12
VALIDATION_PROMPTS = 100
"""At most."""
PLACES = 100
"""Prompts that show the behaviour, and as many that do not, by which a mapper is judged token by token."""
VARIANTS = ("autoencoder", "affine")
"""Mappers that stand beside the chosen one."""
VARIANT_PROMPTS = 50
"""Of those, for the strengths of the other modes and mappers, which are many."""


def run(
    task: str | Task,
    source: str = "micro-qwen-s",
    target: str = "micro-qwen-m",
    *,
    mapper: str = "autoencoder",
    settings: Mapping[str, Any] | None = None,
    mode: str = DEFAULT_MODE,
    norm: str = DEFAULT_NORM,
    alignment: str = DEFAULT_STRATEGY,
    source_site: str | None = None,
    target_site: str | None = None,
    direction: str | None = None,
    n: int = 200,
    seed: int = 0,
    budget: float | None = None,
    strengths: Sequence[float] = STRENGTHS,
    variants: bool = True,
    side_effects: bool = True,
    out: str | Path | None = None,
    progress: bool = True,
) -> Result:
    """Find a vector on one model, move it to another, and compare what it does there with every baseline.

    Args:
        task: a task, or its name.
        source: model that the vector is found on; a base organism means its fine-tune for the task.
        target: model that it is moved to; likewise.
        mapper: kind of mapper.
        settings: of the mapper, such as ``{"width": 2048, "epochs": 40}``; see ``mapping.kinds``.
        mode: how the vector is moved, see ``mapping.transfer``.
        norm: what length it is given there before strengths are chosen: "mapped" or "spread", see ``mapping.transfer``.
        alignment: how tokens are paired where the tokenizers differ, see ``activations.align``.
        source_site: where the vector is found; the one on the model's card if not given.
        target_site: where it goes; likewise.
        direction: for tasks that go more than one way: "ablate" (the default) or "induce" for refusal.
        n: held-out prompts that conditions are judged on.
        seed: of everything that is drawn.
        budget: clean KL, in nats per token, within which each condition may choose its strength; the task's own unless given.
        strengths: among which it may.
        variants: also judge the other modes, and the other mapper.
        side_effects: also measure what native, moved and a random vector (the first draw) cost elsewhere, see
            ``evaluation.side_effects``, and what the mapper recovers of the loss that mean ablation costs.
        out: folder for result.json, report.html, vectors and mapper; it must not hold anything yet.
        progress: show bars when it takes longer than two seconds.

    Raises:
        ValueError: for anything unknown, before any work, with the closest name.
    """
    asked = None
    if isinstance(task, str):
        asked = {"task": task, "direction": direction, "source": source, "target": target, "mapper": mapper, "mode": mode}
        asked |= {"norm": norm, "alignment": alignment, "source_site": source_site, "target_site": target_site, "n": n}
        asked |= {"settings": dict(settings or {}), "side_effects": side_effects}
        asked |= {"seed": seed, "budget": budget, "strengths": list(map(float, strengths)), "variants": variants}
    task = named_task(task, direction)
    check_kind(mapper, settings)
    find_mode(mode)
    find_norm(norm)
    find_strategy(alignment)
    asked_prompts = draw(task.prompts("test"), n, seed, f"test prompts of {task.name}")
    if task.answers is not None:
        task.answers(asked_prompts)  # to fail before any work
    enough = min(VALIDATION_PROMPTS, len(task.prompts("validation")))
    allowed: float = task.budget if budget is None else budget
    if not strengths or not all(x > 0 for x in strengths) or not allowed > 0:
        raise ValueError(f"strengths={strengths!r}, budget={allowed!r}: give strengths and a budget above zero")
    folder = fresh_folder(out)
    a, b = (load_model(tuned_name(name, task)) for name in (source, target))
    s, t = site_of(a, task, source_site, "source_site"), site_of(b, task, target_site, "target_site")

    stage = _Stages(progress)
    stage("vectors")
    vector = extract(a, task.contrast("train"), s, seed=seed)
    native = extract(b, task.contrast("train"), t, seed=seed)

    stage("pairs and mappers")
    pairs = collect(a, b, task.texts("train"), s, t, strategy=alignment, progress=progress)
    options: dict[str, Any] = {"models": (a, b), "seed": seed, "progress": progress}
    given = dict(settings or {})
    main = fit(pairs, mapper, **options, **given)
    moved = main.transfer(vector, mode, norm)
    control = fit(pairs.shuffled(seed), mapper, **options, **given).transfer(vector, mode, norm)
    vectors = {"native": native, "moved": moved, "shuffled": control}

    def steer(v: SteeringVector, strength: float) -> Intervention:
        return add(v, strength, task.positions)

    stage("strengths on validation prompts")
    validation = evaluator(b, task, "validation", n=enough, seed=seed)
    swept = {name: _sweep(validation, v, strengths, progress) for name, v in vectors.items()}
    swept["random"] = sweep_strengths(
        validation, lambda x: random_like(steer(moved, x), seed, draws=2), strengths, progress=progress
    )
    chosen = {name: choose(conditions, allowed).strength for name, conditions in swept.items()}

    stage("held-out prompts")
    test = evaluator(b, task, "test", n=n, seed=seed, clean_prompts=n)
    at = [chosen[name] for name in vectors]
    judged_each = test.judge_each([[(steer(v, x),)] for v, x in zip(vectors.values(), at, strict=True)], at, progress=progress)
    fair = dict(zip(vectors, judged_each, strict=True))
    fair["random"] = test.random(steer(moved, chosen["random"]), seed, chosen["random"], progress)
    conditions = {
        "unsteered": test.unsteered(progress),
        **{name: fair[name] for name in ("native", "moved", "random", "shuffled")},
        "mean_ablated": test.mean_ablated(steer(moved, 1.0), progress),
    }
    if task.answers is not None:
        conditions["forced_first_token"] = test.forced_first_token()
    conditions = {name: add_readings(task, test.prompts, judged) for name, judged in conditions.items()}
    plain = {
        name: fair[name] if chosen[name] == 1.0 else test.judge([(steer(v, 1.0),)], 1.0, progress=progress)
        for name, v in vectors.items()
    }
    plain["random"] = fair["random"] if chosen["random"] == 1.0 else test.random(steer(moved, 1.0), seed, 1.0, progress)

    effects: dict[str, SideEffects] = {}
    recovered: dict[str, Any] = {}
    if side_effects:
        stage("side effects")
        put = follow(a, s, t, main)
        left = loss_recovered(b, test.clean_kl.prompts, test.clean_kl.answers, put, mean_ablation(b, task, put))
        recovered = {"recovered": left.to_dict()}
        steered = {name: (steer(vectors[name], chosen[name]),) for name in ("native", "moved")}
        noise = random_like(steer(moved, chosen["random"]), seed, draws=1)[0]
        under = {"unsteered": (), **steered, "random": (noise,)}
        effects = side_effects_of(b, task, under, n=max(CLEAN_PROMPTS, n), seed=seed, progress=progress)

    others: list[dict[str, Any]] = []
    if variants:
        stage("other modes and mappers")
        fitted = {kind: main if kind == mapper else fit(pairs, kind, **options) for kind in VARIANTS}
        fitted[mapper] = main
        quick = replace(validation, prompts=validation.prompts[:VARIANT_PROMPTS])
        todo = [(kind, how) for kind in fitted for how in MODES if (kind, how) != (mapper, mode)]
        for kind, how in tqdm(todo, desc="variants", leave=False, disable=not progress):
            v = fitted[kind].transfer(vector, how, norm)
            strength = choose(_sweep(quick, v, strengths, progress=False), allowed).strength
            judged = test.judge([(steer(v, strength),)], strength, progress=False)
            about_v = {"fvu": fitted[kind].card.fvu, "norm": v.norm, "cosine_to_native": v.cosine(native)}
            others.append({"mapper": kind, "mode": how, **about_v, **judged.to_dict()})

    details = {
        "asked": asked,
        "description": task.description,
        "direction": task.options.get("direction"),
        "source": {"name": identity(a).name, "fingerprint": identity(a).fingerprint, "site": s},
        "vector": {
            "method": vector.method,
            "positions": vector.positions,
            "applied_at": describe(task.positions),
            "norm": vector.norm,
            "moved_norm": moved.norm,
            "native_norm": native.norm,
            "cosine_to_native": moved.cosine(native),
        },
        "alignment": {"strategy": pairs.alignment.strategy, "coverage": pairs.alignment.coverage},
        "mapper": _mapper_details(main, b, mode, norm) | _by_place(main, a, b, task, test.prompts) | recovered,
        "strength_rule": {
            "budget_nats_per_token": allowed,
            "strengths": list(strengths),
            "split": "validation",
            "n": enough,
            "rule": RULE,
        },
        "sweep": [{"condition": name, **c.to_dict()} for name, points in swept.items() for c in points],
        "moved_against_native": {
            measure: paired_difference(
                _outcomes(conditions["moved"], measure), _outcomes(conditions["native"], measure)
            ).to_dict()
            for measure in ("success", "intact")
        },
        "side_effects": {name: found.to_dict() for name, found in effects.items()},
        "at_strength_one": {name: c.to_dict() for name, c in plain.items()},
        "variants": others,
    }
    result = Result(task.name, about(b, steer(moved, 1.0)), conditions, test.prompts, seed, details)
    if folder is not None:
        _save(result, folder, task, vector, moved, b, main)
    return result


def rerun(path: str | Path, *, out: str | Path | None = None, progress: bool = True) -> tuple[Result, list[str]]:
    """Do a run again from its ``result.json``.

    Args:
        path: of the file, or of its folder.
        out: folder for the new run, as for ``run``.
        progress: show bars when it takes longer than two seconds.

    Returns:
        The new result, and where it differs from the file: other models or versions, other figures. On the machine that wrote
        it nothing should differ; on another a trained mapper may, by a prompt or two.

    Raises:
        ValueError: for a file that is missing, damaged, of another schema, changed by hand, or of a run of a task of the user's
            own, with the field.
    """
    where = Path(path)
    stored = read_result(where / "result.json" if where.is_dir() else where)
    asked = stored.get("asked")
    if asked is None:
        raise ValueError(f"{str(path)!r} does not say what was asked for: only runs of a task by its name can be done again")
    if unknown := [name for name in asked if name not in signature(run).parameters]:
        raise ValueError(f"{path}: this version knows no 'asked.{unknown[0]}': use the one that wrote the file")
    if bare := [name for name in stored if name != "digests" and name not in stored.get("digests", {})]:
        raise ValueError(f"{path}: field {bare[0]!r} has no digest, so it may have been changed after the run: do the run anew")
    again = run(**asked, out=out, progress=progress)
    fresh = json.loads(json.dumps(again.to_dict()))
    return again, [line for line in _differences(stored, fresh) if not line.startswith("digests")]


def _differences(one: Any, other: Any, at: str = "") -> Iterator[str]:
    """Where two values that JSON held differ, by the names that lead there."""
    if isinstance(one, Sequence) and isinstance(other, Sequence) and not isinstance(one, str) and len(one) == len(other):
        one, other = (dict(enumerate(each)) for each in (one, other))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for name in dict.fromkeys([*one, *other]):
            yield from _differences(one.get(name), other.get(name), f"{at}.{name}" if at else str(name))
    elif one != other:
        yield f"{at}: {one} then, {other} now"


def _outcomes(judged: Condition, measure: str) -> list[bool]:
    return [getattr(verdict, measure) for verdict in judged.verdicts]


def _sweep(validation: Evaluator, vector: SteeringVector, strengths: Sequence[float], progress: bool) -> list[Condition]:
    positions = validation.task.positions
    return sweep_strengths(validation, lambda x: [add(vector, x, positions)], strengths, progress=progress)


def _mapper_details(mapper: Mapper, target: HookedModel, mode: str, norm: str) -> dict[str, Any]:
    card = mapper.card
    return {
        "kind": card.kind,
        "parameters": card.parameters,
        "fraction_of_target": card.parameters / parameter_count(target),
        "fvu": card.fvu,
        "cosine": card.cosine,
        "norm_ratio": card.norm_ratio,
        "mode": mode,
        "norm": norm,
        "rows": card.rows,
        "held_out_rows": card.held_out_rows,
        "settings": card.settings,
    }


def _by_place(mapper: Mapper, source: HookedModel, target: HookedModel, task: Task, prompts: Sequence[str]) -> dict[str, Any]:
    """Fits by class of token on prompts that no mapper has seen; nothing where tokens do not correspond one to one."""
    if tokenizer_fingerprint(source) != tokenizer_fingerprint(target):
        return {}
    texts = [*prompts[:PLACES], *task.clean("test")[:PLACES]]
    fits = fits_by_token_class(mapper, source, target, texts, task.trigger)
    return {"by_place": {by: {name: fit.to_dict() for name, fit in classes.items()} for by, classes in fits.items()}}


def named_task(task: str | Task, direction: str | None) -> Task:
    """A task by its name, or as it is.

    Raises:
        ValueError: for an unknown one, or a direction beside a task that is one already.
    """
    if isinstance(task, str):
        return load_task(task) if direction is None else load_task(task, direction=direction)
    if direction is not None:
        raise ValueError(f"direction={direction!r} goes with the name of a task; {task.name!r} is one already: give it its own")
    return task


def tuned_name(name: str, task: Task) -> str:
    """The name of a known model's fine-tune for the task, if there is one; any other name as it is."""
    known = known_model(name)
    return name if known is None or known.variant is None else known.variant(task)


def site_of(model: HookedModel, task: Task, given: str | None, option: str) -> str:
    """The site that was given, or the one that the model's card names for the task.

    Args:
        model: whose site.
        task: that it is for.
        given: by the user, if it was.
        option: what the user gives it by, for the error.

    Raises:
        ValueError: for an unknown site, or none at all.
    """
    if given is not None:
        return check_site(model, given)
    name = identity(model).name
    known = known_model(name)
    site = known.site(task) if known is not None else None
    if site is not None:
        return check_site(model, site)
    raise ValueError(f"no card says where to steer {name!r} for {task.name!r}: name a site with {option}=")


def fresh_folder(out: str | Path | None) -> Path | None:
    """The output folder, checked before any work: empty or missing, and writable."""
    if out is None:
        return None
    folder = Path(out).expanduser().absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{str(out)!r} is not an empty folder: choose another one, or remove it first")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent):
            pass
    except OSError as error:
        raise ValueError(f"cannot write to {str(folder.parent)!r}: {error.strerror}; choose another folder") from error
    return folder


def _save(
    result: Result,
    folder: Path,
    task: Task,
    vector: SteeringVector,
    moved: SteeringVector,
    model: HookedModel,
    mapper: Mapper,
) -> None:
    """Write the run folder under another name and rename it when it is whole."""
    half = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        result.save(half, tokens=marked_tokens(model, result.prompts[:EXAMPLES], task.positions))
        where = describe(task.positions)
        vector.save(half / "vector.safetensors", positions=where, strength=1.0)
        moved.save(half / "moved.safetensors", positions=where, strength=result.conditions["moved"].strength)
        mapper.save(half / "mapper")
        write_report(half)
        half.chmod(0o755)
        if folder.exists():
            folder.rmdir()
        half.rename(folder)
    except BaseException:
        shutil.rmtree(half, ignore_errors=True)
        raise


def marked_tokens(model: HookedModel, prompts: Sequence[str], positions: Positions) -> list[dict[str, Any]]:
    """The tokens of prompts, and which of them are steered."""
    tok = tokenizer_of(model)
    marked = []
    for row, ids in enumerate(tokenize(model, prompts)):
        tokens = torch.tensor([[*ids, ids[-1]]])  # one more, to see whether generated tokens are steered
        real = torch.ones_like(tokens, dtype=torch.bool)
        chosen = select(positions, Layout(tokens, real, torch.tensor([len(ids)]), torch.tensor([row]), tok))[0].tolist()
        pieces = [piece for piece, _ in token_spans(ids, tok)]
        marked.append({"pieces": pieces, "steered": chosen[:-1], "generated_steered": chosen[-1]})
    return marked


class _Stages:
    """Says which part of a long run is under way."""

    def __init__(self, progress: bool) -> None:
        self.bar = tqdm(total=5, bar_format="{desc}", disable=not progress, leave=False)

    def __call__(self, name: str) -> None:
        self.bar.set_description_str(name)
