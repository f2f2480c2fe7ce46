"""Tasks: what is steered, on which prompts, and when it has worked.

A task brings everything that an experiment needs besides models: contrast pairs, texts for mappers, held-out prompts, a
judge. `micro` editions live in the micro-world, where every answer can be judged exactly; `paper` editions bring the paper's
own data. Everything is deterministic and nothing is made before it is asked for.
"""

from interp_transfer.organisms.tasks.backdoor import BackdoorTask
from interp_transfer.evaluation.own_task import JsonlTask, task_from_jsonl
from interp_transfer.organisms.tasks.registry import list_tasks, load_task, load_tunable, site_key
from interp_transfer.evaluation.task import Reviewable, Task, Tunable

__all__ = [
    "BackdoorTask",
    "JsonlTask",
    "Reviewable",
    "Task",
    "Tunable",
    "list_tasks",
    "load_task",
    "load_tunable",
    "site_key",
    "task_from_jsonl",
]
