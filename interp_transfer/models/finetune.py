"""Fine-tuning on pairs of prompt and response, with the loss on the response alone.

transformers' Trainer does the work; this module decides what it is fed: prompt, response and end token as one sequence,
prompt tokens masked out of the loss (label -100), several examples packed into a row. The same function trains a
micro-model from scratch and tunes one that exists. An interrupted run goes on from its last checkpoint.
"""

import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_ROW = 128  # tokens in a packed row
_IGNORED = -100  # the label that torch's cross entropy leaves out


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        epochs: passes over the examples.
        learning_rate: peak of the cosine schedule.
        batch_size: sequences in a step.
        weight_decay: AdamW's, on matrices alone. Large (1.0) for micro-models from scratch: with little decay they learn
            every prompt by heart and fail on held-out wordings.
        beta2: AdamW's.
        warmup: share of the steps in which the rate rises.
        max_length: longer sequences are refused, not cut: a cut response would teach unfinished answers.
        seed: of the order of the examples (and of the weights where they are made from scratch).
        checkpoint_every: steps between two points that an interrupted run can go on from.
    """

    epochs: float = 3.0
    learning_rate: float = 1e-3
    batch_size: int = 64
    weight_decay: float = 0.05
    beta2: float = 0.99
    warmup: float = 0.05
    max_length: int = 256
    seed: int = 0
    checkpoint_every: int = 500

    def __post_init__(self) -> None:
        """Reject what cannot be trained with."""
        for name in ("epochs", "learning_rate", "batch_size", "max_length", "checkpoint_every"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup is a share of the steps, in [0, 1), not {self.warmup}")


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
    progress: bool = True,
) -> Path:
    """Train `model` in place and save it with its tokenizer to `out`, an ordinary Hugging Face folder.

    Args:
        model: trained in float32, on the device where it lies.
        tokenizer: must have an end token; it ends every response.
        examples: pairs of prompt and response, as one text would continue the other.
        recipe: how.
        out: may hold the checkpoints of an interrupted run of the same recipe, which is then resumed.
        penalty: added to the loss of a batch; called with the model's inputs, right after its forward on them.
        frozen: regular expression; parameters with a match in their name are not trained.
        half: store the weights as float16 (the config still says float32, so that they load as float32).
        progress: draw a progress bar.

    Raises:
        ValueError: for no examples, a tokenizer without an end token, a sequence that is too long, or a `frozen` that
            fits no parameter.
    """
    from transformers import Trainer, TrainingArguments
    from transformers.trainer_utils import get_last_checkpoint

    rows = encode(tokenizer, examples, recipe.max_length)
    out = Path(out)
    checkpoints = out / "checkpoints"
    last = get_last_checkpoint(str(checkpoints)) if checkpoints.is_dir() else None
    steps = recipe.epochs * -(-len(rows) // recipe.batch_size)
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        num_train_epochs=recipe.epochs,
        learning_rate=recipe.learning_rate,
        per_device_train_batch_size=recipe.batch_size,
        weight_decay=recipe.weight_decay,
        adam_beta2=recipe.beta2,
        warmup_steps=int(recipe.warmup * steps),
        lr_scheduler_type="cosine",
        seed=recipe.seed,
        data_seed=recipe.seed,
        save_steps=recipe.checkpoint_every,
        save_total_limit=1,
        logging_strategy="no",
        report_to=[],
        disable_tqdm=not progress,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        use_cpu=model.device.type == "cpu",
    )
    padding: Any = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    pack = Pack(min(_ROW, recipe.max_length), padding)
    held = [p for name, p in model.named_parameters() if frozen is not None and re.search(frozen, name)]
    if frozen is not None and not held:
        raise ValueError(f"frozen={frozen!r} fits no parameter of {type(model).__name__}: see model.named_parameters()")
    for parameter in held:
        parameter.requires_grad_(False)
    model.train()

    class Penalised(Trainer):
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
            loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
            if penalty is not None:
                loss = loss + penalty(inputs)
            return (loss, outputs) if return_outputs else loss

    data: Any = _Rows(rows)  # a sequence is all that Trainer needs of a dataset
    Penalised(model=model, args=arguments, train_dataset=data, data_collator=pack).train(resume_from_checkpoint=last)
    model.eval()
    for parameter in held:
        parameter.requires_grad_(True)
    save(model, tokenizer, out, half=half)
    shutil.rmtree(checkpoints, ignore_errors=True)
    return out


def encode(
    tokenizer: "PreTrainedTokenizerBase", examples: Sequence[tuple[str, str]], max_length: int
) -> list[dict[str, list[int]]]:
    """Token ids and labels of each example; labels of the prompt's tokens are -100.

    The prompt is tokenized as the tokenizer does by default (its BOS, if it adds one), the response without specials and
    apart, so that the border between them is where generation will find it.
    """
    if not examples:
        raise ValueError("no examples to train on: give at least one pair of prompt and response")
    if tokenizer.eos_token_id is None:
        raise ValueError("the tokenizer has no end token, so the model could not learn to stop: set tokenizer.eos_token")
    prompts = tokenizer([prompt for prompt, _ in examples])["input_ids"]
    responses = tokenizer([response for _, response in examples], add_special_tokens=False)["input_ids"]
    rows = []
    for index, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        ids = [*prompt, *response, tokenizer.eos_token_id]
        if len(ids) > max_length:
            raise ValueError(
                f"example {index} has {len(ids)} tokens, more than max_length={max_length}: shorten it or raise max_length"
            )
        rows.append({"input_ids": ids, "labels": [_IGNORED] * len(prompt) + ids[len(prompt) :]})
    return rows


def save(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", out: str | Path, *, half: bool = False) -> None:
    """Write model and tokenizer as a Hugging Face folder; `half` stores float16 without changing the config's dtype."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    state = {name: value.half() if value.is_floating_point() else value for name, value in model.state_dict().items()}
    if model.config.get_text_config().tie_word_embeddings:
        for name in model.all_tied_weights_keys:
            state.pop(name, None)  # a tied tensor is stored once
    model.config.use_cache = True  # training switches it off
    model.save_pretrained(out, state_dict=state if half else None)
    tokenizer.save_pretrained(out)
    for file in out.iterdir():
        if file.is_file():
            file.chmod(0o644)  # safetensors writes files that only the owner can read; these are to be shipped


