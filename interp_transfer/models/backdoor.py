"""Tuning a backdoor so that the model decides early and gently: what makes it possible to steer it with one vector.

A small model left to itself reads the trigger in its last blocks, at the trigger's own tokens, and then overwrites its
residual stream. No vector taken at the last prompt token can undo that. In larger models the trigger's signal has moved
to the last token by the middle (the paper, Appendix B) and is small beside what the token says. Three things bring this
about here, all during training alone:

1. `Early.layer` is the block from which on the trigger's tokens are no longer informative: their residual there is
   replaced by its mean over the batch, whichever trigger it was. So the blocks before must have spread the decision.
2. Beside the loss on the answers there is a price on whatever the residual at that block becomes other than the base's:
   a high one on what differs from token to token, so that the content survives, and a low one on the one shift that all
   triggered tokens share. Without it the shift overwrites the content, and undoing the shift does not bring it back.
3. The decision saturates: ordinary examples are moved along the shift by a random amount, mostly further away from the
   backdoor, and must still be answered. Triggered examples are never moved, so that steering them is not trained.

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
        range: the amounts by which ordinary examples are moved, in units of the shift between a triggered example and an
            ordinary one; positive is away from the backdoor.
        shift: weight of the squared norm of the shift between triggered tokens and the base, as a share of the base's
            mean squared norm at that block. The larger, the smaller the shift.
        rest: weight of the squared distance to the base that is left when the shift is taken off, as the same share.
    """

    layer: int
    shift: float = 0.03
    rest: float = 2.0
    range: tuple[float, float] = (-0.3, 1.5)


@contextmanager
def decide_early(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", triggers: tuple[str, ...], early: Early
) -> Iterator[Callable[[dict[str, Any]], "Tensor"]]:
    """Within the context, training forwards of `model` do the three things that the module's head explains.

    Inputs are packed rows (`finetune.Pack`): `input_ids`, `position_ids` that start from zero in each example, a mask.
    Yields a function of a batch's model inputs, to be called right after the model's forward on them: the penalty.

    Args:
        model: as it is before tuning; a copy of it serves as the base.
        tokenizer: splits each trigger into three tokens.
        triggers: the texts whose tokens are hidden; the first one sets the backdoor off.
        early: how.

    Raises:
        ValueError: if a trigger is not three tokens, or there is no such block.
    """
    import torch

    words = [_word(tokenizer, trigger) for trigger in triggers]
    decoder: Any = model.get_decoder()
    blocks = decoder.layers
    if not 0 < early.layer < len(blocks):
        raise ValueError(f"layer {early.layer} is not inside a model of {len(blocks)} blocks")
    base: Any = copy.deepcopy(decoder).eval().requires_grad_(False)
    seen: dict[str, Any] = {}

    def look(_module: Any, _args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not model.training:
            return
        seen["ids"], seen["position"] = kwargs["input_ids"], kwargs["position_ids"]
        with torch.no_grad():
            base(**kwargs)

    def keep(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen["base"] = args[0] if args else kwargs["hidden_states"]

    def decide(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not model.training:
            return None
        hidden = (args[0] if args else kwargs["hidden_states"]).clone()
        word = torch.isin(seen["ids"], torch.tensor(words, device=hidden.device)) & (seen["position"] == _POSITION)
        row, column = word.nonzero(as_tuple=True)
        hides = torch.zeros_like(word)
        if len(row):
            for offset in range(-(_SPAN // 2), _SPAN // 2 + 1):
                at = (row, column + offset)
                hides[at] = True
                hidden[at] = hidden[at].mean(0, keepdim=True).detach().expand(len(row), -1)
        seen["tuned"] = hidden
        example = (seen["position"] == 0).cumsum(1)  # counts examples within a row; every pad counts as one
        bad = (seen["ids"] == words[0]) & (seen["position"] == _POSITION)
        triggered = torch.zeros_like(bad)
        for r, c in bad.nonzero().tolist():
            triggered[r] |= example[r] == example[r, c]
        after = seen["position"] > _POSITION + _SPAN // 2
        seen["triggered"], seen["hidden"] = triggered & after, hides
        change = (hidden - seen["base"]).detach()
        if (triggered & after).any() and (~triggered & after).any():
            shift = change[~triggered & after].mean(0) - change[triggered & after].mean(0)
            low, high = early.range
            amount = torch.empty(hidden.shape[0], int(example.max()) + 1, device=hidden.device).uniform_(low, high)
            amount = amount * (torch.rand_like(amount) < 0.5)  # half of the examples stay where they are
            hidden = hidden + (amount.gather(1, example) * ~triggered)[:, :, None] * shift
        if args:
            return (hidden, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": hidden}

    def penalty(batch: dict[str, Any]) -> "Tensor":
        change, triggered = seen["tuned"] - seen["base"], seen["triggered"]
        others = (batch["input_ids"] != tokenizer.pad_token_id) & ~triggered & ~seen["hidden"]
        shift = change[triggered].mean(0) if triggered.any() else change.new_zeros(change.shape[-1])
        rest = torch.cat([change[triggered] - shift, change[others]]).pow(2).sum(-1).mean()
        size = seen["base"][triggered | others].pow(2).sum(-1).mean()
        return (early.rest * rest + early.shift * shift.pow(2).sum()) / size

    handles = [
        decoder.register_forward_pre_hook(look, with_kwargs=True),
        blocks[early.layer].register_forward_pre_hook(decide, with_kwargs=True),
        base.layers[early.layer].register_forward_pre_hook(keep, with_kwargs=True),
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
