"""Checkpoints of an SAE's training: a killed training resumes at the step of its last checkpoint.

A checkpoint is a folder with the weights and the state that sae-lens' trainer writes (optimizer, schedules, counts). It is
written under a name of its own before the JSON that names it, so there is a whole one at any time.
"""

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

from interp_transfer.io import read_tensors, write_json, write_tensors

FILE = "sae_training.json"
EVERY = 500
"""Number of steps between two checkpoints."""
WEIGHTS = "sae.safetensors"


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
        where = str(self._folder)
        try:
            plain = json.loads((self._folder / FILE).read_text())
            last = self._folder / plain["checkpoint"]
            if plain["options"] == self._options:
                self._trainer.sae.load_state_dict(read_tensors(last / WEIGHTS)[0])
                self._trainer.load_trainer_state(last)
                return self._trainer.n_training_steps
        except (KeyError, OSError, ValueError, RuntimeError, pickle.UnpicklingError) as error:
            raise ValueError(f"the training in {where!r} is damaged ({error}): remove that folder to begin anew") from error
        raise ValueError(f"{where!r} holds the state of another training: choose another folder, or remove it")

    def after_step(self) -> None:
        """Write a checkpoint if ``EVERY`` steps have passed, and remove the one before it."""
        done = self._trainer.n_training_steps
        if self._folder is None or done % EVERY:
            return
        new = self._folder / f"step-{done}"
        self._trainer.save_trainer_state(new)
        write_tensors(new / WEIGHTS, self._trainer.sae.state_dict())
        write_json(self._folder / FILE, {"options": self._options, "checkpoint": new.name})
        for old in self._folder.glob("step-*"):
            if old != new:
                shutil.rmtree(old)