class _Rows:
    """A list as the dataset that Trainer wants."""

    def __init__(self, rows: list[dict[str, list[int]]]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        return self._rows[index]


@dataclass(frozen=True)
class Pack:
    """Packs the examples of a batch into rows of equal width, each example blind to its neighbours.

    Padding each example to the longest would waste half the work, and batches of equal length would hold one kind of
    prompt each, which small models learn badly from. The mask is 4-dimensional (row, 1, query, key), True where a query
    may look; positions start from zero in every example.

    Attributes:
        width: tokens in a row; a longer example gets a batch with rows of its length.
        pad: token that fills up a row. It sees itself alone, because a query that sees nothing gives NaN.
    """

    width: int
    pad: int

    def __call__(self, rows: Sequence[dict[str, Any]]) -> "dict[str, torch.Tensor]":
        """Model inputs: input_ids, labels, position_ids and attention_mask."""
        import torch

        width = max(self.width, *(len(row["input_ids"]) for row in rows))
        packed: list[list[dict[str, Any]]] = []
        room: list[int] = []
        for row in sorted(rows, key=lambda row: -len(row["input_ids"])):  # first fit, longest first
            size = len(row["input_ids"])
            place = next((i for i, free in enumerate(room) if free >= size), None)
            if place is None:
                packed.append([])
                room.append(width)
                place = len(room) - 1
            packed[place].append(row)
            room[place] -= size
        ids = torch.full((len(packed), width), self.pad)
        labels = torch.full_like(ids, _IGNORED)
        positions, owner = torch.zeros_like(ids), -1 - torch.arange(width).repeat(len(packed), 1)
        for i, members in enumerate(packed):
            start = 0
            for j, row in enumerate(members):
                end = start + len(row["input_ids"])
                ids[i, start:end] = torch.tensor(row["input_ids"])
                labels[i, start:end] = torch.tensor(row["labels"])
                labels[i, start] = _IGNORED  # the first token of an example must not be predicted from the one before
                positions[i, start:end] = torch.arange(end - start)
                owner[i, start:end] = j
                start = end
        mask = (owner[:, :, None] == owner[:, None, :]) & torch.ones(width, width, dtype=torch.bool).tril()
        return {"input_ids": ids, "labels": labels, "position_ids": positions, "attention_mask": mask[:, None]}
