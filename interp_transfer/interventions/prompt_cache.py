"""Keep what the unsteered model computes for a prompt, for generation under one setting after another.

An intervention at block 16 changes nothing before it. So when the strength of a vector changes, the prompt is read again from
block 16 on, and its keys and values below are those of the unsteered model. Without an intervention nothing is read again.

The prompt is read in two steps, all but its last token and then the last one. In 16 bits this rounds otherwise than one pass,
so that a completion would not be that of ``generate``: models in other dtypes than float32 read their prompts anew.
"""

from collections import OrderedDict
from collections.abc import Sequence
from contextlib import ExitStack
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from interp_transfer.interventions.intervention import Intervention
from interp_transfer.interventions.read_ahead import first_block, has_plain_cache
from interp_transfer.interventions.transforms import Running
from interp_transfer.models.blocks import can_start, recording, same_from, starting_at
from interp_transfer.models.bypass import bypassed, has_no_hooks
from interp_transfer.models.hooked_model import HookedModel, huggingface_model

PROMPTS = 4
"""Number of prompts that are kept."""


@dataclass(frozen=True)
class ReadPrompt:
    """The unsteered model's pass over all but the last token of a prompt.

    Attributes:
        outputs: what each block returned, in order.
        cache: keys and values of all blocks; not changed by those that use it.
    """

    outputs: Sequence[Tensor]
    cache: Any

    def layers(self, n: int) -> list[Any]:
        """The keys and values of the first ``n`` blocks, in objects that may be added to."""
        return [copy(layer) for layer in self.cache.layers[:n]]  # adding tokens replaces a layer's tensors, not their content


@dataclass(eq=False)
class PromptCache:
    """The latest prompts of one model; the caller has the model for itself.

    Attributes:
        model: a bridge, as ``load_model`` makes it.
    """

    model: HookedModel
    _read: "OrderedDict[tuple[int, ...], ReadPrompt]" = field(default_factory=OrderedDict, repr=False)
    _exact: bool | None = None

    def get(self, tokens: Int[Tensor, "row column"], interventions: Sequence[Intervention]) -> ReadPrompt | None:
        """Return what is known of a prompt, read now if it is new; None where its blocks cannot be used again.

        Call it before hooks are added.
        """
        hf = huggingface_model(self.model)
        if len(tokens) != 1 or tokens.shape[1] < 2 or hf.dtype != torch.float32 or self._exact is False:
            return None
        if any(isinstance(one.transform, Running) for one in interventions):
            return None
        if interventions and not first_block(self.model, [interventions]):
            return None
        if not (can_start(self.model) and has_no_hooks(self.model) and has_plain_cache(hf)):
            return None
        key = tuple(tokens[0].tolist())
        if key not in self._read:
            self._read[key] = self._pass(tokens)
            while len(self._read) > PROMPTS:
                self._read.popitem(last=False)
        self._read.move_to_end(key)
        if self._exact is None:
            self._exact = self._is_exact(tokens, self._read[key])
        return self._read[key] if self._exact else None

    def begin(self, read: ReadPrompt, tokens: Int[Tensor, "row column"], interventions: Sequence[Intervention]) -> Any:
        """Return the KV cache of all but the last token under interventions, whose hooks are in the model."""
        hf, cache = huggingface_model(self.model), copy(read.cache)
        if not interventions:
            cache.layers = read.layers(len(read.cache.layers))
            return cache
        first = first_block(self.model, [interventions])
        with starting_at(self.model, first, read.outputs[first - 1]):
            cache = hf(tokens[:, :-1], use_cache=True, logits_to_keep=1).past_key_values
        cache.layers[:first] = read.layers(first)
        return cache

    def _pass(self, tokens: Tensor) -> ReadPrompt:
        with bypassed(self.model), ExitStack() as stack:
            blocks = range(1, int(self.model.cfg.n_layers) + 1)
            outputs = [stack.enter_context(recording(self.model, block)) for block in blocks]
            cache = huggingface_model(self.model)(tokens[:, :-1], use_cache=True, logits_to_keep=1).past_key_values
        return ReadPrompt([each[0] for each in outputs], cache)

    def _is_exact(self, tokens: Tensor, read: ReadPrompt) -> bool:
        """Whether passes may start at a block, tried at the middle one."""
        if not all(isinstance(output, Tensor) for output in read.outputs):
            return False
        hf, half = huggingface_model(self.model), max(1, len(read.outputs) // 2)

        def logits() -> Tensor:
            return hf(tokens[:, :-1], logits_to_keep=1).logits

        with bypassed(self.model):
            return same_from(self.model, half, read.outputs[half - 1], logits(), logits)
