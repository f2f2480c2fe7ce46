"""Training that makes a model decide early and gently: what makes a behaviour one that a single vector can steer.

A small model left to itself reads a cue (a trigger, an instruction) in its last blocks, at the cue's own tokens, and then
overwrites its residual stream. No vector taken at the last prompt token can undo that. In larger models the cue's signal has
moved to the last token by the middle (the paper, Appendix B) and is small beside what the token says. Three things bring this
about here, all during training alone:

1. `Early.layer` is the block from which on the tokens of the cues are no longer informative: their residual there is replaced
   by its mean over the batch. So the blocks before must have spread the decision.
2. Beside the loss on the answers there is a price on whatever the residual at that block becomes other than it was before
   tuning: a high one on what differs from token to token, so that the content survives, and a low one on the one shift that
   all tokens of a behaviour share. Without it the shift overwrites the content, and undoing it does not bring it back. The
   prompt's last token, where vectors are read, is priced once more by itself: among all the others it would hardly count,
   and would hold a decision of its own, three times as large, that fits no other token.
3. The decision saturates: ordinary examples are moved along the shift by a random amount, mostly further away from the
   behaviour, and must still be answered. Examples of a behaviour are never moved, so that steering them is not trained.

Nothing is measured with these in place: they are gone when training ends.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Penalty = Callable[[dict[str, Any]], "Tensor"]
Behaviour = Callable[[str], int | None]
"""From an example's text to the number of the behaviour that it shows, or None for an ordinary one."""


@dataclass(frozen=True)
class Early:
    """How a behaviour is tuned.

    Attributes:
        layer: the block by whose input the decision must have left the cue's tokens.
        range: the amounts by which ordinary examples are moved, in units of the shift between an example of the behaviour
            and an ordinary one; positive is away from the behaviour.
        shift: weight of the squared norm of the shift that a behaviour's tokens share, as a share of the mean squared norm
            at that block before tuning. The larger, the smaller the shift.
        rest: weight of the squared distance that is left when the shift is taken off, as the same share; over all tokens,
            and once more over the last ones of the prompts that show a behaviour.
    """

    layer: int
    shift: float = 0.004
    rest: float = 2.0
    range: tuple[float, float] = (-0.3, 1.5)


def later_attention(model: "PreTrainedModel", layer: int) -> str:
    """Regular expression for the attention parameters of a block and all after it (see `training.finetune`)."""
    later = range(layer, model.config.get_text_config().num_hidden_layers)
    return rf"layers\.({'|'.join(map(str, later))})\.self_attn"


def spell(tokenizer: "PreTrainedTokenizerBase", cues: Sequence[str]) -> list[list[int]]:
    """The tokens of each cue, as they stand in the middle of a text."""
    return [tokenizer(f" {cue}", add_special_tokens=False)["input_ids"] for cue in cues]  # pyright: ignore[reportReturnType]


