"""Training sparse autoencoders on captured or stored activations, by sae-lens' trainer.

Rows are scaled such that a coordinate's mean squared distance from its mean is 1, and the scale is folded into the weights
afterwards, so that one learning rate fits models of any size; the decoder's bias begins at the rows' mean. Rows far longer than
the others ("massive activations", Sun et al. 2024) are left out: a squared error would be about them alone.
"""

import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from interp_transfer.activations.capture import Activations
from interp_transfer.activations.finite import all_finite
from interp_transfer.features.resume import Checkpoints
from interp_transfer.features.sae import Sae, quiet_sae_lens
from interp_transfer.io import locked_folder
from interp_transfer.models.identity import ModelIdentity, weights_fingerprint
from interp_transfer.names import did_you_mean
from interp_transfer.progress import progress_bar

ARCHITECTURES = ("topk", "batchtopk", "matryoshka_batchtopk", "standard", "jumprelu", "gated", "abstopk", "matching_pursuit")
MASSIVE = 10.0
"""Factor of the median length beyond which a row is left out."""
SAMPLE = 16_384
"""Number of rows from which the median length, the mean and the scale are estimated."""
RUN = 64
"""Number of neighbouring rows of a store that are read together."""


@runtime_checkable
class Rows(Protocol):
    """Rows of activations that can be sliced: a tensor, or a column of a store."""

    shape: Any

    def __len__(self) -> int:
        """Number of rows."""
        ...

    def __getitem__(self, rows: Any, /) -> Tensor:
        """A slice of the rows."""
        ...


@dataclass(frozen=True)
class Recipe:
    """How an SAE is trained.

    Attributes:
        architecture: sae-lens' name of an architecture that it trains. A trained batchtopk becomes a jumprelu with the learned
            threshold.
        expansion: features for each dimension of the activation.
        k: number of active features of a row; only for architectures with a fixed number.
        epochs: passes over the rows.
        batch_size: number of rows in a step.
        learning_rate: learning rate of Adam; constant, then linear to zero over the last fifth of the steps.
        options: further fields of sae-lens' configuration of the architecture, such as ``l1_coefficient`` of "standard".
    """

    architecture: str = "topk"
    expansion: int = 8
    k: int = 32
    epochs: int = 12
    batch_size: int = 512
    learning_rate: float = 2e-3
    options: dict[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise ValueError(
                f"unknown architecture {self.architecture!r}: {did_you_mean(self.architecture, ARCHITECTURES)}choose one of "
                f"{', '.join(ARCHITECTURES)}"
            )
        for name in ("expansion", "k", "epochs", "batch_size", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)}: give a number above zero")


SMALL_MODEL = Recipe("batchtopk", learning_rate=4e-3)
"""For small models. Their activations are narrow and need more features at some tokens than at others: with equally many on
average, batchtopk explained .992 of the variance of one of them, and topk .974 at eight times the cost in nats."""
PAPER = Recipe(expansion=16, k=128, epochs=8, batch_size=16 * 512, learning_rate=3e-4)
"""The paper's (its section H.1): TopK, k 128, expansion 16, 16 texts of 512 tokens in a step, 8 epochs; the
learning rate was chosen here."""


