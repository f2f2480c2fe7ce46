"""Fine-tune a model on a task or on pairs of prompt and response, and write a folder that `load_model` takes.

The work is done in a hidden folder next to the result, which is moved to its place when it is complete: a killed process leaves
no partial result, and the same call resumes from its last checkpoint. `training.json` next to the weights records the settings
and the loss before and after, also on held-out examples.
"""

import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from interp_transfer.evaluation.task import Task
from interp_transfer.finetuning.finetune import save, train
from interp_transfer.finetuning.packing import Batches, Row, encode, packing_for, padding_for, response_tokens
from interp_transfer.finetuning.recipe import Recipe
from interp_transfer.io import empty_folder, hashed, write_json
from interp_transfer.models.adapters import Lora, adapt, require_peft, save_adapter
from interp_transfer.models.chat_templates import has_chat_template, render_chat
from interp_transfer.prompts.alpaca import alpaca
from interp_transfer.prompts.chats import Chat
from interp_transfer.prompts.jsonl import read_jsonl

MICRO = 10_000_000
"""Number of parameters below which a model is tuned with the large steps that suit small models."""

TEMPLATES = ("none", "chat", "alpaca")
_MOST_HELD_OUT = 1000


@dataclass(frozen=True)
class TrainingData:
    """Training data and how to use them.

    Attributes:
        pairs: prompt and response; the response continues the prompt's text.
        source: description of their origin.
        template: the template of the prompts: "none", "chat" (the tokenizer's own chat template) or "alpaca".
        held_out: share of the prompts, at most 1000, that is held out to measure the loss before and after.
        skip_long: leave out examples with more than the recipe's max_length tokens; otherwise they are an error.
    """

    pairs: Sequence[tuple[str, str]]
    source: str = "pairs"
    template: str = "none"
    held_out: float = 0.05
    skip_long: bool = False

    def __post_init__(self) -> None:
        """Check the values."""
        if self.template not in TEMPLATES:
            raise ValueError(f"unknown template {self.template!r}: choose one of {', '.join(TEMPLATES)}")
        if not 0 <= self.held_out < 1:
            raise ValueError(f"held_out={self.held_out} is a share of the prompts: give a number in [0, 1)")


@dataclass(frozen=True)
class Machine:
    """Device, precision and memory use.

    Attributes:
        device: "cpu" or "cuda" (the first visible GPU); by default a GPU if there is one.
        dtype: "float32"; or "bfloat16": computed in bfloat16, with trained weights in float32 (bfloat16 would round small
            steps away), weights that a LoRA does not train in bfloat16, and the result stored in bfloat16.
        accumulate: parts of each batch that are computed one after the other: less memory, the same result up to rounding.
    """

    device: str | None = None
    dtype: str = "float32"
    accumulate: int = 1

    def __post_init__(self) -> None:
        """Check the values."""
        if self.device not in (None, "cpu", "cuda"):
            raise ValueError(f"device={self.device!r}: give cpu or cuda (CUDA_VISIBLE_DEVICES chooses among several GPUs)")
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"dtype={self.dtype!r}: give float32 or bfloat16")


def pairs_from_jsonl(path: str | Path) -> list[tuple[str, str]]:
    """Pairs from a JSONL of `prompt` and `response`, one object a line; other columns are left out.

    Raises:
        ValueError: for a file that cannot be read, and for the first line that is wrong.
    """
    rows = read_jsonl(path, ("prompt", "response"))
    empty = next((number for number, row in rows if not row["response"]), None)
    if empty is not None:
        raise ValueError(f"{path}, line {empty}: 'response' is empty; expected a text that the model is to learn")
    return [(row["prompt"], row["response"]) for _, row in rows]


def training_of(task: Task) -> tuple[list[tuple[str, str]], dict[str, Any]]:
    """A task's training pairs, and those fields of the recipe that the task brings (``Task.recipe``).

    Raises:
        ValueError: for a task that no model is tuned on.
    """
    if task.training is None:
        raise ValueError(f"the task {task.name!r} has no training pairs: no model is tuned on it")
    fields = ("epochs", "learning_rate", "weight_decay", "batch_size", "max_length")
    return task.training("train"), {field: task.recipe[field] for field in fields if field in task.recipe}


