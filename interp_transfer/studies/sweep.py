"""Where and how hard to steer, with a folder and a page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interp_transfer.activations.positions import Positions, substring
from interp_transfer.evaluation.task import Task
from interp_transfer.reporting.sweep_page import write_sweep
from interp_transfer.search.sweep import sweep
from interp_transfer.search.sweep_result import Sweep
from interp_transfer.studies.inputs import check_before_loading, find_task, open_model
from interp_transfer.studies.options import DEFAULTS, TaskOptions
from interp_transfer.studies.plan import announce, plan_sweep

PLANNED = ("sites", "positions", "strengths", "n", "seed", "early")
"""Options of a sweep that decide how much work it is."""


def sweep_study(
    task: str | Task | Mapping[str, Any],
    model: Any,
    *,
    how: TaskOptions = DEFAULTS,
    direction: str | None = None,
    out: str | Path | None = None,
    **options: Any,
) -> Sweep:
    """Try every site, rule of positions and strength on validation prompts.

    Args:
        task: a task, in the forms that `run` takes.
        model: a model or its name, as in `run`.
        how: how the task is taken and models are loaded.
        direction: direction of a task that has several.
        out: folder for ``sweep.json`` and ``sweep.html``; an interrupted sweep resumes from what the folder holds.
        options: of ``search.sweep.sweep``; "trigger" among ``positions`` means the tokens of the task's trigger.

    Raises:
        ValueError: for what ``sweep`` refuses, and for "trigger" if the task has none.
    """
    task = find_task(task, how, models=(model,), direction=direction)
    if options.get("positions") is not None:
        options["positions"] = [_trigger_tokens(task) if rule == "trigger" else rule for rule in options["positions"]]
    sites = options.get("sites")
    check_before_loading(model, task, *([sites] if isinstance(sites, str | int) else sites or ()))
    loaded = open_model(model, task, how)
    if options.get("progress", True):
        planned = {name: options[name] for name in PLANNED if name in options}
        announce(lambda: plan_sweep(task, loaded, **planned), loaded)
    swept = sweep(loaded, task, folder=out, **options)
    if out is not None:
        write_sweep(swept, Path(out))
    return swept


def _trigger_tokens(task: Task) -> Positions:
    if not task.trigger:
        raise ValueError(f"positions 'trigger': {task.name} has no trigger; use last, generated, response, all, or an index")
    return substring(task.trigger)