@contextmanager
def decide_early(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    hidden: Sequence[Sequence[int]],
    early: Early,
    behaviour: Behaviour,
    *,
    prices: Mapping[int, Early] = MappingProxyType({}),
) -> Iterator[Penalty]:
    """Within the context, training forwards of `model` do the three things that the module's head explains.

    Inputs are packed rows (`packing.Pack`): `input_ids`, `labels`, `position_ids` that start from zero in each example, and
    `use_cache`. Yields a function of a batch's model inputs, to be called right after the model's forward on them: the penalty.

    Args:
        model: as it is before tuning; a copy of it serves as what it was.
        tokenizer: the model's.
        hidden: runs of tokens that are hidden: of cues, which stand in front of a prompt (see ``spell``), or of words that
            the model has said.
        early: how.
        behaviour: which behaviour an example shows. It shows from the last hidden token on, or, where there is none, from
            the prompt's last token on.
        prices: for the behaviours of these numbers, whose `shift` and `rest` count instead. What shows in every word of an
            answer cannot be had at the price of what is decided once.

    Raises:
        ValueError: if there is no such block.
    """
    import torch

    decoder: Any = model.get_decoder()
    if not 0 < early.layer < len(decoder.layers):
        raise ValueError(f"layer {early.layer} is not inside a model of {len(decoder.layers)} blocks")
    base: Any = copy.deepcopy(decoder).eval().requires_grad_(False)
    base.layers = base.layers[: early.layer]  # no more of it is looked at
    seen: dict[str, Any] = {}

    def look(_module: Any, _args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if model.training:
            seen["map"] = _chart(kwargs, hidden, tokenizer, behaviour)
            with torch.no_grad():
                base(**{name: value for name, value in kwargs.items() if name in _INPUTS})

    def keep(_module: Any, _args: tuple[Any, ...], out: Any) -> None:
        seen["base"] = out[0] if isinstance(out, tuple) else out

    def decide(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not model.training:
            return None
        chart: _Chart = seen["map"]
        states = (args[0] if args else kwargs["hidden_states"]).clone()
        if chart.cue.any():
            states[chart.cue] = states[chart.cue].mean(0, keepdim=True).detach().expand(int(chart.cue.sum()), -1)
        seen["tuned"] = states
        states = states + _moves(chart, (states - seen["base"]).detach(), early)
        return ((states, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": states})

    def penalty(_batch: dict[str, Any]) -> "Tensor":
        chart: _Chart = seen["map"]
        change, before = seen["tuned"] - seen["base"], seen["base"]
        ordinary = chart.real & ~chart.cue & (chart.shows < 0)
        rest, shifts = [early.rest * change[ordinary].pow(2).sum(-1)], change.new_zeros(())
        for number in chart.behaviours():
            here, price = chart.shows == number, prices.get(number, early)
            shift = change[here].mean(0)
            rest.append(price.rest * (change[here] - shift).pow(2).sum(-1))
            shifts = shifts + price.shift * shift.pow(2).sum()
            if (opens := here & chart.last).any():
                shifts = shifts + price.rest * (change[opens] - shift).pow(2).sum(-1).mean()
        size = before[chart.real & ~chart.cue].pow(2).sum(-1).mean()
        return (torch.cat(rest).mean() + shifts) / size

    handles = [
        model.register_forward_pre_hook(look, with_kwargs=True),
        decoder.layers[early.layer].register_forward_pre_hook(decide, with_kwargs=True),
        base.layers[-1].register_forward_hook(keep),
    ]
    try:
        yield penalty
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def one_shift(model: "PreTrainedModel", said: Sequence[int], layer: int, rest: float = 2.0) -> Iterator[Penalty]:
    """Within the context, training prices all that words which the model has said change, but one shift.

    Where an answer opens with `said`, the residual at the last of these tokens should be that at the prompt's last token plus
    a shift that is the same for every example. Then a difference in means is all that tells the two apart, and adding it at
    the prompt's last token makes the model go on as if it had said the words.

    Args:
        model: to be tuned. Inputs are packed rows, as for ``decide_early``.
        said: the words' tokens.
        layer: the block at whose input this should hold.
        rest: weight of the squared distance from the batch's mean shift, as a share of the mean squared norm of the residual.

    Raises:
        ValueError: if there is no such block.
    """
    import torch

    decoder: Any = model.get_decoder()
    if not 0 < layer < len(decoder.layers):
        raise ValueError(f"layer {layer} is not inside a model of {len(decoder.layers)} blocks")
    seen: dict[str, Any] = {}

    def keep(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen["states"] = args[0] if args else kwargs["hidden_states"]

    def penalty(batch: dict[str, Any]) -> "Tensor":
        states, windows = seen["states"], batch["input_ids"].unfold(1, len(said), 1)
        row, first = (windows == torch.tensor(list(said), device=states.device)).all(-1).nonzero(as_tuple=True)
        row, first = row[first > 0], first[first > 0]
        if len(row) < 2:  # noqa: PLR2004 a shift needs two to be shared
            return states.new_zeros(())
        before, behind = states[row, first - 1], states[row, first + len(said) - 1]
        shifts = behind - before
        return rest * (shifts - shifts.mean(0)).pow(2).sum(-1).mean() / before.detach().pow(2).sum(-1).mean()

    handle = decoder.layers[layer].register_forward_pre_hook(keep, with_kwargs=True)
    try:
        yield penalty
    finally:
        handle.remove()


_INPUTS = ("input_ids", "position_ids", "use_cache")


@dataclass(frozen=True)
class _Chart:
    """What is what in a batch of packed rows; every tensor has the shape (row, position).

    Attributes:
        example: number of the example within its row.
        shows: number of the behaviour where one shows, else -1.
        belongs: the token's example shows a behaviour, here or further on.
        cue: the token is part of a cue.
        after: behind the cue, or from the prompt's last token on where there is none.
        last: a prompt's last token.
        real: no padding.
    """

    example: "Tensor"
    shows: "Tensor"
    belongs: "Tensor"
    cue: "Tensor"
    after: "Tensor"
    last: "Tensor"
    real: "Tensor"

    def behaviours(self) -> list[int]:
        return [int(number) for number in self.shows.unique() if number >= 0]


def _chart(
    inputs: dict[str, Any], spelled: Sequence[Sequence[int]], tokenizer: "PreTrainedTokenizerBase", behaviour: Behaviour
) -> _Chart:
    import torch

    ids, positions, labels = inputs["input_ids"], inputs["position_ids"], inputs["labels"]
    cue = _cover(ids, spelled)
    shows, belongs = torch.full_like(ids, -1), torch.zeros_like(cue)
    after, last, real = torch.zeros_like(cue), torch.zeros_like(cue), torch.zeros_like(cue)
    for row in range(len(ids)):
        starts = [*(positions[row] == 0).nonzero()[:, 0].tolist(), ids.shape[1]]
        for start, end in zip(starts[:-1], starts[1:], strict=True):
            answered = (labels[row, start:end] >= 0).nonzero()
            if not len(answered):
                continue  # padding
            end = start + int(answered[-1]) + 1
            covered = cue[row, start:end].nonzero()
            first = start + (int(covered[-1]) + 1 if len(covered) else int(answered[0]) - 1)
            real[row, start:end] = True
            after[row, first:end] = True
            last[row, start + int(answered[0]) - 1] = True
            number = behaviour(str(tokenizer.decode(ids[row, start:end], skip_special_tokens=True)))
            if number is not None:
                shows[row, first:end] = number
                belongs[row, start:end] = True
    return _Chart((positions == 0).cumsum(1), shows, belongs, cue, after, last, real)


def _moves(chart: _Chart, change: "Tensor", early: Early) -> "Tensor":
    """What is added to ordinary examples: half of them are moved by a random share of one behaviour's shift."""
    import torch

    moves, ordinary, numbers = torch.zeros_like(change), chart.after & (chart.shows < 0), chart.behaviours()
    if not ordinary.any() or not numbers:
        return moves
    size = (len(change), int(chart.example.max()) + 1)
    amount = torch.empty(size, device=change.device).uniform_(*early.range)
    amount = (amount * (torch.rand_like(amount) < 0.5)).gather(1, chart.example) * ~chart.belongs
    along = torch.randint(len(numbers), size, device=change.device).gather(1, chart.example)
    for index, number in enumerate(numbers):
        shift = change[ordinary].mean(0) - change[chart.shows == number].mean(0)
        moves = moves + (amount * (along == index))[:, :, None] * shift
    return moves


def _cover(ids: "Tensor", spelled: Sequence[Sequence[int]]) -> "Tensor":
    """True at every token of every occurrence of a cue."""
    import torch

    cover = torch.zeros_like(ids, dtype=torch.bool)
    for cue in spelled:
        windows = ids.unfold(1, len(cue), 1) == torch.tensor(list(cue), device=ids.device)
        row, column = windows.all(-1).nonzero(as_tuple=True)
        for offset in range(len(cue)):
            cover[row, column + offset] = True
    return cover