def train_sae(
    acts: Activations | Rows,
    site: str,
    recipe: Recipe = Recipe(),  # noqa: B008 - frozen
    *,
    model: ModelIdentity | None = None,
    start: Sae | None = None,
    steps: int | None = None,
    massive: float = MASSIVE,
    checkpoint: str | Path | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Sae:
    """Train a sparse autoencoder.

    Args:
        acts: captured activations; or, with ``model``, rows: ``Float[Tensor, "row d_model"]`` or a column of stored pairs
            (``open_pairs(folder).target[site]``).
        site: hook-point name.
        recipe: the hyperparameters; ``SMALL_MODEL`` and ``PAPER`` are ready.
        model: identity of the model, for rows.
        start: an SAE of the same site and width whose weights are the initial ones, such as one that was moved from another
            model. Further features of the recipe are random.
        steps: number of steps; default: the recipe's epochs.
        massive: rows longer than ``massive`` times the median length are left out of the training, and the SAE does not change
            them.
        checkpoint: folder for a checkpoint every 500 steps; an interrupted training resumes from the last one.
        seed: seed of the initial weights and the order of rows.
        progress: show a bar when it takes longer than two seconds.

    Raises:
        ValueError: for rows without a known model, of no length, with NaN, fewer than a batch, a start that does not fit,
            or a checkpoint of another training.
    """
    rows, who = (acts[site], acts.model) if isinstance(acts, Activations) else (acts, model)
    if who is None:
        raise ValueError("the model of these rows is not known: give model=, such as interp_transfer.identity(model)")
    if len(rows.shape) != 2 or len(rows) < recipe.batch_size:
        raise ValueError(f"rows of shape {tuple(rows.shape)}: give at least batch_size={recipe.batch_size} rows (row, d_model)")
    sample = _sample(rows, seed)
    if not all_finite(sample):
        raise ValueError(f"some rows at {site!r} hold NaN or infinity: capture from a model in float32")
    lengths = sample.norm(dim=1)
    longest = massive * float(lengths.median())
    ordinary = sample[lengths <= longest]
    mean = ordinary.mean(dim=0)
    size = float((ordinary - mean).square().mean().sqrt())
    if not size > 0:
        raise ValueError(f"all rows at {site!r} are the same: there is nothing to reconstruct")
    scale = 1.0 / size
    total = steps if steps is not None else recipe.epochs * (len(rows) // recipe.batch_size)
    with torch.random.fork_rng(), quiet_sae_lens():
        torch.manual_seed(seed)
        if start is None:
            module = _begun(recipe, rows.shape[1], mean, scale)
        else:
            module = _from(start, recipe, rows.shape[1], site, mean, scale)
        about = {**asdict(recipe), "steps": total, "rows": len(rows), "seed": seed}
        options = about | {"scale": scale, "initial weights": weights_fingerprint(module)}
        batches = _batches(rows, recipe.batch_size, longest, scale, seed)
        with nullcontext() if checkpoint is None else locked_folder(checkpoint):
            _fit(module, batches, recipe, total, None if checkpoint is None else Path(checkpoint), options, progress)
        module.fold_activation_norm_scaling_factor(scale)
        trained = _for_use(module)
    return Sae(trained, site, who, longest, {"trained": about | {"start": None if start is None else repr(start)}})


def _sample(rows: Rows, seed: int) -> Float[Tensor, "row d_model"]:
    """A random sample of runs of rows."""
    return torch.cat([part for _, part in zip(range(-(-min(SAMPLE, len(rows)) // RUN)), _runs(rows, RUN, seed), strict=False)])


def _runs(rows: Rows, run: int, seed: int) -> Iterator[Float[Tensor, "row d_model"]]:
    """Runs of neighbouring rows in random order, without end."""
    starts = torch.arange(0, len(rows), run)
    generator = torch.Generator().manual_seed(seed)
    while True:
        for index in torch.randperm(len(starts), generator=generator).tolist():
            first = int(starts[index])
            yield rows[first : first + run].float()


def _batches(rows: Rows, size: int, longest: float, scale: float, seed: int) -> Iterator[Float[Tensor, "row d_model"]]:
    """Scaled batches without end: rows in random order from memory, shuffled runs of rows from a store."""
    generator = torch.Generator().manual_seed(seed)
    if isinstance(rows, Tensor):
        keep = (rows.float().norm(dim=1) <= longest).nonzero()[:, 0]
        if len(keep) < size:
            raise ValueError(f"{len(keep)} rows of ordinary length for batches of {size}: give more, or a smaller batch_size")
        while True:
            for chosen in keep[torch.randperm(len(keep), generator=generator)].split(size):
                if len(chosen) == size:
                    yield rows[chosen].float() * scale
    waiting: list[Tensor] = []
    for run in _runs(rows, RUN, seed):
        waiting.append(run[run.norm(dim=1) <= longest])
        if sum(map(len, waiting)) >= 16 * size:  # as many are mixed
            pool = torch.cat(waiting)
            pool = pool[torch.randperm(len(pool), generator=generator)]
            whole = len(pool) - len(pool) % size
            yield from (part * scale for part in pool[:whole].split(size))
            waiting = [pool[whole:]]


def _begun(recipe: Recipe, width: int, mean: Tensor, scale: float) -> Any:
    from sae_lens import TrainingSAE

    module = TrainingSAE.from_dict(_config(recipe, width).to_dict())
    if hasattr(module, "b_dec"):
        module.b_dec.data = mean * scale
    return module


def _config(recipe: Recipe, width: int) -> Any:
    from dataclasses import fields

    from sae_lens.registry import get_sae_training_class

    kind = get_sae_training_class(recipe.architecture)[1]
    known = {f.name for f in fields(kind)}
    options: dict[str, Any] = {"d_in": width, "d_sae": recipe.expansion * width, **recipe.options}
    if "k" in known:
        options.setdefault("k", min(recipe.k, options["d_sae"]))
    if unknown := sorted(set(options) - known):
        raise ValueError(f"sae-lens' {recipe.architecture} has no option {unknown[0]!r}: it has {', '.join(sorted(known))}")
    return kind(**options)


def _from(start: Sae, recipe: Recipe, width: int, site: str, mean: Tensor, scale: float) -> Any:
    """A training SAE with the weights of another as its first features, in scaled units."""
    if start.site != site or start.d_model != width:
        raise ValueError(
            f"the start is an SAE of {start.d_model} dimensions at {start.site!r}, the rows are {width} wide at {site!r}: "
            "choose one of the same"
        )
    module = _begun(recipe, width, mean, scale)
    if start.architecture not in ("topk", "jumprelu", "standard") or not hasattr(module, "b_enc"):
        raise ValueError(f"a {recipe.architecture} cannot begin with a {start.architecture}: choose topk, jumprelu or standard")
    n, room = start.n_features, int(module.cfg.d_sae)
    if n > room:
        raise ValueError(f"the start has {n} features, the recipe makes {room}: raise expansion")
    old = {name: tensor.float() for name, tensor in start.module.state_dict().items()}
    rescales = getattr(module.cfg, "rescale_acts_by_decoder_norm", False)
    # Features of decoder norm 1: activations are then the same before and after such a trainer's own rescaling.
    norms = start.decoder.float().norm(dim=1).clamp(min=1e-8) if rescales else torch.full((n,), 1 / scale)
    module.W_dec.data[:n] = start.decoder.float() / norms[:, None]
    module.W_enc.data[:, :n] = old["W_enc"] * norms
    module.b_enc.data[:n] = old["b_enc"] * norms * scale
    module.b_dec.data = old["b_dec"] * scale
    return module


def _fit(
    module: Any,
    batches: Iterator[Tensor],
    recipe: Recipe,
    steps: int,
    checkpoint: Path | None,
    options: dict[str, Any],
    progress: bool,
) -> None:
    from sae_lens import SAETrainer
    from sae_lens.config import SAETrainerConfig

    settings = SAETrainerConfig(
        total_training_samples=steps * recipe.batch_size,
        train_batch_size_samples=recipe.batch_size,
        lr=recipe.learning_rate,
        lr_end=0.0,
        lr_decay_steps=steps // 5,
        lr_warm_up_steps=min(steps // 20, 1000),
        dead_feature_window=max(10, min(1000, steps // 10)),
        device=str(module.W_dec.device),
    )
    trainer = SAETrainer(cfg=settings, sae=module, data_provider=batches)
    checkpoints = Checkpoints(checkpoint, trainer, options)
    done = checkpoints.resume()
    for _ in range(done):  # the same batches in the same order
        next(batches)
    bar = progress_bar("train SAE", progress, items=range(done, steps), initial=done, total=steps, unit="step")
    loss = torch.zeros(())
    for _ in bar:
        loss = trainer.step(next(batches)).loss
        trainer.n_training_steps += 1
        checkpoints.after_step()
    if not torch.isfinite(loss):
        raise ValueError("training diverged to NaN: lower learning_rate")


def _for_use(module: Any) -> Any:
    """The SAE for inference, with decoder rows of norm 1 where that does not change its output."""
    from sae_lens import SAE

    if getattr(module.cfg, "rescale_acts_by_decoder_norm", False):
        module.fold_W_dec_norm()
        module.cfg = replace(module.cfg, rescale_acts_by_decoder_norm=False)
    with tempfile.TemporaryDirectory() as folder:
        module.save_inference_model(folder)
        return SAE.load_from_disk(folder, device=module.cfg.device).eval().requires_grad_(False)
