"""The run folder: result.json, completions.json, report.html, the two vectors and the mapper."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from interp_transfer.activations.positions import Layout, Positions, describe, select, token_spans
from interp_transfer.evaluation.compare import Result
from interp_transfer.evaluation.task import Task
from interp_transfer.io import atomic_folder
from interp_transfer.mapping.mappers import Mapper
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.tokens import tokenize, tokenizer_of
from interp_transfer.reporting.completions import EXAMPLES
from interp_transfer.reporting.report import write_report
from interp_transfer.vectors.vector import SteeringVector


def save_run(
    folder: Path, result: Result, task: Task, target: HookedModel, vector: SteeringVector, moved: SteeringVector, mapper: Mapper
) -> None:
    """Write the run folder, whole or not at all."""
    where = describe(task.positions)
    with atomic_folder(folder) as half:
        result.save(half, tokens=marked_tokens(target, result.prompts[:EXAMPLES], task.positions))
        vector.save(half / "vector.safetensors", positions=where, strength=1.0)
        moved.save(half / "moved.safetensors", positions=where, strength=result.conditions["moved"].strength)
        mapper.save(half / "mapper")
        write_report(half)


def marked_tokens(model: HookedModel, prompts: Sequence[Any], positions: Positions) -> list[dict[str, Any]]:
    """The tokens of prompts, and which of them are steered."""
    tok = tokenizer_of(model)
    marked = []
    for row, ids in enumerate(tokenize(model, prompts)):
        tokens = torch.tensor([[*ids, ids[-1]]])  # one more, to see whether generated tokens are steered
        real = torch.ones_like(tokens, dtype=torch.bool)
        chosen = select(positions, Layout(tokens, real, torch.tensor([len(ids)]), torch.tensor([row]), tok))[0].tolist()
        pieces = [piece for piece, _ in token_spans(ids, tok)]
        marked.append({"pieces": pieces, "steered": chosen[:-1], "generated_steered": chosen[-1]})
    return marked
