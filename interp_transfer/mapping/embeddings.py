"""What two models' embeddings say about each other: rows for the tokens that both vocabularies hold.

Lee et al. (COLM 2025, arXiv:2503.21073) move steering vectors by a linear map that is fitted on unembeddings alone: no text is
read. It asks that both models write the same tokens along related directions, and that those directions mean in the middle of
the models what they mean at the ends.
"""

from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from interp_transfer.mapping.moments import Block
from interp_transfer.models.hooked_model import HookedModel, huggingface_model
from interp_transfer.models.tokens import tokenizer_fingerprint, tokenizer_of

TABLES = ("unembedding", "embedding")
MIN_TOKENS = 10
"""Shared ones that a map is fitted on, at least: some of them are held out to choose its ridge."""

_UNFINISHED = "\ufffd"


def embedding_rows(source: HookedModel, target: HookedModel, table: str = TABLES[0]) -> Block:
    """Both models' rows for each token that they share, in the order of the source's vocabulary, in float32.

    Args:
        source: the one model.
        target: the other.
        table: one of ``TABLES``: "unembedding" (what a token's logit is read off by; the paper's choice) or "embedding".

    Raises:
        ValueError: when the vocabularies share too little.
    """
    ids = shared_tokens(source, target)
    if len(ids[0]) < MIN_TOKENS:
        raise ValueError(f"the two vocabularies share {len(ids[0])} tokens, too few to compare embeddings: choose another kind")
    x, y = (_table(model, table)[chosen].float() for model, chosen in zip((source, target), ids, strict=True))
    return x, y


def shared_tokens(source: HookedModel, target: HookedModel) -> tuple[Int[Tensor, " token"], Int[Tensor, " token"]]:
    """Ids of the tokens that stand for the same text in both models; parts of characters and special tokens aside."""
    if tokenizer_fingerprint(source) == tokenizer_fingerprint(target):
        known = torch.tensor(sorted(_texts(source).values()))
        return known, known
    here, there = _texts(source), _texts(target)
    both = sorted((here[text], there[text]) for text in here.keys() & there.keys())
    ids = torch.tensor(both, dtype=torch.long).reshape(-1, 2)
    return ids[:, 0], ids[:, 1]


def _texts(model: HookedModel) -> dict[str, int]:
    """The text of each token, in the middle of a text; of several with one text the first."""
    tokenizer: Any = tokenizer_of(model)
    special = set(tokenizer.all_special_ids)
    rows = len(_table(model, "embedding"))  # the table may be shorter, or padded
    found: dict[str, int] = {}
    decoder = tokenizer.backend_tokenizer.decoder
    for piece, index in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]):
        if index in special or index >= rows:
            continue
        text = decoder.decode(["a", piece])[1:]  # alone, it would lose the space in front
        if text and _UNFINISHED not in text:
            found.setdefault(text, index)
    return found


def _table(model: HookedModel, table: str) -> Tensor:
    hf: Any = huggingface_model(model)
    if hf is not None:
        layer = hf.get_output_embeddings() if table == "unembedding" else hf.get_input_embeddings()
        return layer.weight.detach().cpu()
    wrapped: Any = model
    return (wrapped.W_U.T if table == "unembedding" else wrapped.W_E).detach().cpu()
