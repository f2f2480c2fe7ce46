"""Fine-tuning on pairs of prompt and response, with the loss on the response alone.

transformers' Trainer does the work; this module makes its batches (`packing`) and lets it resume: an interrupted training
continues from its last complete checkpoint, and only with the same settings (`checkpoints`). The same functions train a small
model from scratch and tune an existing one. Users call `tuning`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from interp_transfer.finetuning.attention import attention_in_float32
from interp_transfer.finetuning.checkpoints import discard, resume
from interp_transfer.finetuning.packing import Pack, Pad, Row, encode, packing_for
from interp_transfer.finetuning.recipe import Recipe
from interp_transfer.io import hashed
from interp_transfer.models.checkpoints import no_progress_bars
from interp_transfer.models.identity import weights_fingerprint
from interp_transfer.progress import progress_bar

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["Pack", "Pad", "encode", "finetune", "save", "train"]


def finetune(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    examples: Sequence[tuple[str, str]],
    recipe: Recipe,
    out: str | Path,
    *,
    frozen: str | None = None,
    penalty: "Callable[[dict[str, Any]], torch.Tensor] | None" = None,
    half: bool = False,
    autocast: bool = False,
    progress: bool = True,
) -> Path:
    """Train `model` in place and save it with its tokenizer to `out`, an ordinary Hugging Face folder.

    Args:
        model: trained in float32, on its device.
        tokenizer: must have an end token; it ends every response.
        examples: pairs of prompt and response; the response continues the prompt's text.
        recipe: settings.
        out: may hold the checkpoints of an interrupted training with the same settings, which is then resumed.
        penalty: added to the loss of a batch; called with the model's inputs, right after the forward pass on them.
        frozen: regular expression; parameters with a match in their name are not trained.
        half: store the weights as float16 (the config still says float32, so they load as float32).
        autocast: compute in bfloat16, except attention on a CPU; the weights stay float32.
        progress: show a progress bar.

    Raises:
        ValueError: for no examples, a tokenizer without an end token, a sequence that is too long, a `frozen` that matches no
            parameter, or checkpoints of another training in `out`.
    """
    rows = encode(tokenizer, examples, recipe.max_length)
    batches = packing_for(model, tokenizer, recipe.max_length)
    out = Path(out)
    checkpoints = out / "checkpoints"
    train(model, rows, batches, recipe, checkpoints, frozen=frozen, penalty=penalty, autocast=autocast, progress=progress)
    save(model, tokenizer, out, half=half)
    discard(checkpoints)
    return out


def train(
    model: "PreTrainedModel",
    rows: Sequence[Row],
    batches: Pack | Pad,
    recipe: Recipe,
    checkpoints: Path,
    *,
    frozen: str | None = None,
    penalty: "Callable[[dict[str, Any]], torch.Tensor] | None" = None,
    accumulate: int = 1,
    autocast: bool = False,
    also: Mapping[str, Any] = MappingProxyType({}),
    progress: bool = True,
) -> list[tuple[int, float]]:
    """Train `model` in place, from the last complete checkpoint in `checkpoints` if there is one.

    Args:
        model: trained on its device.
        rows: encoded examples.
        batches: makes a batch of rows.
        recipe: settings.
        checkpoints: folder of the checkpoints; `discard` it when the result is saved.
        frozen: see `finetune`.
        penalty: see `finetune`.
        accumulate: parts of each batch that are computed one after the other; less memory, the same result up to rounding.
        autocast: compute in bfloat16, except attention on a CPU.
        also: further settings that a resumed training must share with the interrupted one.
        progress: show a progress bar.

    Returns:
        The mean training loss (nats per token) at about a hundred steps.
    """
    from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

    if recipe.batch_size % accumulate or accumulate < 1:
        raise ValueError(f"accumulate={accumulate} does not divide batch_size={recipe.batch_size}: choose one that does")
    if penalty is not None and accumulate > 1:
        raise ValueError("a penalty is computed on whole batches: train with accumulate=1")
    fixed = [p for name, p in model.named_parameters() if frozen is not None and re.search(frozen, name)]
    if frozen is not None and not fixed:
        raise ValueError(f"frozen={frozen!r} matches no parameter of {type(model).__name__}: see model.named_parameters()")
    settings = {
        **{key: value for key, value in asdict(recipe).items() if key != "checkpoint_every"},
        "examples": hashed(list(rows)),
        "initial weights": weights_fingerprint(model),
        "batches": repr(batches),
        "accumulate": accumulate,
        "bfloat16": autocast,
        "frozen": frozen,
        "penalty": penalty is not None,
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
    for parameter in fixed:
        parameter.requires_grad_(False)
    model.train()

    class Penalised(Trainer):
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
            loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
            if penalty is not None:
                loss = loss + penalty(inputs)
            return (loss, outputs) if return_outputs else loss

    class Bar(TrainerCallback):  # Trainer's own bar writes to stdout
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
            bar.total = state.max_steps
            bar.update(state.global_step - bar.n)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:  # noqa: ARG002
            if logs and "loss" in logs:
                bar.set_postfix(loss=f"{logs['loss']:.3f}")

    dataset: Any = rows  # Trainer accepts any sequence
    trainer = Penalised(model=model, args=arguments, train_dataset=dataset, data_collator=batches)
    trainer.remove_callback(PrinterCallback)
    kernels = attention_in_float32(model) if autocast and arguments.use_cpu else nullcontext()
    with progress_bar("training", progress, unit="step") as bar, no_progress_bars(), kernels:
        trainer.add_callback(Bar())
        trainer.train(resume_from_checkpoint=last)
    model.eval()
    for parameter in fixed:
        parameter.requires_grad_(True)
    return [(int(entry["step"]), entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]


def save(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", out: str | Path, *, half: bool = False) -> None:
    """Write model and tokenizer as a Hugging Face folder; `half` stores float16 without changing the config's dtype."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    state = {name: value.half() if value.is_floating_point() else value for name, value in model.state_dict().items()}
    if model.config.get_text_config().tie_word_embeddings:
        for name in model.all_tied_weights_keys:
            state.pop(name, None)  # tied tensors are stored once
    model.config.use_cache = True  # training switches it off
    with no_progress_bars():
        model.save_pretrained(out, state_dict=state if half else None)
    tokenizer.save_pretrained(out)
    for file in out.iterdir():
        if file.is_file():
            file.chmod(0o644)  # safetensors creates files that only their owner can read
