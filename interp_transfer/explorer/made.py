"""Values, each with the Python that makes it: from them the explorer writes the code that does what it shows."""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from interp_transfer.evaluation.task import Task
from interp_transfer.features.probes import Probe
from interp_transfer.mapping.mappers import Mapper
from interp_transfer.models.hooked_model import HookedModel, device_of, huggingface_model
from interp_transfer.models.identity import identity
from interp_transfer.vectors.vector import SteeringVector


@dataclass(frozen=True, eq=False, repr=False)
class Made:
    """A value and how it is made.

    Attributes:
        value: the value.
        name: the variable that holds it.
        code: an expression for it, made of the names of what it needs; None if the variable exists already.
        needs: what the expression needs.
        imports: further lines of imports.
    """

    value: Any
    name: str
    code: Callable[..., str] | None = None
    needs: tuple["Made", ...] = ()
    imports: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Made({self.name})"


def program(made: Sequence[Made], end: Callable[..., Sequence[str]]) -> str:
    """Write the program that makes some values.

    Args:
        made: the values; what they need comes before them.
        end: makes the last lines of the variables of these values.
    """
    names: dict[int, str] = {}
    imports, lines = ["import interp_transfer as it"], []

    def add(one: Made) -> None:
        if id(one) in names:
            return
        for need in one.needs:
            add(need)
        name, k = one.name, 2
        while name in names.values():
            name, k = f"{one.name}_{k}", k + 1
        names[id(one)] = name
        imports.extend(line for line in one.imports if line not in imports)
        if one.code is not None:
            lines.append(f"{name} = {one.code(*(names[id(need)] for need in one.needs))}")

    for one in made:
        add(one)
    return "\n".join([*_sorted(imports), "", *lines, *end(*(names[id(one)] for one in made))]) + "\n"


def _sorted(imports: Sequence[str]) -> list[str]:
    plain = [line for line in imports if line.startswith("import ")]
    return [*sorted(plain, key=lambda line: "interp_transfer" in line), *sorted(set(imports) - set(plain))]


def variables() -> Mapping[str, Any]:
    """The variables of the notebook that this code runs in; none outside of one."""
    try:
        from IPython import get_ipython  # pyright: ignore[reportPrivateImportUsage]
    except ImportError:
        return {}
    shell = get_ipython()
    return {} if shell is None else shell.user_ns


def in_notebook(value: Any, known: Mapping[str, Any], *, item: str | None = None) -> Made | None:
    """A value that a variable of a notebook holds, itself or as an item of a mapping; None for others."""
    for name, held in known.items():
        if name.startswith("_") or not name.isidentifier():
            continue
        if held is value:
            return Made(value, name)
        if item is not None and isinstance(held, Mapping) and held.get(item) is value:
            return Made(value, f"{name}[{item!r}]")
    return None


def model_of(model: HookedModel, name: str, known: Mapping[str, Any]) -> Made:
    """A model: a variable, or loaded by its name in the dtype and on the kind of device that it has."""
    hf = huggingface_model(model)
    dtype = str(hf.dtype if hf is not None else model.cfg.dtype).removeprefix("torch.")
    where = f"{identity(model).name!r}, dtype={dtype!r}, device={device_of(model).type!r}"
    return in_notebook(model, known) or Made(model, name, lambda: f"it.load_model({where})")


def task_of(task: Task, known: Mapping[str, Any], code: str | None = None) -> Made:
    """A task: a variable, or what ``code`` says, or a registered task by its name and options."""
    options = "".join(f", {name}={value!r}" for name, value in task.options.items())
    return in_notebook(task, known) or Made(task, "task", lambda: code or f"it.load_task({task.name!r}{options})")


def vector_of(vector: SteeringVector, name: str, known: Mapping[str, Any], item: str, file: str | Path | None = None) -> Made:
    """A vector: a variable, read from the file that it came from, or with its numbers in the code."""
    if (made := in_notebook(vector, known, item=item)) is not None:
        return made
    if file is not None:
        return Made(vector, name, lambda: f"it.SteeringVector.load({str(file)!r})")
    where = f"{vector.site!r}, ModelIdentity({vector.model.name!r}, {vector.model.fingerprint!r}, {vector.model.processing!r})"
    of_model = "from interp_transfer.models.identity import ModelIdentity"
    return Made(
        vector,
        name,
        lambda: f"it.SteeringVector({_numbers(vector.direction)}, {where})",
        imports=("import base64", "import numpy as np", "import torch", of_model),
    )


def probe_of(probe: Probe, name: str, known: Mapping[str, Any], item: str) -> Made:
    """A probe's direction as a vector, of a variable or with its numbers in the code."""
    vector = SteeringVector(probe.direction, probe.site, probe.model)
    made = in_notebook(probe, known, item=item)
    if made is None:
        return vector_of(vector, name, {}, item)
    return Made(vector, name, lambda p: f"it.SteeringVector({p}.direction, {p}.site, {p}.model)", (made,))


def _numbers(direction: torch.Tensor) -> str:
    """A tensor as an expression, in its dtype."""
    text = base64.b64encode(direction.float().cpu().numpy().astype("<f4").tobytes()).decode()
    dtype = "" if direction.dtype == torch.float32 else f".to({direction.dtype})"
    return f"torch.from_numpy(np.frombuffer(base64.b64decode({text!r}), '<f4').copy()){dtype}"


def mapper_of(mapper: Mapper, known: Mapping[str, Any], item: str, folder: str | Path | None = None) -> Made | None:
    """A mapper: a variable, or read from its folder; None for one without either, which cannot be written as code."""
    made = in_notebook(mapper, known, item=item)
    return made or (None if folder is None else Made(mapper, "mapper", lambda: f"it.Mapper.load({str(folder)!r})"))