def default_recipe(parameters: int, context: int, lora: bool) -> Recipe:
    """The default recipe for models of this size; small models take large steps."""
    length = min(1024, context)
    if parameters < MICRO:
        return Recipe(max_length=length)
    rate = 2e-4 if lora else 2e-5
    return Recipe(learning_rate=rate, batch_size=16, weight_decay=0.0, beta2=0.999, max_length=length)


def tune(
    model: str | Path,
    data: TrainingData,
    out: str | Path,
    recipe: Recipe | Mapping[str, Any] | None = None,
    *,
    lora: Lora | None = None,
    machine: Machine | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Tune a model and write it to `out`, a Hugging Face folder that `load_model(out)` takes.

    Args:
        model: name of a known model, hub name or local folder.
        data: pairs, and how to use them.
        out: the folder to write; must be empty or missing.
        recipe: settings, or some of their fields; the others are those of `default_recipe`.
        lora: tune a low-rank correction instead of all weights.
        machine: device, precision and memory use.
        progress: show bars when it takes longer than two seconds.

    Returns:
        The content of `training.json` in the folder.

    Raises:
        ValueError: for invalid arguments, before any training; for an interrupted training with other settings next to
            `out`; when the GPU runs out of memory.
    """
    import torch

    from interp_transfer.models.checkpoints import cast, load_unwrapped
    from interp_transfer.models.hooked_model import is_quantized

    out, machine = empty_folder(out), machine or Machine()
    if lora is not None:
        require_peft()
    device = machine.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device='cuda', but torch sees no GPU: use --device cpu")
    hf, tokenizer, base = load_unwrapped(model)
    if is_quantized(hf):
        raise ValueError(f"{str(model)!r} is quantized, and tuning needs gradients: give the checkpoint it was made from")
    context = getattr(hf.config.get_text_config(), "max_position_embeddings", None) or 1024
    parameters = sum(p.numel() for p in hf.parameters())
    if not isinstance(recipe, Recipe):
        recipe = _completed(recipe or {}, default_recipe(parameters, context, lora is not None))
    if recipe.max_length > context:
        raise ValueError(f"max_length={recipe.max_length} exceeds the model's context of {context} tokens: lower it")
    pairs = _rendered(data, tokenizer)
    train_pairs, held_pairs = _split(pairs, data.held_out, recipe.seed)
    rows, held_out = (
        [] if not p else encode(tokenizer, p, recipe.max_length, skip_long=data.skip_long) for p in (train_pairs, held_pairs)
    )

    low = machine.dtype == "bfloat16"
    cast(hf, torch.bfloat16 if low and lora else torch.float32)
    hf.to(device)
    tuned: Any = hf if lora is None else adapt(hf, lora, recipe.seed)
    # Packing suits the short examples of small models; kernels of large ones may not accept its mask.
    batches = packing_for(hf, tokenizer, recipe.max_length) if parameters < MICRO and not lora else padding_for(tokenizer, hf)
    size = max(1, recipe.batch_size // machine.accumulate)
    work = out.with_name(f".{out.name}.finetuning")
    also = {"base": base.fingerprint, "lora": lora and str(lora)}

    def losses() -> dict[str, float | None]:
        sample = rows[: max(len(held_out), 100)]
        return {
            name: mean_loss(tuned, some, batches, size, low) for name, some in (("trained", sample), ("held_out", held_out))
        }

    try:
        before = losses()
        curve = train(
            tuned,
            rows,
            batches,
            recipe,
            work / "checkpoints",
            accumulate=machine.accumulate,
            autocast=low,
            also=also,
            progress=progress,
        )
        after = losses()
    except torch.OutOfMemoryError as error:
        raise ValueError(f"out of memory on {device}: a larger --accumulate, --lora or --dtype bfloat16 need less") from error

    card = {
        "schema": 1,
        "base": {"name": base.name, "fingerprint": base.fingerprint},
        "data": {
            "source": data.source,
            "template": data.template,
            "hash": hashed(pairs),
            "trained_on": len(rows),
            "tokens": sum(len(row["input_ids"]) for row in rows),
            "held_out": len(held_out),
            "too_long": len(pairs) - len(rows) - len(held_out),
        },
        "recipe": asdict(recipe),
        "lora": None if lora is None else asdict(lora),
        "machine": {"device": device, "dtype": machine.dtype, "accumulate": machine.accumulate},
        "seed": recipe.seed,
        "loss": {"unit": "nats per token of response", "before": before, "after": after},
        "curve": [{"step": step, "loss": loss} for step, loss in curve],
        "versions": {name: version(name) for name in ("interp-transfer", "torch", "transformers", *(["peft"] if lora else []))},
    }
    result = work / "result"
    shutil.rmtree(result, ignore_errors=True)
    if lora is not None and not lora.merge:
        result.mkdir(parents=True)
        if low:
            for parameter in (p for p in tuned.parameters() if p.requires_grad):
                parameter.data = parameter.data.to(torch.bfloat16)
        save_adapter(tuned, result, _lasting(base.name))
        tokenizer.save_pretrained(result)
    else:
        whole = tuned if lora is None else tuned.merge_and_unload()
        cast(whole, torch.bfloat16 if low else torch.float32)
        save(whole, tokenizer, result)
    write_json(result / "training.json", card)
    if out.exists():
        out.rmdir()
    result.rename(out)
    shutil.rmtree(work, ignore_errors=True)
    return card


def mean_loss(model: Any, rows: Sequence[Row], batches: Batches, size: int, autocast: bool = False) -> float | None:
    """Nats per token of response, over all tokens of the rows; None for no rows."""
    import torch
    from accelerate.utils import send_to_device

    if not rows:
        return None
    total, device = 0.0, next(model.parameters()).device
    ordered = sorted(rows, key=lambda row: len(row["input_ids"]))
    model.eval()
    with torch.no_grad(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=autocast):
        for start in range(0, len(ordered), size):
            some = ordered[start : start + size]
            inputs = send_to_device(batches(some), device)
            total += float(model(**inputs).loss) * sum(map(response_tokens, some))
    return total / sum(map(response_tokens, ordered))


def _completed(fields: Mapping[str, Any], default: Recipe) -> Recipe:
    known = asdict(default)
    if unknown := sorted(set(fields) - set(known)):
        raise ValueError(f"unknown recipe field {unknown[0]!r}: there are {', '.join(known)}")
    return replace(default, **{k: float(v) if isinstance(known[k], float) else v for k, v in fields.items()})


def _rendered(data: TrainingData, tokenizer: Any) -> list[tuple[str, str]]:
    """The pairs with each prompt in its template."""
    if data.template == "none":
        return list(data.pairs)
    if data.template == "alpaca":
        return [(alpaca(prompt), response) for prompt, response in data.pairs]
    if not has_chat_template(tokenizer):
        raise ValueError("the tokenizer has no chat template: use template none or alpaca, or put prompts into one yourself")
    return [(render_chat(tokenizer, Chat((("user", prompt),))), response) for prompt, response in data.pairs]


def _split(pairs: Sequence[tuple[str, str]], share: float, seed: int) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Training and held-out pairs. All pairs of a share of the prompts, drawn by the seed, are held out."""
    prompts = list(dict.fromkeys(prompt for prompt, _ in pairs))
    count = min(_MOST_HELD_OUT, max(1, round(share * len(prompts)))) if share and len(prompts) > 1 else 0
    held = set(random.Random(seed).sample(prompts, count))
    return [pair for pair in pairs if pair[0] not in held], [pair for pair in pairs if pair[0] in held]


def _lasting(name: str) -> str:
    """The name of a base for an adapter's config: the absolute path of a folder."""
    path = Path(name).expanduser()
    return str(path.absolute()) if path.is_dir() else name
