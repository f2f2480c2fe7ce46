"""The state of an SAE's training, kept every so many steps, so that a killed one goes on with the step that it was in.

Tensors go under a name of their own before the JSON that names them, so a state is there whole or as it was before. Nothing is
pickled: sae-lens' own checkpoints are.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp_transfer.io import write_json, write_tensors

FILE = "sae_training.json"
EVERY = 500
"""Steps between two states."""
_COUNTS = ("act_freq_scores", "n_forward_passes_since_fired")
_NUMBERS = ("n_training_steps", "n_training_samples", "n_frac_active_samples")


class TrainingState:
    """What sae-lens' trainer goes on with.

    Args:
        folder: where it is kept; None keeps nothing.
        trainer: sae-lens' ``SAETrainer``, before its first step.
        asked: what the training was asked for, as JSON holds it; a state of another one is refused.
    """

    def __init__(self, folder: Path | None, trainer: Any, asked: dict[str, Any]) -> None:
        self._folder, self._trainer, self._asked = folder, trainer, json.loads(json.dumps(asked))

    def resume(self) -> int:
        """Take up what an interrupted training left; returns how many steps it had done.

        Raises:
            ValueError: for the state of another training, or a damaged one.
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
        if plain["asked"] != self._asked:
            raise ValueError(f"{where!r} holds the state of another training: choose another folder, or remove it")
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

    def keep(self) -> None:
        """Write the state after a step, if it is time to."""
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
        plain = {"asked": self._asked, "file": file, "lr": slots["param_groups"][0]["lr"]}
        plain["schedule"] = _plain(trainer.lr_scheduler.state_dict())
        plain["coefficients"] = {name: s.state_dict() for name, s in trainer.coefficient_schedulers.items()}
        write_json(self._folder / FILE, plain | {name: getattr(trainer, name) for name in _NUMBERS})
        for old in self._folder.glob("sae_training-*.safetensors"):
            if old.name != file:
                old.unlink()


def _plain(state: Any) -> Any:
    """A scheduler's state as JSON holds it; of schedulers in a row, each of theirs."""
    if isinstance(state, dict):
        return {name: _plain(value) for name, value in state.items() if not callable(value)}
    return [_plain(value) for value in state] if isinstance(state, list | tuple) else state


def _under(tensors: dict[str, Tensor], head: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{head}."): tensor for name, tensor in tensors.items() if name.startswith(f"{head}.")}
