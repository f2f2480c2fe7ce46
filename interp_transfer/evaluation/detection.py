"""A task's unwanted behaviour as something to detect."""

from typing import Any

from interp_transfer.evaluation.task import Task
from interp_transfer.prompts.contrast import sides
from interp_transfer.transfer.probe_scores import DetectionTexts


def detection_texts(task: Task, n: int = 400, *, twins: bool = True, mapper_texts: int = 2700) -> DetectionTexts:
    """Return a task's texts with the unwanted behaviour and without it.

    The positive side of a task's contrast is the wanted one, and an alarm is the other: positive log-odds are the trigger of a
    backdoor or a harmful request.

    Args:
        task: any task.
        n: maximum number of texts of a side.
        twins: take quiet texts from the other side of the contrast: for a backdoor, the same questions with the harmless
            trigger. Otherwise take them from ``task.clean``: other questions of all kinds that the task wants left alone; there
            are then half as many alarms. ``clean`` is of the same sort.
        mapper_texts: maximum number of prompts that mappers are fitted on.
    """

    def both(split: str) -> tuple[list[Any], list[Any]]:
        quiet, alarm = sides(task.contrast(split)[:n])
        if twins:
            return alarm, quiet
        alarm = alarm[: len(alarm) // 2]
        return alarm, task.clean(split)[-len(alarm) :]  # from the other end, so that the questions differ

    clean: list[Any] = sides(task.contrast("validation"))[0] if twins else task.clean("validation")
    name = task.name if twins else f"{task.name}, any clean prompt"
    texts = [*task.prompts("train"), *task.clean("train")]
    return DetectionTexts(name, both("train"), both("test"), clean[:n], texts[:: -(-len(texts) // mapper_texts)])
