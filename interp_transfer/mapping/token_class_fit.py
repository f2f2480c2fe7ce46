"""How well a mapper reproduces which tokens of some prompts: first, trigger, last, rest; rare and frequent ones."""

from collections.abc import Sequence

from interp_transfer.activations.capture import capture
from interp_transfer.activations.positions import substring
from interp_transfer.mapping.mappers import Mapper
from interp_transfer.mapping.token_classes import ClassFit, fit_by_class, frequency_classes, position_classes
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.tokens import tokenizer_fingerprint

ALL = "all"


def fits_by_place(
    mapper: Mapper, source: HookedModel, target: HookedModel, prompts: Sequence[str], trigger: str = ""
) -> dict[str, dict[str, ClassFit]]:
    """Fits over all tokens ("tokens"), by where they stand ("place"), and by how often they occur ("frequency").

    Args:
        mapper: between the two models.
        source: whose activations are mapped.
        target: whose activations they should be.
        prompts: that both read; none should be among what the mapper was fitted on.
        trigger: a text whose tokens are a class of their own, in those prompts that hold it.

    Raises:
        ValueError: for models of different tokenizers, whose tokens do not correspond one to one.
    """
    if tokenizer_fingerprint(source) != tokenizer_fingerprint(target):
        raise ValueError(
            "the two models cut texts differently, so no token of the one is that of the other: see the mapper's card"
        )
    here = capture(source, prompts, mapper.source.site, progress=False)
    there = capture(target, prompts, mapper.target.site, progress=False)
    truth, guess = there[mapper.target.site].float(), mapper(here[mapper.source.site].float())
    held = [index for index, prompt in enumerate(prompts) if trigger and trigger in prompt]
    inside = set()
    if held:
        found = capture(target, [prompts[index] for index in held], mapper.target.site, substring(trigger), progress=False)
        inside = {(held[t], p) for t, p in zip(found.text_index.tolist(), found.position.tolist(), strict=True)}
    labels = {
        "tokens": [ALL] * len(truth),
        "place": position_classes(there, inside),
        "frequency": frequency_classes(there.token),
    }
    return {by: fit_by_class(truth, guess, names, there.text_index) for by, names in labels.items()}
