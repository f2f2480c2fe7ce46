"""Fine-tuning on pairs of prompt and response, with the loss on the response alone.

transformers' Trainer does the work; this module makes its batches (`packing`) and lets it resume: an interrupted training
continues from its last complete checkpoint, and only with the same settings (`checkpoints`). The same functions train a small
model from scratch and tune an existing one. Users call `tuning`.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from interp_transfer.finetuning.attention import attention_in_float32
from interp_transfer.finetuning.checkpoints import resume
from interp_transfer.finetuning.packing import Batches, Row
from interp_transfer.finetuning.recipe import Recipe
from interp_transfer.io import hashed
from interp_transfer.models.checkpoints import no_progress_bars
from interp_transfer.models.identity import weights_fingerprint
from interp_transfer.progress import progress_bar

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer


def train(
    model: "PreTrainedModel",
    rows: Sequence[Row],
    batches: Batches,
    recipe: Recipe,
    checkpoints: Path,
    *,
    accumulate: int = 1,
    autocast: bool = False,
    also: Mapping[str, Any] = MappingProxyType({}),
    trainer: "type[Trainer] | None" = None,
    progress: bool = True,
) -> list[tuple[int, float]]:
    """Train `model` in place, from the last complete checkpoint in `checkpoints` if there is one.

    Args:
        model: trained on its device.
        rows: encoded examples.
        batches: makes a batch of rows.
        recipe: settings.
        checkpoints: folder of the checkpoints; `discard` it when the result is saved.
        accumulate: parts of each batch that are computed one after the other; less memory, the same result up to rounding.
        autocast: compute in bfloat16, except attention on a CPU; the weights stay as they are.
        also: further settings that a resumed training must share with the interrupted one.
        trainer: subclass of transformers' Trainer to use, with another loss for example.
        progress: show a progress bar.

    Returns:
        The mean training loss (nats per token) at about a hundred steps.
    """
    from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

    if recipe.batch_size % accumulate or accumulate < 1:
        raise ValueError(f"accumulate={accumulate} does not divide batch_size={recipe.batch_size}: choose one that does")
    settings = {
        **{key: value for key, value in asdict(recipe).items() if key != "checkpoint_every"},
        "examples": hashed(list(rows)),
        "initial weights": weights_fingerprint(model),
        "batches": type(batches).__name__,
        "accumulate": accumulate,
        "bfloat16": autocast,
        **also,
    }
    last = resume(checkpoints, settings)
    steps = recipe.epochs * -(-len(rows) // recipe.batch_size)
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        num_train_epochs=recipe.epochs,
        learning_rate=recipe.learning_rate,
        per_device_train_batch_size=recipe.batch_size // accumulate,
        gradient_accumulation_steps=accumulate,
        weight_decay=recipe.weight_decay,
        adam_beta2=recipe.beta2,
        warmup_steps=int(recipe.warmup * steps),
        lr_scheduler_type="cosine",
        bf16=autocast,
        seed=recipe.seed,
        data_seed=recipe.seed,
        save_steps=recipe.checkpoint_every,
        save_total_limit=1,
        logging_steps=max(1, int(steps) // 100),
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        use_cpu=model.device.type == "cpu",
    )
    model.train()

    class Bar(TrainerCallback):  # Trainer's own bar writes to stdout
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
            bar.total = state.max_steps
            bar.update(state.global_step - bar.n)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:  # noqa: ARG002
            if logs and "loss" in logs:
                bar.set_postfix(loss=f"{logs['loss']:.3f}")

    dataset: Any = rows  # Trainer accepts any sequence
    training = (trainer or Trainer)(model=model, args=arguments, train_dataset=dataset, data_collator=batches)
    training.remove_callback(PrinterCallback)
    kernels = attention_in_float32(model) if autocast and arguments.use_cpu else nullcontext()
    with progress_bar("training", progress, unit="step") as bar, no_progress_bars(), kernels:
        training.add_callback(Bar())
        training.train(resume_from_checkpoint=last)
    model.eval()
    return [(int(entry["step"]), entry["loss"]) for entry in training.state.log_history if "loss" in entry]


def save(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", out: str | Path, state: Mapping[str, Any] | None = None
) -> None:
    """Write model and tokenizer as a Hugging Face folder; `state` are tensors to store instead of the model's."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    model.config.use_cache = True  # training switches it off
    with no_progress_bars():
        model.save_pretrained(out, state_dict=None if state is None else dict(state))
    tokenizer.save_pretrained(out)
    for file in out.iterdir():
        if file.is_file():
            file.chmod(0o644)  # safetensors creates files that only their owner can read
