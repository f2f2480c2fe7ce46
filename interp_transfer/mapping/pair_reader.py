"""Read texts with two models and pair their activations, token by token."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from interp_transfer.activations.align import EXAMPLES, SAME_TOKENS, AlignmentReport, align_spans, same_tokens
from interp_transfer.activations.capture import Activations, capture
from interp_transfer.activations.spans import spans_of
from interp_transfer.activations.store.manifest import Column
from interp_transfer.mapping.stored import FORMAT, SOURCE, TARGET
from interp_transfer.mapping.texts import Text, portions
from interp_transfer.mapping.truncation import Readable, check_too_long, readable, suggest_truncation
from interp_transfer.models.chat_templates import template_fingerprint
from interp_transfer.models.hooked_model import HookedModel, context_length
from interp_transfer.models.identity import ModelIdentity, identity
from interp_transfer.models.sites import check_site
from interp_transfer.models.tokens import tokenize, tokenizer_fingerprint, tokenizer_of

ROWS_PER_PORTION = 1 << 17
BYTES_PER_PORTION = 1 << 29
"""Approximate size of a portion: whichever of the two is less."""

CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True)
class PairReader:
    """Two models, and what is read from them.

    Attributes:
        source: the model that interventions come from.
        target: the model that they are moved to.
        sites: pairs of a source site and a target site.
        strategy: how tokens are paired if the tokenizers differ.
        too_long: treatment of texts that exceed a context, see ``truncation``.
    """

    source: HookedModel
    target: HookedModel
    sites: tuple[tuple[str, str], ...]
    strategy: str
    too_long: str

    def __post_init__(self) -> None:
        for source_site, target_site in self.sites:
            check_site(self.source, source_site)
            check_site(self.target, target_site)
        check_too_long(self.too_long, conversations=False)

    @cached_property
    def tokenizers(self) -> list[str]:
        """Fingerprints of the tokenizers; computing them takes a while for large vocabularies."""
        return [tokenizer_fingerprint(model) for model in (self.source, self.target)]

    @property
    def same_tokenizer(self) -> bool:
        """Whether both models split texts into the same tokens."""
        return self.tokenizers[0] == self.tokenizers[1]

    @cached_property
    def templates(self) -> list[str]:
        """Fingerprints of the chat templates."""
        return [template_fingerprint(tokenizer_of(model)) for model in (self.source, self.target)]

    def pairing(self, chats: bool) -> str:
        """Return how the tokens of texts, or of chats, are paired."""
        same = self.same_tokenizer and not (chats and self.templates[0] != self.templates[1])
        return SAME_TOKENS if same else self.strategy

    def first(self, texts: Iterator[Text]) -> list[Text]:
        """Take the first few texts, and more until one of them can be read by both models.

        Raises:
            ValueError: for no texts, or none that can be read.
        """
        last = taken = list(islice(texts, EXAMPLES))
        if not taken:
            raise ValueError("no texts to collect from: give a list of the texts that both models should read")
        check_too_long(self.too_long, conversations=not isinstance(taken[0], str))
        while not self._readable(last, len(taken) - len(last)).texts:
            last = list(islice(texts, EXAMPLES))
            if not last:
                raise ValueError(f"all {len(taken)} texts are longer than the models' contexts: cut or split them")
            taken = [*taken, *last]
        return taken

    def meta(self, conversations: bool, known: Mapping[str, Any] | None) -> dict[str, Any]:
        """Describe what is read, as a store keeps it.

        Args:
            conversations: whether the texts are conversations.
            known: the description in an existing store. A model that is stored there under another name keeps that name.
        """
        models = {"source": self.source, "target": self.target}
        return {
            "holds": FORMAT,
            **{side: asdict(_named(identity(model), (known or {}).get(side))) for side, model in models.items()},
            "tokenizers": self.tokenizers,
            "sites": [list(pair) for pair in self.sites],
            "strategy": self.pairing(conversations),
            "too_long": self.too_long,
            "reads": {"chat templates": self.templates} if conversations else "plain texts",
        }

    def rows_per_portion(self, columns: Mapping[str, Column]) -> int:
        """Return the approximate number of rows that are read at a time."""
        numbers = sum(column.width or 1 for column in columns.values())
        return max(1, min(ROWS_PER_PORTION, BYTES_PER_PORTION // (4 * numbers)))

    @suggest_truncation()
    def check(self, texts: Iterable[Text], first_text: int) -> None:
        """Refuse texts that either model cannot read, before any is read."""
        for portion in portions(texts, ROWS_PER_PORTION * CHARACTERS_PER_TOKEN):
            models = [self.source, self.target]
            if self._same_tokens(portion):  # so the shorter context decides
                models = [min(models, key=context_length)]
            for model in models:
                tokenize(model, portion, first_text=first_text, any_length=self.too_long != "refuse")
            first_text += len(portion)

    @suggest_truncation()
    def read(
        self, texts: Sequence[Text], first_text: int, progress: bool = False
    ) -> tuple[dict[str, Tensor] | None, AlignmentReport]:
        """Return the paired rows of some texts by column, and how their tokens were paired.

        The rows are None if all texts are dropped. ``text_index`` counts from ``first_text``, the number of the first text.
        """
        kept = self._readable(texts, first_text)
        same = self._same_tokens(texts)
        if not kept.texts:
            chats = not isinstance(texts[0], str)
            return None, AlignmentReport(self.pairing(chats), 0, 0, texts_dropped=kept.dropped)
        options: dict[str, Any] = {"first_text": first_text, "allow_bad": True, "progress": progress}
        if same:  # tokenize once, for the shorter context
            options["ids"] = tokenize(min(self.source, self.target, key=context_length), kept.texts, first_text=first_text)
        left = capture(self.source, kept.texts, list(dict.fromkeys(s for s, _ in self.sites)), **options)
        right = capture(self.target, kept.texts, list(dict.fromkeys(t for _, t in self.sites)), **options)
        if same:
            alignment = same_tokens(len(right.token))
        else:
            theirs, own = (spans_of(tokenizer_of(model), kept.texts) for model in (self.source, self.target))
            alignment = align_spans(theirs, own, self.strategy)
            for acts, side in ((left, theirs), (right, own)):
                _check_tokens(acts, torch.from_numpy(np.concatenate([one.ids for one in side])))
        block = {
            **{SOURCE + site: alignment.gather(rows) for site, rows in left.items()},
            **{TARGET + site: rows[alignment.target] for site, rows in right.items()},
            "text_index": torch.tensor(kept.numbers)[right.text_index[alignment.target] - first_text],
            "target_token": right.token[alignment.target],
        }
        return block, replace(alignment.report, texts_cut=kept.cut, texts_dropped=kept.dropped)

    def _readable(self, texts: Sequence[Text], first_text: int) -> Readable:
        return readable((self.source, self.target), texts, self.too_long, first_text)

    def _same_tokens(self, texts: Sequence[Text]) -> bool:
        return self.pairing(chats=not isinstance(texts[0], str)) == SAME_TOKENS


def _named(model: ModelIdentity, known: Any) -> ModelIdentity:
    """The same model, under the name that a store has for it."""
    same = isinstance(known, dict) and known.get("fingerprint") == model.fingerprint
    return replace(model, name=known["name"]) if same else model


def _check_tokens(acts: Activations, expected: Int[Tensor, " row"]) -> None:
    if not torch.equal(acts.token, expected.to(acts.token)):
        raise ValueError(
            f"{acts.model.name} reads other tokens than its tokenizer's offsets: its tokenizer was changed after loading; load "
            "the model again"
        )
