"""The safety switch (the paper's appendix F): a fine-tuned model made to behave as its base, or the base as its fine-tune.

A mapper from the host's activations at one layer to the donor's replaces them there. It needs no second model when it is used,
can be removed again, and is small. It is compared with other ways: the donor's own activations at the same layer (which need
the donor), some of its weights, a LoRA trained on the same prompts, and a steering vector. The controls are a map fitted on
shuffled partners, random changes of the same length, and the site's mean.

Each way is judged by its gain (the behaviour is gone, or there) and its loss: on clean prompts, and on skills that no map was
fitted on.
"""

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor

from interp_transfer.evaluation.baselines import RANDOM_DIRECTIONS, mean_ablation
from interp_transfer.evaluation.evaluator import Condition, Evaluator, condition, evaluator
from interp_transfer.evaluation.kept import Kept, about_model
from interp_transfer.evaluation.side_effects import skills_of
from interp_transfer.evaluation.task import Task
from interp_transfer.finetuning.tuning import TrainingData, tune
from interp_transfer.interventions.follow import follow
from interp_transfer.interventions.intervention import Intervention, add
from interp_transfer.interventions.patching.weights import weights_from
from interp_transfer.interventions.predictions import teacher_forced_each
from interp_transfer.io import atomic_folder, hashed, write_json
from interp_transfer.mapping.collect import collect
from interp_transfer.mapping.fit import fit
from interp_transfer.mapping.mappers import Mapper
from interp_transfer.models.adapters import Lora
from interp_transfer.models.hooked_model import HookedModel, parameter_count
from interp_transfer.models.identity import identity
from interp_transfer.models.sites import expand_sites
from interp_transfer.models.tokens import tokenize, tokenizer_fingerprint
from interp_transfer.progress import progress_bar
from interp_transfer.search.strengths import search_strength
from interp_transfer.stats import Estimate
from interp_transfer.studies.folders import fresh_folder, kept_beside
from interp_transfer.studies.inputs import find_task, open_exactly, tuned_name
from interp_transfer.studies.options import DEFAULTS, TaskOptions
from interp_transfer.studies.switch_page import write_switch
from interp_transfer.studies.switch_result import AUTOENCODER, DIRECT, MAPPED, Switch, Way
from interp_transfer.vectors.extract import extract

SHARE = 0.005
"""Largest size of the low-rank map, as a share of the model's parameters."""
RANKS = (2, 8)
"""Ranks that are tried besides the largest that the share allows."""

Skills = Callable[..., Sequence[Mapping[str, Estimate]]]
"""(model, settings, n=) -> share of correct answers by skill, under each setting."""


def switch_study(
    task: str | Task | Mapping[str, Any],
    base: str,
    tuned: str | None = None,
    *,
    direction: str = "to_base",
    how: TaskOptions = DEFAULTS,
    subject: str | None = None,
    lora: int | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    progress: bool = True,
    **options: Any,
) -> Switch:
    """Make a fine-tuned model behave as its base, or the base as its fine-tune, at one layer, and compare all other ways.

    Args:
        task: a task, in the forms that `run` takes, such as the name "switch".
        base: name or folder of the base model.
        tuned: name or folder of its fine-tune; default: the known base's fine-tune for the task.
        direction: "to_base" or "to_tuned".
        how: how the task is taken and models are loaded.
        subject: option of the registered task: what fine-tuning brought.
        lora: rank of a LoRA that is trained on as many prompts, for comparison; none by default.
        seed: seed of everything that is drawn.
        out: folder for ``switch.json`` and ``switch.html``; missing or empty. A study that was stopped resumes with the same
            call, as `run` does; a LoRA is trained, and ways that exchange weights are judged, again.
        progress: show bars for what takes longer than two seconds.
        options: of `switch`.

    Raises:
        ValueError: for anything unknown, before any work.
    """
    if direction not in ("to_base", "to_tuned"):
        raise ValueError(f"unknown direction {direction!r}: give to_base or to_tuned")
    named = {"direction": direction, "subject": subject} if isinstance(task, str) else {}
    task = find_task(task, how, **named)
    folder = fresh_folder(out)
    names = base, tuned if tuned is not None else tuned_name(base, task)
    if names[0] == names[1]:
        raise ValueError(f"no fine-tune of {base!r} for {subject or task.name!r} is known: name one with tuned= (--tuned)")
    host, donor = names if direction == "to_tuned" else reversed(names)
    if lora is not None:
        options["others"] = {f"LoRA of rank {lora}": _with_lora(host, task, lora, seed, progress, how)}
    first, second = (open_exactly(name, how) for name in (host, donor))
    with kept_beside(folder, progress) as kept:
        result = switch(first, second, task, seed=seed, kept=kept, progress=progress, **options)
        if folder is not None:
            with atomic_folder(folder) as half:
                write_json(half / "switch.json", result.to_dict())
                write_switch(result, half)
    return result


