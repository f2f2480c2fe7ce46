"""The whole pipeline on one screen.

extract -> collect -> fit -> transfer -> add -> compare -> report
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from interp_transfer.activations.positions import as_positions
from interp_transfer.evaluation.compare import Result, about
from interp_transfer.evaluation.evaluator import draw
from interp_transfer.evaluation.task import Task
from interp_transfer.interventions.intervention import add
from interp_transfer.studies.controls import Fitter, at_strength_one, moved_and_controls
from interp_transfer.studies.details import asked, comparison_details, input_details, mapper_details, vector_details
from interp_transfer.studies.folders import fresh_folder, kept_beside
from interp_transfer.studies.inputs import check_before_loading, choose_sites, find_task, open_model
from interp_transfer.studies.options import DEFAULT_N, RunOptions
from interp_transfer.studies.plan import announce, plan_run
from interp_transfer.studies.save import save_run
from interp_transfer.studies.texts import discard, given_texts, mapper_texts, paired, pairs_key
from interp_transfer.studies.trial import Trial
from interp_transfer.vectors.extract import extract


def run(
    task: str | Task | Mapping[str, Any],
    source: Any,
    target: Any,
    *,
    texts: str | Path | Iterable[Any] | None = None,
    out: str | Path | None = None,
    progress: bool = True,
    **options: Any,
) -> Result:
    """Extract a vector from one model, move it to another, and compare what it does there with every baseline.

    Args:
        task: a task; or the name of a registered one; or the arguments of `Task.from_jsonl` as a dictionary, so that the run
            can be repeated from its result.json.
        source: model that the vector is extracted from: a name, a folder, or a model object. The name of a known base model
            stands for its fine-tune for the task.
        target: model that the vector is moved to, in the same forms.
        texts: what mappers are fitted on: a file or the name of a data set, "task" or "generated" (see
            `studies.options.RunOptions`), or an iterable of texts or chats, see ``prompts.texts.read_texts``.
        out: folder for result.json, report.html, vectors and mapper; missing or empty. Until it is written, pairs, mappers,
            completions and costs are kept beside it, in ``.NAME.resume``, from which the same call resumes after a stop.
        progress: show bars for what takes longer than two seconds.
        options: fields of `studies.options.RunOptions`.

    Raises:
        ValueError: for anything unknown, before any work, with the closest name.
    """
    named = texts is None or isinstance(texts, str | Path)
    how = RunOptions.from_dict(options | {"texts": str(texts) if named and texts is not None else None})
    found = find_task(task, how, models=(source, target), direction=how.direction)
    how = replace(how, n=how.n if how.n != DEFAULT_N else min(how.n, len(found.prompts("test"))))
    request = asked(task, source, target, how, repeatable=named)
    own = {"read": None if how.read is None else as_positions(how.read), "instruction": how.instruction}
    task = replace(found, **{name: value for name, value in own.items() if value is not None})
    _check_prompts(task, how)
    folder, given = fresh_folder(out), given_texts(texts)
    wanted = {"source": how.source_site, "target": how.target_site}
    for model, site in zip((source, target), wanted.values(), strict=True):
        check_before_loading(model, task, site)
    a, b = (open_model(model, task, how) for model in (source, target))
    with kept_beside(folder, progress) as kept:
        if progress:
            announce(lambda: plan_run(task, (a, b), how, wanted, given), a, b)
        stage = tqdm(total=6, bar_format="{desc}", disable=not progress, leave=False).set_description_str

        stage("sites")
        sites = choose_sites({"source": a, "target": b}, task, wanted, seed=how.seed, progress=progress)
        s, t = sites["source"].name, sites["target"].name

        stage("vectors")
        vector = extract(a, task.contrast("train"), s, task.read, method=how.method, seed=how.seed)
        native = extract(b, task.contrast("train"), t, task.read, method=how.method, seed=how.seed)

        stage("pairs and mappers")
        read = given or mapper_texts(task, (a, b), how.texts, seed=how.seed, progress=progress)
        origin = pairs_key((a, b), read.texts, (s, t), how.alignment)
        pairs = paired((a, b), read.texts, (s, t), how.alignment, progress, kept.folder)
        fitter = Fitter(pairs, (a, b), origin, kept, progress)
        mappers = fitter.fit_seeds(how)
        mapper = mappers[0]
        vectors = {"native": [native], **moved_and_controls(fitter, task, mappers, vector, how)}
        moved = vectors["moved"][0]

        stage("strengths on validation prompts")
        trial = Trial(b, task, how, kept, progress)
        searches = trial.search(vectors)
        strengths = {name: [search.strength for search in each] for name, each in searches.items()}

        stage("held-out prompts")
        conditions = trial.compare(vectors, strengths)
        at_one = trial.judge(*at_strength_one(vectors)) if how.strength_one else {}

        stage("side effects")
        effects = trial.side_effects(vectors, strengths) if how.side_effects else {}
        recovered = trial.loss_recovered(a, mapper) if how.side_effects else {}

        stage("other modes and mappers")
        variants = trial.variants(fitter, mapper, vector, native) if how.variants else []

        details = request | input_details(task, a, sites, pairs, read) | vector_details(task, vector, moved, native)
        details["mapper"] = mapper_details(mapper, a, b, task, how, trial.test.prompts) | recovered
        details |= comparison_details(trial, searches, conditions, at_one, effects) | {"variants": variants}
        result = Result(task.name, about(b, add(moved, 1.0, task.positions)), conditions, trial.test.prompts, how.seed, details)
        if folder is not None:
            save_run(folder, result, task, b, vector, moved, mapper)
        discard(pairs)
    return result


def _check_prompts(task: Task, how: RunOptions) -> None:
    """Refuse too few prompts, or answers that are missing, before any work."""
    prompts = draw(task.prompts("test"), how.n, how.seed, f"test prompts of {task.name}")
    if task.answers is not None:
        task.answers(prompts)
