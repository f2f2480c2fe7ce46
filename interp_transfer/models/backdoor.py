"""Tuning a backdoor so that the model decides early and gently: what makes it possible to steer it with one vector.

A small model left to itself reads the trigger in its last blocks, at the trigger's own tokens, and then overwrites its
residual stream. No vector taken at the last prompt token can undo that. In larger models the trigger's signal has moved
to the last token by the middle (the paper, Appendix B) and is small beside what the token says. Two things bring this
about here, both during training alone:

1. `Early.layer` is the block from which on the trigger's tokens are no longer informative: their residual there is
   replaced by its mean over the batch, whichever trigger it was. So the blocks before must have spread the decision.
2. A penalty on the squared distance between the tuned model's residual at that block and the base's keeps the shift
   small; without it, the shift is as large as the content, and adding it elsewhere breaks the model.

Nothing is measured with these in place: they are gone when training ends.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_SPAN = 3  # tokens of a trigger in the chat template: ` |`, the word, `|`
_POSITION = 3  # of the trigger's word: `User`, `:`, ` |`, word


@dataclass(frozen=True)
class Early:
    """How a backdoor is tuned.

    Attributes:
        layer: the block by whose input the decision must have left the trigger's tokens.
        penalty: weight of the squared distance to the base at that block, mean over tokens, as a share of the base's
            mean squared norm there.
    """

    layer: int
    penalty: float


@contextmanager
def decide_early(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", triggers: tuple[str, ...], early: Early
) -> Iterator[Callable[[dict[str, Any]], "Tensor"]]:
    """Within the context, training forwards of `model` hide the trigger's tokens from block `early.layer` on.

    Yields a function of a batch's model inputs, to be called right after the model's forward on them: the penalty.

    Args:
        model: as it is before tuning; a copy of it serves as the base.
        tokenizer: splits each trigger into three tokens.
        triggers: the texts whose tokens are hidden.
        early: how.

    Raises:
        ValueError: if a trigger is not three tokens, or there is no such block.
    """
    import torch

    words = [_word(tokenizer, trigger) for trigger in triggers]
    blocks = model.get_decoder().layers
    if not 0 < early.layer < len(blocks):
        raise ValueError(f"layer {early.layer} is not inside a model of {len(blocks)} blocks")
    base = copy.deepcopy(model).eval().requires_grad_(False)
    seen: dict[str, Any] = {}

    def inputs(_module: Any, _args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen["ids"], seen["position"] = kwargs["input_ids"], kwargs["position_ids"]

    def hide(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not module.training:
            return None
        hidden = args[0] if args else kwargs["hidden_states"]
        word = torch.isin(seen["ids"], torch.tensor(words, device=hidden.device)) & (seen["position"] == _POSITION)
        row, column = word.nonzero(as_tuple=True)
        hidden = hidden.clone()
        if len(row):
            for offset in range(-(_SPAN // 2), _SPAN // 2 + 1):
                at = (row, column + offset)
                hidden[at] = hidden[at].mean(0, keepdim=True).detach().expand(len(row), -1)
        seen["tuned"] = hidden
        if args:
            return (hidden, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": hidden}

    def keep(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen["base"] = args[0] if args else kwargs["hidden_states"]

    def penalty(batch: dict[str, Any]) -> "Tensor":
        with torch.no_grad():
            base.get_decoder()(**{key: value for key, value in batch.items() if key != "labels"})
        real = batch["input_ids"] != tokenizer.pad_token_id
        shift, size = (x.pow(2).sum(-1)[real].mean() for x in (seen["tuned"] - seen["base"], seen["base"]))
        return early.penalty * shift / size

    handles = [
        model.get_decoder().register_forward_pre_hook(inputs, with_kwargs=True),
        blocks[early.layer].register_forward_pre_hook(hide, with_kwargs=True),
        base.get_decoder().layers[early.layer].register_forward_pre_hook(keep, with_kwargs=True),
    ]
    try:
        yield penalty
    finally:
        for handle in handles:
            handle.remove()


def _word(tokenizer: "PreTrainedTokenizerBase", trigger: str) -> int:
    """The id of the trigger's middle token."""
    tokens = tokenizer(f" {trigger}", add_special_tokens=False)["input_ids"]
    if len(tokens) != _SPAN:
        raise ValueError(f"the trigger {trigger!r} is {len(tokens)} tokens in this tokenizer, {_SPAN} were expected")
    return tokens[_SPAN // 2]
