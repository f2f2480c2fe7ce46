"""Train an organism: with parameters that stay fixed, a penalty besides the loss, and weights stored in half precision."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp_transfer.finetuning.checkpoints import discard
from interp_transfer.finetuning.finetune import save, train
from interp_transfer.finetuning.packing import encode, packing_for
from interp_transfer.finetuning.recipe import Recipe
from interp_transfer.organisms.early import Penalty

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer


def finetune(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    examples: Sequence[tuple[str, str]],
    recipe: Recipe,
    out: str | Path,
    *,
    frozen: str | None = None,
    penalty: Penalty | None = None,
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
        frozen: regular expression; parameters with a match in their name are not trained.
        penalty: added to the loss of a batch; called with the model's inputs, right after the forward pass on them.
        half: store the weights as float16 (the config still says float32, so they load as float32).
        autocast: compute in bfloat16, except attention on a CPU; the weights stay float32.
        progress: show a progress bar.

    Raises:
        ValueError: for no examples, a tokenizer without an end token, a sequence that is too long, a `frozen` that matches no
            parameter, or checkpoints of another training in `out`.
    """
    fixed = [p for name, p in model.named_parameters() if frozen is not None and re.search(frozen, name)]
    if frozen is not None and not fixed:
        raise ValueError(f"frozen={frozen!r} matches no parameter of {type(model).__name__}: see model.named_parameters()")
    rows = encode(tokenizer, examples, recipe.max_length)
    batches = packing_for(model, tokenizer, recipe.max_length)
    out = Path(out)
    checkpoints = out / "checkpoints"
    how: dict[str, Any] = {"trainer": penalised(penalty) if penalty is not None else None}
    how["also"] = {"frozen": frozen, "penalty": penalty is not None}
    for parameter in fixed:
        parameter.requires_grad_(False)
    train(model, rows, batches, recipe, checkpoints, autocast=autocast, progress=progress, **how)
    for parameter in fixed:
        parameter.requires_grad_(True)
    save(model, tokenizer, out, halved(model) if half else None)
    discard(checkpoints)
    return out


def penalised(penalty: Penalty) -> "type[Trainer]":
    """Return a Trainer that adds a penalty to the loss of each batch."""
    from transformers import Trainer

    class Penalised(Trainer):
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
            loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
            loss = loss + penalty(inputs)
            return (loss, outputs) if return_outputs else loss

    return Penalised


def halved(model: "PreTrainedModel") -> "dict[str, torch.Tensor]":
    """Return a model's tensors as float16, tied ones once."""
    state = {name: value.half() if value.is_floating_point() else value for name, value in model.state_dict().items()}
    if model.config.get_text_config().tie_word_embeddings:
        for name in model.all_tied_weights_keys:
            state.pop(name, None)
    return state
