"""Noise at a backdoor's trigger, with a folder and a page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from interp_transfer.evaluation.task import Task
from interp_transfer.io import atomic_folder, write_json
from interp_transfer.reporting.noise_page import write_noise
from interp_transfer.search.doses import Doses, noise_doses, typical_doses
from interp_transfer.studies.folders import fresh_folder, kept_beside
from interp_transfer.studies.inputs import check_before_loading, choose_site, find_task, open_model
from interp_transfer.studies.options import DEFAULTS, TaskOptions


def noise_study(
    task: str | Task | Mapping[str, Any],
    model: Any,
    *,
    how: TaskOptions = DEFAULTS,
    site: str | None = None,
    doses: Sequence[float | int] | None = None,
    out: str | Path | None = None,
    **options: Any,
) -> dict[str, Doses]:
    """Add noise at a backdoor's trigger and at its harmless twin: what removes the backdoor, and what induces it.

    Args:
        task: a task with a trigger, in the forms that `run` takes.
        model: a model or its name, as in `run`.
        how: how the task is taken and models are loaded.
        site: hook point of the noise; default: the one on the model's card, or else a search. Where the model has read the
            trigger already, noise at its tokens does nothing: try earlier sites.
        doses: standard deviations of each coordinate; default: multiples of the typical coordinate.
        out: folder for ``noise.json`` and ``noise.html``; missing or empty. A study that was stopped resumes with the same
            call, as `run` does.
        options: of ``search.doses.noise_doses``.

    Raises:
        ValueError: before any work, for anything unknown, and for a task without a trigger.
    """
    task = find_task(task, how, models=(model,))
    folder = fresh_folder(out)
    check_before_loading(model, task, site)
    model = open_model(model, task, how)
    site = choose_site(model, task, site).name
    chosen = typical_doses(model, task, site) if doses is None else doses
    with kept_beside(folder, options.get("progress", True)) as kept:
        measured = noise_doses(model, task, site, chosen, kept=kept, **options)
        if folder is not None:
            with atomic_folder(folder) as half:
                write_noise(measured, half)
                write_json(half / "noise.json", noise_json(measured))
    return measured


def noise_json(measured: Mapping[str, Doses]) -> dict[str, Any]:
    """The content of ``noise.json``."""
    return {"format": "interp_transfer.noise/1", **{name: doses.to_dict() for name, doses in measured.items()}}
