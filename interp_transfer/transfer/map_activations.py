"""Map the activations of one model to another's, token by token.

Each token of the target gets the mapped activation of its partner in the source; tokens are paired as they were when the mapper
was fitted. The result has the form of activations that were captured from the target, so it can be patched in
(``interventions.patching``), spliced in, or compared with the target's own. `follow` does the same for a text that is still
being generated.
"""

from collections.abc import Sequence

import torch

from interp_transfer.activations.align import DEFAULT_STRATEGY, SAME_TOKENS, align_spans, same_tokens
from interp_transfer.activations.capture import Activations, capture
from interp_transfer.activations.spans import spans_of
from interp_transfer.mapping.mappers import Mapper
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.identity import identity
from interp_transfer.models.sites import split_sites
from interp_transfer.models.tokens import tokenize, tokenizer_fingerprint, tokenizer_of
from interp_transfer.prompts.chats import PromptLike
from interp_transfer.vectors.vector import check_same


@torch.no_grad()
def mapped_activations(
    mapper: Mapper | Sequence[Mapper],
    source: HookedModel,
    target: HookedModel,
    texts: Sequence[PromptLike],
    *,
    progress: bool = True,
) -> Activations:
    """Return the source's activations, mapped to the target's space, for each target token that has a partner.

    Args:
        mapper: mapper from the source to the target, or several to different sites of the target.
        source: model whose activations are read.
        target: model whose tokens the rows belong to; it is not run.
        texts: texts or chats that both models read.
        progress: show a bar when it takes longer than two seconds.

    Returns:
        Rows by target site, ``Float[Tensor, "row d_target"]`` in float32 on the CPU, with text, position and id of the target's
        token. Tokens without a partner have no row, such as a BOS that the source's tokenizer does not add.

    Raises:
        ValueError: for mappers of other models, two mappers to one site, mappers that were fitted on differently paired tokens,
            or texts that one of the models cannot read.
    """
    mappers = [mapper] if isinstance(mapper, Mapper) else list(mapper)
    strategy = _checked(mappers, source, target)
    ids, theirs = tokenize(source, texts), tokenize(target, texts)
    if ids == theirs and tokenizer_fingerprint(source) == tokenizer_fingerprint(target):
        pairs = same_tokens(sum(map(len, theirs)))
    else:
        left, right = (spans_of(tokenizer_of(model), texts) for model in (source, target))
        for model, read, side in ((source, ids, left), (target, theirs, right)):
            if read != [one.ids.tolist() for one in side]:
                raise ValueError(
                    f"{identity(model).name} reads other tokens than its tokenizer's offsets: its tokenizer was changed "
                    "after loading; load the model again"
                )
        pairs = align_spans(left, right, strategy)
    sites = dict.fromkeys(site for one in mappers for site in split_sites(one.source.site))
    acts = capture(source, texts, list(sites), ids=ids, progress=progress)
    mapped = {}
    for one in mappers:
        rows = torch.cat([pairs.gather(acts[site]) for site in split_sites(one.source.site)], dim=1)
        mapped[one.target.site] = one(rows.to(one.shift_in.device)).float().cpu()
    lengths = torch.tensor([len(row) for row in theirs])
    text = torch.repeat_interleave(torch.arange(len(theirs)), lengths)[pairs.target]
    position = pairs.target - (lengths.cumsum(0) - lengths)[text]
    token = torch.tensor([token for row in theirs for token in row])[pairs.target]
    return Activations(mapped, text, position, token, identity(target))


def _checked(mappers: Sequence[Mapper], source: HookedModel, target: HookedModel) -> str:
    """Check the mappers, and return the strategy by which tokens are paired."""
    if not mappers:
        raise ValueError("no mapper given: fit one with fit(collect(source, target, texts, ...))")
    for one in mappers:
        for space, model, what in ((one.source, source, "source"), (one.target, target, "target")):
            check_same(space.model, identity(model), f"the mapper's {what} and the {what} that is given are")
    sites = [one.target.site for one in mappers]
    if len(set(sites)) < len(sites):
        raise ValueError(f"mappers to {sites}: give one mapper for each site of the target")
    ways = {one.card.alignment for one in mappers} - {SAME_TOKENS}
    if len(ways) > 1:
        raise ValueError(
            f"the mappers were fitted on tokens paired by {' and '.join(sorted(ways))}, so they have no rows in common: fit "
            "them with one strategy, or map with one at a time"
        )
    return ways.pop() if ways else DEFAULT_STRATEGY
