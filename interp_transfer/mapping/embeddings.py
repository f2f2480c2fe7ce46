"""Pair the unembeddings of two models: a row for each token that is in both vocabularies.

Lee et al. (COLM 2025, arXiv:2503.21073) move steering vectors by a linear map that is fitted on unembeddings only; no text is
read. It assumes that both models write the same tokens along related directions, and that these directions have the same
meaning in the middle of the models as at their ends.
"""

from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from interp_transfer.mapping.moments import Block
from interp_transfer.models.hooked_model import HookedModel, huggingface_model
from interp_transfer.models.tokens import tokenizer_fingerprint, tokenizer_of

MIN_TOKENS = 10
"""Minimum number of shared tokens for a map; some of them are held out to choose its ridge."""

_UNFINISHED = "\ufffd"


def embedding_rows(source: HookedModel, target: HookedModel) -> Block:
    """Return both models' unembeddings of each token that they share, in the order of the source's vocabulary, in float32.

    Args:
        source: the source model.
        target: the target model.

    Raises:
        ValueError: if the vocabularies share too few tokens.
    """
    ids = shared_tokens(source, target)
    if len(ids[0]) < MIN_TOKENS:
        raise ValueError(f"the two vocabularies share {len(ids[0])} tokens, too few to compare: choose another kind")
    x, y = (_unembeddings(model)[chosen].float() for model, chosen in zip((source, target), ids, strict=True))
    return x, y


def shared_tokens(source: HookedModel, target: HookedModel) -> tuple[Int[Tensor, " token"], Int[Tensor, " token"]]:
    """Return ids of the tokens with the same text in both models, without parts of characters and special tokens."""
    if tokenizer_fingerprint(source) == tokenizer_fingerprint(target):
        known = torch.tensor(sorted(_texts(source).values()))
        return known, known
    here, there = _texts(source), _texts(target)
    both = sorted((here[text], there[text]) for text in here.keys() & there.keys())
    ids = torch.tensor(both, dtype=torch.long).reshape(-1, 2)
    return ids[:, 0], ids[:, 1]


def _texts(model: HookedModel) -> dict[str, int]:
    """Id of each token's text, as it is inside a text; the first id if several tokens have the same text."""
    tokenizer: Any = tokenizer_of(model)
    special = set(tokenizer.all_special_ids)
    rows = len(_unembeddings(model))  # the table may be shorter, or padded
    ids: dict[str, int] = {}
    decoder = tokenizer.backend_tokenizer.decoder
    for piece, index in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]):
        if index in special or index >= rows:
            continue
        text = decoder.decode(["a", piece])[1:]  # decoded alone, it would lose its leading space
        if text and _UNFINISHED not in text:
            ids.setdefault(text, index)
    return ids


def _unembeddings(model: HookedModel) -> Tensor:
    hf: Any = huggingface_model(model)
    wrapped: Any = model
    return (wrapped.W_U.T if hf is None else hf.get_output_embeddings().weight).detach().cpu()
