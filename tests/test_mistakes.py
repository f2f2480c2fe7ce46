"""Arguments of the wrong kind: one line says what was expected and what to do. And what values print."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import interp_transfer as it
from interp_transfer.models.hooked_model import HookedModel
from tests.newcomer import CALLS, PAIRS, SITE


@pytest.fixture(scope="module")
def made(_wrapped: Callable[[str], Any]) -> dict[str, Any]:
    """One of each kind of value."""
    a, b = _wrapped("qwen2"), _wrapped("llama")
    task = it.Task.from_pairs(PAIRS, judge="contains:good", name="days")
    vector = it.extract(a, PAIRS, SITE, progress=False)
    pairs = it.collect(a, b, [text for pair in PAIRS for text in pair], SITE, SITE, progress=False)
    mapper = it.fit(pairs, "affine", progress=False)
    return {"a": a, "b": b, "task": task, "vector": vector, "pairs": pairs, "mapper": mapper, "moved": mapper.transfer(vector)}


EXPECTED = {
    "a name for a model": "expected a model, got 'qwen': load it with it.load_model('qwen'); models come first",
    "a name for a target": "expected a model, got 'qwen': ",
    "a name to generate by": "expected a model, got 'qwen': ",
    "models and task swapped": "expected a model, got a Task: ",
    "a task for a contrast": "expected pairs of prompts, got a Task: give a list of (positive, negative), such as task.contr",
    "a task for texts": "expected texts, got a Task: give a list of texts or chats, such as task.texts",
    "a fraction for a site": "expected a site, got 0.5: give a hook-point name",
    "no target site": "expected a site, got None: ",
    "a model for pairs": "expected pairs, got a TransformerBridge: collect them with it.collect(",
    "a number for a kind": "expected the name of a mapper, got 3: there are autoencoder, ",
    "a name for a task": "expected a task, got 'days': make one with it.load_task('days')",
    "pairs for a task": "expected a task, got a list: make one with it.load_task(name) or it.Task.from_pairs(",
    "no names": "expected interventions by name, got a list: give a dictionary",
    "a vector for an intervention": "not an intervention but a SteeringVector: make one with vector.add(",
    "a direction for a vector": "expected a steering vector, got a Tensor: a bare direction needs its place, ",
    "a direction to ablate": "expected a steering vector, got a Tensor: ",
    "a direction to clamp": "expected a steering vector, got a Tensor: ",
    "a text for a strength": "expected a strength, got '1.0': give a number",
    "a direction to move": "expected a steering vector, got a Tensor: ",
    "a vector to map": "expected activations (row, d_source), got a SteeringVector: a vector is moved by mapper.transfer(",
}


def test_each_mistake_is_one_line_that_says_what_to_do(folder: Callable[[str], Path]) -> None:
    script = Path(__file__).with_name("newcomer.py")
    command = [sys.executable, str(script), str(folder("qwen2")), str(folder("llama"))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    errors = json.loads(done.stdout)
    assert errors.keys() == CALLS.keys() == EXPECTED.keys()
    for name, error in errors.items():
        assert error.startswith(f"ValueError: {EXPECTED[name]}") and "\n" not in error, name


def test_a_loaded_model_prints_four_lines_and_stays_what_it_is(made: dict[str, Any]) -> None:
    model = made["a"]
    first, *rest = repr(model).splitlines()
    assert first == f"{it.identity(model)}: TransformerBridge of Qwen2ForCausalLM" and len(rest) == 3
    assert f"{model.cfg.n_layers} blocks, d_model {model.cfg.d_model}, " in rest[0]
    assert f"blocks.{model.cfg.n_layers - 1}.hook_resid_post" in rest[2]
    from transformer_lens.model_bridge import TransformerBridge

    assert isinstance(model, TransformerBridge) and isinstance(model, HookedModel)
    assert len(TransformerBridge.__repr__(model).splitlines()) > 100  # the class itself is not changed


def test_values_print_in_a_few_lines(made: dict[str, Any]) -> None:
    vector = made["vector"]
    assert repr(made["task"]).splitlines()[0] == "Task(days: days: 12 contrast pairs, judged by contains:good."
    width, norm = len(vector.direction), f"{vector.norm:.3g}"
    name = it.identity(made["a"]).name
    assert repr(vector.add(2.0)) == (
        f"Intervention(Add(direction ({width}) of norm {norm}, strength 2.0) at {SITE}, positions all, for {name})"
    )
    shown = repr(vector.add(torch.ones(3), "last").when(vector))
    assert "strength (3) of norm 1.73" in shown and "When(condition <lambda>, " in shown and "positions last" in shown
    assert "blocks.*.hook_attn_out" in repr(vector.ablate(everywhere=True))

    def double(rows: torch.Tensor) -> torch.Tensor:
        return 2 * rows

    assert repr(it.Intervention(SITE, double)) == f"Intervention(double at {SITE}, positions all)"
    for value in made.values():
        assert len(repr(value).splitlines()) < 15 and "tensor(" not in repr(value)
