"""Train mappers: mean squared error of standardised rows, by AdamW.

The learning rate rises over the first tenth of the steps and falls to zero along a cosine. Training stops when the held-out
error no longer falls, and the best weights are kept. With a checkpoint folder, a killed training resumes with the epoch that
it was in. Each rank takes its share of every batch, and gradients are averaged (DistributedDataParallel).
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from interp_transfer.io import keep_alone, write_json, write_tensors
from interp_transfer.mapping.distributed import data_parallel, rank_and_size, summed
from interp_transfer.mapping.kl_loss import KLLoss
from interp_transfer.mapping.row_blocks import Part
from interp_transfer.models.identity import weights_fingerprint
from interp_transfer.progress import progress_bar

_TENSORS = "training-*.safetensors"
_WARM_UP = 0.1  # share of the steps


@dataclass(frozen=True)
class Training:
    """Settings of training.

    The paper trains for 3 epochs at 1e-4 on tens of millions of tokens (its Table 22). The defaults here are for tens of
    thousands: more epochs at a higher rate.

    Attributes:
        epochs: maximum number of passes over the rows.
        learning_rate: peak rate of AdamW.
        weight_decay: weight decay of AdamW.
        batch_size: rows in a step.
        patience: epochs without a better held-out error before training stops.
        kl: weight of the KL loss of the target (`kl_loss`), in nats per token, relative to the mean squared error of
            standardised rows; needs ``models`` and ``texts`` of ``fit``.
    """

    epochs: int = 20
    learning_rate: float = 3e-3
    weight_decay: float = 0.0
    batch_size: int = 256
    patience: int = 6
    kl: float = 0.0

    def __post_init__(self) -> None:
        for name in ("epochs", "learning_rate", "batch_size", "patience"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)}: give a number above zero")
        if not self.kl >= 0:
            raise ValueError(f"kl={self.kl}: give a weight of zero or more")


def train_by_gradient(
    core: nn.Module,
    train: Part,
    judge: Part,
    settings: Training,
    seed: int,
    *,
    checkpoint: Path | None = None,
    kl_loss: KLLoss | None = None,
    progress: bool = True,
) -> list[float]:
    """Train a network in place, keep the best weights, and return the held-out error after each epoch.

    Args:
        core: the network; parameters without gradient stay as they are.
        train: standardised rows to fit.
        judge: standardised rows to stop by.
        settings: of the training.
        seed: of the order of batches.
        checkpoint: folder that holds the state between epochs; training resumes from it.
        kl_loss: a second loss, with the weight ``settings.kl``.
        progress: show a bar when it takes longer than two seconds.

    Raises:
        ValueError: if training diverges, or ``checkpoint`` is of another training.
    """
    steps = -(-len(train) // settings.batch_size)
    parameters = [p for p in core.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=steps * settings.epochs + 1, pct_start=_WARM_UP
    )
    state = _State(core, optimizer, schedule, {**asdict(settings), "seed": seed, "rows": len(train)}, checkpoint)
    state.resume()
    rank, size = rank_and_size()
    model = data_parallel(core)
    epochs = progress_bar("fit", progress and rank == 0, items=range(len(state.curve), settings.epochs), unit="epoch")
    for epoch in epochs:
        if _waited(state.curve) >= settings.patience:
            break
        core.train()
        order = seed * 10_007 + epoch
        texts = None if kl_loss is None else kl_loss.batches(order)
        for batch in train.batches(settings.batch_size, order):
            x, y = (rows[rank::size] for rows in batch)
            # The mean over ranks of these losses is the mean over the batch, though the ranks' shares may differ in length.
            loss = (model(x) - y).square().sum() / (batch[1].numel() / size)
            if kl_loss is not None and texts is not None:
                loss = loss + settings.kl * kl_loss.loss(core, next(texts))
            optimizer.zero_grad()
            torch.autograd.backward(loss, inputs=parameters)  # not those of the models in the KL loss
            optimizer.step()
            schedule.step()
        core.eval()
        extra = 0.0 if kl_loss is None else settings.kl * kl_loss.held_out(core)
        state.keep(_error(core, judge) + extra)
        epochs.set_postfix(held_out=f"{state.curve[-1]:.4f}")
    if not state.best:
        raise ValueError("training diverged to NaN: lower learning_rate")
    core.load_state_dict(state.best)
    return state.curve


@torch.no_grad()
def _error(core: nn.Module, judge: Part) -> float:
    """Mean squared error, without holding all rows at once."""
    own = sum(float((core(x) - y).square().mean()) * len(x) for x, y in judge.blocks(*rank_and_size()))
    return float(summed(torch.tensor(own, dtype=torch.float64))) / len(judge)


def _waited(curve: list[float]) -> int:
    """Number of epochs since the best one."""
    return len(curve) - 1 - curve.index(min(curve)) if curve else 0


class _State:
    """State of a training: weights, the best weights so far, the optimizer's moments, the held-out errors."""

    def __init__(self, core: nn.Module, optimizer: Any, schedule: Any, request: dict[str, Any], folder: Path | None) -> None:
        self.curve: list[float] = []
        self.best: dict[str, Tensor] = {}
        self._core, self._optimizer, self._schedule, self._folder = core, optimizer, schedule, folder
        self._request = request | {"initial weights": weights_fingerprint(core)}

    def keep(self, error: float) -> None:
        """Record the error of an epoch, and its weights if they are the best."""
        self.curve.append(error)
        if error <= min(self.curve):
            self.best = {name: tensor.clone() for name, tensor in self._core.state_dict().items()}
        if self._folder is not None and rank_and_size()[0] == 0:
            self._write(self._folder)

    def resume(self) -> None:
        """Load the state of an interrupted training, if there is one."""
        checkpoint = self._read()
        if checkpoint is None:
            return
        plain, tensors = checkpoint
        self.curve = plain["curve"]
        self._core.load_state_dict(_under(tensors, "core"))
        self.best = _under(tensors, "best")
        slots = self._optimizer.state_dict()
        for index in slots["param_groups"][0]["params"]:
            slots["state"][index] = _under(tensors, f"optimizer.{index}")
        slots["param_groups"][0] |= plain["group"]
        self._optimizer.load_state_dict(slots)
        self._schedule.load_state_dict(plain["schedule"])

    def _read(self) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        if self._folder is None or not (self._folder / "training.json").is_file():
            return None
        from safetensors.torch import load_file

        plain = json.loads((self._folder / "training.json").read_text())
        if plain["request"] != json.loads(json.dumps(self._request)):
            raise ValueError(f"{str(self._folder)!r} holds the state of another training: choose another folder, or remove it")
        tensors = load_file(self._folder / plain["file"])
        if rank_and_size()[0] == 0:
            keep_alone(self._folder / plain["file"], _TENSORS)  # a process that was killed may not have come to it
        return plain, tensors

    def _write(self, folder: Path) -> None:
        """Write the tensors under a new name, then the JSON that names them, so that a checkpoint is never incomplete."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"core.{name}": tensor for name, tensor in self._core.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best.items()}
        slots = self._optimizer.state_dict()
        for index, slot in slots["state"].items():
            tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in slot.items()}
        file = f"training-{len(self.curve)}.safetensors"
        write_tensors(folder / file, tensors)
        group = {name: value for name, value in slots["param_groups"][0].items() if name != "params"}
        schedule = {name: value for name, value in self._schedule.state_dict().items() if not callable(value)}
        plain = {"request": self._request, "file": file, "curve": self.curve, "group": group, "schedule": schedule}
        write_json(folder / "training.json", plain)
        keep_alone(folder / file, _TENSORS)


def _under(tensors: dict[str, Tensor], head: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{head}."): tensor for name, tensor in tensors.items() if name.startswith(f"{head}.")}