def switch(
    host: HookedModel,
    donor: HookedModel,
    task: Task,
    *,
    sites: str | Sequence[str] | None = None,
    share: float = SHARE,
    others: Mapping[str, tuple[HookedModel, int]] | None = None,
    n: int = 200,
    validation: int = 100,
    directions: int = RANDOM_DIRECTIONS,
    autoencoder: bool = True,
    seed: int = 0,
    kept: Kept | None = None,
    progress: bool = True,
) -> Switch:
    """Make ``host`` behave as ``donor`` in every way, and judge the effect and the cost of each.

    Args:
        host: the model that is changed, such as a backdoored one.
        donor: the model that it should behave as, such as its base; of the same architecture and tokenizer.
        task: prompts and judge; maps are fitted on its texts.
        sites: hook points where activations are replaced; default: the input of every block but the first. Each way uses the
            one with most intact answers on validation prompts, then the cheapest.
        share: largest size of the low-rank map, as a share of the host's parameters. Of the ranks that it allows, the one with
            most intact answers on validation prompts is used, then the cheapest.
        others: further models of the host's architecture to compare, by name, each with the number of parameters that has to be
            stored for it: the host with a merged LoRA, for example.
        n: number of held-out prompts, and of prompts of each skill.
        validation: number of validation prompts, on which sites and strengths are chosen.
        directions: number of random changes.
        autoencoder: also fit the paper's autoencoder, which takes most of the time on pretrained models.
        seed: seed of everything that is drawn.
        kept: where mappers, completions and costs are kept; nowhere unless given.
        progress: show a bar for what takes longer than two seconds.

    Raises:
        ValueError: before any long work, for two models of different widths or tokenizers, unknown sites, or a share that
            allows no map.
    """
    sites = expand_sites(host, "blocks.*.hook_resid_pre")[1:] if sites is None else expand_sites(host, sites)
    others = others or {}
    parameters, width = parameter_count(host), int(host.cfg.d_model)
    rank = largest_rank(width, parameters, share)
    _check_alike(host, donor, {name: model for name, (model, _) in others.items()})
    kept = kept or Kept()
    first = evaluator(host, task, "validation", n=validation, seed=seed, kept=kept)
    test = evaluator(host, task, "test", n=n, seed=seed, kept=kept)
    texts = task.texts("train")
    pairs = collect(host, donor, texts, sites, sites, progress=progress)
    origin = hashed([about_model(host), about_model(donor), tokenize(host, texts)])

    def fitted(site: str, kind: str, shuffled: bool = False, **settings: Any) -> Intervention:
        def fit_one(state: Path | None) -> Mapper:
            partners = pairs.shuffled(seed) if shuffled else pairs
            return fit(partners, kind, sites=(site, site), seed=seed, checkpoint=state, progress=False, **settings)

        return mapped(kept.mapper([origin, site, kind, seed, settings, shuffled], fit_one))

    candidates: dict[str, Callable[[str], list[Intervention]]] = {
        DIRECT: lambda site: [follow(donor, site, site)],
        MAPPED: lambda site: [fitted(site, "low_rank_update", rank=r) for r in (*(r for r in RANKS if r < rank), rank)],
    }
    if autoencoder:
        candidates[AUTOENCODER] = lambda site: [fitted(site, "autoencoder", width="paper")]
    layers: list[tuple[str, str, Condition]] = []
    best: dict[str, tuple[tuple[float, float, str], Intervention]] = {}
    total = len(sites) * len(candidates)
    with progress_bar("layers", progress, total=total) as bar:
        for site in sites:
            for name, make in candidates.items():
                tried = [(i, first.judge((i,), 0.0, f"{name} at {site}", progress=False)) for i in make(site)]
                chosen, judged = max(tried, key=lambda one: _merit(one[1]))
                layers.append((site, name, judged))
                best[name] = max(
                    best.get(name, ((-1.0, 0.0, ""), chosen)), ((*_merit(judged), site), chosen), key=lambda b: b[0]
                )
                bar.update()
    change = best[MAPPED][1]
    here, card = best[MAPPED][0][2], _mapper(change).card
    ways = _Ways(test, skills_of(host, task), n)
    ways.add("unswitched", ())
    ways.add_weights("donor", lambda: weights_from(host, donor), None)
    ways.add(DIRECT, (best[DIRECT][1],), None)
    ways.add(MAPPED, (change,), card.parameters)
    if autoencoder:
        ways.add(AUTOENCODER, (best[AUTOENCODER][1],), _mapper(best[AUTOENCODER][1]).card.parameters)
    ways.add("vector", (_vector(host, task, here, first),), width)
    ways.add("shuffled", (fitted(here, "low_rank_update", shuffled=True, rank=card.settings["rank"]),))
    ways.add_draws("random", [random_change(change, draw) for draw in range(seed, seed + directions)])
    ways.add("mean_ablated", (mean_ablation(host, task, change),))
    n_layers = int(host.cfg.n_layers)
    for count in sorted({max(1, n_layers * k // 4) for k in (1, 2, 3)}):
        ways.add_weights(
            f"weights: {count} of {n_layers} blocks", lambda count=count: weights_from(host, donor, "spaced", count)
        )
    for scheme in ("blocks", "embeddings"):
        ways.add_weights(f"weights: {scheme}", lambda scheme=scheme: weights_from(host, donor, scheme))
    for name, (other, stored) in others.items():
        ways.add_weights(name, lambda other=other: weights_from(host, other), stored)
    details = {
        "subject": task.options.get("subject"),
        "direction": task.options.get("direction"),
        "n": n,
        "validation": validation,
        "seed": seed,
        "rank": card.settings["rank"],
        "largest_rank": rank,
        "rows": len(pairs),
    }
    return Switch(task.name, identity(host), identity(donor), parameters, tuple(layers), ways.results, test.prompts, details)


def _check_alike(host: HookedModel, donor: HookedModel, others: Mapping[str, HookedModel]) -> None:
    width, n_layers = int(host.cfg.d_model), int(host.cfg.n_layers)
    for name, other in {"donor": donor, **others}.items():
        if int(other.cfg.d_model) != width or int(other.cfg.n_layers) != n_layers:
            raise ValueError(f"{name} is of another shape than {identity(host)}: a switch is between a model and its fine-tune")
    if tokenizer_fingerprint(host) != tokenizer_fingerprint(donor):
        raise ValueError(f"{identity(host)} and {identity(donor)} have different tokenizers: a switch needs one")


def largest_rank(width: int, parameters: int, share: float = SHARE) -> int:
    """The largest rank of a low-rank update whose two factors and bias are at most a share of so many parameters.

    Raises:
        ValueError: if not even rank 1 is.
    """
    rank = int((share * parameters - width) // (2 * width))
    if rank < 1:
        raise ValueError(f"share={share:g} of {parameters} parameters is less than a map of rank 1 between {width} dimensions")
    return min(rank, width)


def mapped(mapper: Mapper) -> Intervention:
    """Replace a model's activations at the mapper's source site, at every token, by what the mapper makes of them.

    For a mapper between two models of one width. The model that is changed is the mapper's source.
    """
    return Intervention(mapper.source.site, Mapped(mapper), model=mapper.source.model)


@dataclass(frozen=True, eq=False)
class Mapped:
    """f(a)."""

    mapper: Mapper

    def __call__(self, a: Float[Tensor, "n d_model"]) -> Float[Tensor, "n d_model"]:
        """The mapped rows."""
        return self.mapper(a.to(self.mapper.shift_in.device)).to(a)


@dataclass(frozen=True, eq=False)
class RandomChange:
    """a + |f(a) - a| times one random unit vector: a change of the mapper's length in a random direction."""

    transform: Mapped
    seed: int

    def __call__(self, a: Float[Tensor, "n d_model"]) -> Float[Tensor, "n d_model"]:
        """The changed rows."""
        drawn = torch.randn(a.shape[1], generator=torch.Generator().manual_seed(self.seed)).to(a)
        return a + (self.transform(a) - a).norm(dim=1, keepdim=True) * drawn / drawn.norm()


def random_change(like: Intervention, seed: int) -> Intervention:
    """A random change of the same length, at every token, as that of an intervention of ``mapped``."""
    assert isinstance(like.transform, Mapped)
    return Intervention(like.site, RandomChange(like.transform, seed), like.positions, model=like.model)


def _mapper(intervention: Intervention) -> Mapper:
    assert isinstance(intervention.transform, Mapped)
    return intervention.transform.mapper


def _merit(judged: Condition) -> tuple[float, float]:
    return judged.intact.value, -judged.clean_kl


def _vector(host: HookedModel, task: Task, site: str, validation: Evaluator) -> Intervention:
    """The task's own vector at that site, at its fair strength."""
    vector = extract(host, task.contrast("train"), site, task.read)
    return add(vector, search_strength(validation, vector, progress=False).strength, task.positions)


def _with_lora(name: str, task: Task, rank: int, seed: int, progress: bool, how: TaskOptions) -> tuple[HookedModel, int]:
    """The model with a LoRA, trained on right answers to as many prompts as maps are fitted on; and the LoRA's size."""
    if task.answers is None:
        raise ValueError(f"{task.name} has no right answers to train a LoRA on: leave out lora (--lora)")
    both = zip(task.prompts("train"), task.clean("train"), strict=False)
    prompts = [prompt for pair in both for prompt in pair][: len(task.texts("train"))]
    data = TrainingData(list(zip(prompts, task.answers(prompts), strict=True)), f"task {task.name}")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "lora"
        tune(name, data, place, {"epochs": 1.0, "seed": seed}, lora=Lora(rank, 2.0 * rank, merge=False), progress=progress)
        size = sum(math.prod(t.shape) for t in load_file(place / "adapter_model.safetensors").values())
        return open_exactly(str(place), how), size


class _Ways:
    """Judges one way after the other on the same prompts and skills."""

    def __init__(self, test: Evaluator, skills: Skills | None, n: int) -> None:
        self._test, self._n, self._measure = test, n, skills
        self.results: dict[str, Way] = {}

    def add(self, name: str, interventions: Sequence[Intervention], parameters: int | None = 0) -> None:
        """A way that acts on activations."""
        judged = self._test.judge(interventions, note=name, progress=False)
        site = " ".join(str(i.site) for i in interventions)
        self.results[name] = Way(judged, self._skills(*interventions), parameters, site)

    def add_draws(self, name: str, draws: Sequence[Intervention]) -> None:
        """Several draws of a random way, pooled; skills are those of the first."""
        judged = self._test.judge_draws([(draw,) for draw in draws], [0.0] * len(draws), name, progress=False)
        self.results[name] = Way(judged, self._skills(draws[0]), 0, str(draws[0].site))

    def add_weights(self, name: str, within: Callable[[], AbstractContextManager[int]], size: int | None = -1) -> None:
        """A way that changes weights inside ``within``; the size -1 stands for the number of changed weights.

        Outcomes are kept by the model's own weights, so none are kept here.
        """
        test = replace(self._test, kept=None)
        with within() as changed:
            [completions] = test.completions([()], progress=False)
            skills = self._skills()
        clean = test.clean_kl
        [forced] = teacher_forced_each(test.model, clean.prompts, clean.answers, [()], skip=clean.skip or None, within=within)
        judged = condition(test.task, test.prompts, completions, forced.kl, 0.0, name)
        self.results[name] = Way(judged, skills, changed if size == -1 else size)

    def _skills(self, *interventions: Intervention) -> Mapping[str, Estimate]:
        return {} if self._measure is None else self._measure(self._test.model, [interventions], n=self._n)[0]
