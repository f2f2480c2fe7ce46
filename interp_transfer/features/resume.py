"""Checkpoints of an SAE's training: a killed training resumes at the step of its last checkpoint.

Tensors are written to a file of their own before the JSON that names it, so there is a whole checkpoint at any time. They are
safetensors, because the checkpoints of sae-lens are pickled.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp_transfer.io import keep_alone, write_json, write_tensors

FILE = "sae_training.json"
EVERY = 500
"""Number of steps between two checkpoints."""
_TENSORS = "sae_training-*.safetensors"
_COUNTS = ("act_freq_scores", "n_forward_passes_since_fired")
_NUMBERS = ("n_training_steps", "n_training_samples", "n_frac_active_samples")


class Checkpoints:
    """The checkpoints of one training.

    Args:
        folder: where they are written; None writes none.
        trainer: sae-lens' ``SAETrainer``, before its first step.
        options: the options of the training, as JSON holds them; a checkpoint of another training is refused.
    """

    def __init__(self, folder: Path | None, trainer: Any, options: dict[str, Any]) -> None:
        self._folder, self._trainer, self._options = folder, trainer, json.loads(json.dumps(options))

    def resume(self) -> int:
        """Load the last checkpoint, if there is one, and return the number of completed steps.

        Raises:
            ValueError: for a checkpoint of another training, or a damaged one.
        """
        if self._folder is None or not (self._folder / FILE).is_file():
            return 0
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        where, trainer = str(self._folder), self._trainer
        try:
            plain = json.loads((self._folder / FILE).read_text())
            tensors = load_file(self._folder / plain["file"])
        except (KeyError, OSError, json.JSONDecodeError, SafetensorError) as error:
            raise ValueError(f"the training in {where!r} is damaged ({error}): remove that folder to begin anew") from error
        if plain["options"] != self._options:
            raise ValueError(f"{where!r} holds the state of another training: choose another folder, or remove it")
        keep_alone(self._folder / plain["file"], _TENSORS)  # a process that was killed may not have come to it
        trainer.sae.load_state_dict(_under(tensors, "sae"))
        slots = trainer.optimizer.state_dict()
        for index in slots["param_groups"][0]["params"]:
            slots["state"][index] = _under(tensors, f"optimizer.{index}")
        slots["param_groups"][0] |= {"lr": plain["lr"]}
        trainer.optimizer.load_state_dict(slots)
        trainer.lr_scheduler.load_state_dict(plain["schedule"])
        for name, state in plain["coefficients"].items():
            trainer.coefficient_schedulers[name].load_state_dict(state)
        for name in _COUNTS:
            setattr(trainer, name, tensors[name])
        for name in _NUMBERS:
            setattr(trainer, name, plain[name])
        return plain["n_training_steps"]

    def after_step(self) -> None:
        """Write a checkpoint if ``EVERY`` steps have passed, and remove the one before it."""
        trainer = self._trainer
        if self._folder is None or trainer.n_training_steps % EVERY:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"sae.{name}": tensor for name, tensor in trainer.sae.state_dict().items()}
        slots = trainer.optimizer.state_dict()
        for index, slot in slots["state"].items():
            tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in slot.items()}
        tensors |= {name: getattr(trainer, name) for name in _COUNTS}
        file = f"sae_training-{trainer.n_training_steps}.safetensors"
        write_tensors(self._folder / file, tensors)
        plain = {"options": self._options, "file": file, "lr": slots["param_groups"][0]["lr"]}
        plain["schedule"] = _plain(trainer.lr_scheduler.state_dict())
        plain["coefficients"] = {name: s.state_dict() for name, s in trainer.coefficient_schedulers.items()}
        write_json(self._folder / FILE, plain | {name: getattr(trainer, name) for name in _NUMBERS})
        keep_alone(self._folder / file, _TENSORS)


def _plain(state: Any) -> Any:
    """The state of a scheduler, or of a sequence of schedulers, as JSON holds it."""
    if isinstance(state, dict):
        return {name: _plain(value) for name, value in state.items() if not callable(value)}
    return [_plain(value) for value in state] if isinstance(state, list | tuple) else state


def _under(tensors: dict[str, Tensor], head: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{head}."): tensor for name, tensor in tensors.items() if name.startswith(f"{head}.")}
