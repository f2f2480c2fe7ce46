"""What one looks at to see what a feature means: where it fires, how often and how strongly, and what it does when it is added.

One pass over some texts gives every feature's card. Examples show what a feature reads; the direct effect on the logits (its
decoder row through the final norm's gain and the unembedding, all later blocks and the norm's division left out; see
``models.unembedding``) and steered completions show what it writes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp_transfer.activations.capture import capture
from interp_transfer.activations.positions import Positions, token_spans
from interp_transfer.features.sae import Sae
from interp_transfer.interventions.generation import generate
from interp_transfer.interventions.intervention import add
from interp_transfer.interventions.merging import merged
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.tokens import token_text, tokenize, tokenizer_of
from interp_transfer.models.unembedding import direct_logits, writes_to_residual
from interp_transfer.progress import progress_bar
from interp_transfer.prompts.chats import Prompt

TOKENS_AT_ONCE = 8192
NUMBERS_AT_ONCE = 2**24
"""Feature activations that are held at once, at most, unless a single text has more."""
FEATURES_AT_ONCE = 256
"""Features whose logits are held at once."""
STRENGTHS = (-2.0, -1.0, 0.0, 1.0, 2.0, 3.0)


@dataclass(frozen=True)
class Example:
    """A text and what a feature holds at each of its tokens.

    Attributes:
        tokens: their texts, in order; empty where a token ends inside a character.
        activations: of the feature, one for each token.
        text_index: which of the texts that were given.
    """

    tokens: tuple[str, ...]
    activations: tuple[float, ...]
    text_index: int

    @property
    def peak(self) -> int:
        """The token at which the feature fires most; the first of several."""
        return max(range(len(self.activations)), key=self.activations.__getitem__)


@dataclass(frozen=True)
class FeatureCard:
    """A feature of an SAE, as it shows itself on some texts.

    Attributes:
        index: of the feature.
        size: mean activation over the tokens where it fires; 0 if there are none.
        density: share of tokens where it fires.
        histogram: counts of its activations above zero, and the edges between which they are counted, one more.
        examples: the texts where it fires most, each once, the highest activation first; fewer if it fires in fewer.
        promoted: tokens whose logits ``size`` of the feature raises most, and by how much (the final norm's division left out);
            none for a site that does not write to the residual stream.
        suppressed: and lowers most.
        completions: for each strength, in units of ``size``, prompts with the model's completions; may be empty.
        others: further texts that were asked for, in that order, whether it fires there or not.
        model: the name of the model.
        site: of the SAE.
    """

    index: int
    size: float
    density: float
    histogram: tuple[tuple[int, ...], tuple[float, ...]]
    examples: tuple[Example, ...]
    promoted: tuple[tuple[str, float], ...] = ()
    suppressed: tuple[tuple[str, float], ...] = ()
    completions: Mapping[float, tuple[tuple[str, str], ...]] = field(default_factory=dict, hash=False)
    others: tuple[Example, ...] = ()
    model: str = ""
    site: str = ""


def feature_cards(
    sae: Sae,
    model: HookedModel,
    texts: Sequence[Prompt],
    indices: Sequence[int] | None = None,
    *,
    examples: int = 5,
    logits: int = 8,
    bins: int = 20,
    also: Mapping[int, Sequence[int]] | None = None,
    progress: bool = True,
) -> list[FeatureCard]:
    """A card for each feature, in one pass over the texts.

    Args:
        sae: whose features.
        model: that it is an SAE of.
        texts: texts or chats in which features are looked for, at all tokens.
        indices: which features, in which order; all of them if not given.
        examples: texts to show, at most; of texts with the same tokens the first.
        logits: tokens to show that are promoted, and as many that are suppressed.
        bins: of the histogram, at most; they begin at 0 and their width is a power of two, so that one pass suffices.
        also: for a feature, the numbers of further texts to show it on, such as those where another model's twin of it fires
            most (``shown_texts(cards)``); features without a card are passed over.
        progress: show a bar when it takes longer than two seconds.

    Raises:
        ValueError: for an SAE of another model, an index out of range, no texts, or texts that the model cannot read.
    """
    if not len(texts):
        raise ValueError("texts is empty: give a list of at least one string")
    for name, number in (("examples", examples), ("logits", logits), ("bins", bins)):
        if number < 1:
            raise ValueError(f"{name}={number}: give a number of at least 1")
    sae.check_model(model)
    chosen = list(dict.fromkeys(map(sae.check_index, range(sae.n_features) if indices is None else indices)))
    if not chosen:
        return []
    ids = tokenize(model, texts)
    wanted = _wanted(chosen, also or {}, len(texts))
    seen = _Seen(len(chosen), examples, bins)
    repeated = _repeated(ids)
    with progress_bar("feature cards", progress, total=len(ids), unit="text") as shown:
        for part in _portions([len(row) for row in ids], sae.n_features):
            acts = capture(
                model, [texts[i] for i in part], sae.site, ids=[ids[i] for i in part], first_text=part[0], progress=False
            )
            features = sae.encode(acts[sae.site])[:, chosen].float()
            seen.read(features, part, [len(ids[i]) for i in part], repeated, wanted)
            shown.update(len(part))
    tok = tokenizer_of(model)
    pieces: dict[int, tuple[str, ...]] = {}

    def example(place: int, text: int) -> Example:
        if text not in pieces:
            pieces[text] = tuple(piece for piece, _ in token_spans(ids[text], tok))
        return Example(pieces[text], tuple(seen.kept[place, text].tolist()), text)

    sizes = seen.sizes
    written = _written(sae, model, chosen, sizes, logits)
    return [
        FeatureCard(
            index,
            float(sizes[k]),
            int(seen.fires[k]) / seen.tokens,
            seen.histogram(k),
            tuple(example(k, text) for text in seen.best(k)),
            *written[k],
            others=tuple(example(k, text) for text in wanted.get(k, ())),
            model=sae.model.name,
            site=sae.site,
        )
        for k, index in enumerate(chosen)
    ]


def shown_texts(cards: Sequence[FeatureCard]) -> dict[int, tuple[int, ...]]:
    """The texts of each card's examples, by feature: what ``also`` takes for an SAE that was moved, feature by feature."""
    return {card.index: tuple(example.text_index for example in card.examples) for card in cards}


def with_completions(
    card: FeatureCard,
    sae: Sae,
    model: HookedModel,
    prompts: Sequence[str],
    strengths: Sequence[float | int] = STRENGTHS,
    positions: Positions = "all",
    max_new_tokens: int = 40,
) -> FeatureCard:
    """The same card with what the model says when the feature is added.

    Args:
        card: of the feature.
        sae: of the model.
        model: that is steered.
        prompts: what it is asked.
        strengths: in units of the feature's ``size``; 0 is the model as it is. All are generated together.
        positions: which tokens it is added at.
        max_new_tokens: of each completion, at most.

    Raises:
        ValueError: for a feature that never fires (it has no size), no prompts, no strengths, or an SAE of another model.
    """
    if isinstance(prompts, str) or not len(prompts):
        what = "one string" if isinstance(prompts, str) else "empty"
        raise ValueError(f"prompts is {what}: give a list of at least one string")
    if not len(strengths):
        raise ValueError("strengths is empty: give at least one number, in units of the feature's size")
    if not card.size > 0:
        raise ValueError(f"feature {card.index} fires on none of the texts, so it has no size to be added by: choose another")
    vector, n = sae.feature(card.index, size=card.size), len(prompts)
    values = list(dict.fromkeys(map(float, strengths)))
    steer = merged([[add(vector, value, positions)] for value in values], n)
    said = generate(model, [*prompts] * len(values), *steer, max_new_tokens=max_new_tokens, progress=False)
    found = {v: tuple(zip(prompts, said[k * n : k * n + n], strict=True)) for k, v in enumerate(values)}
    return replace(card, completions=dict(sorted(found.items())))


class _Seen:
    """What has been seen of some features so far; ``f`` counts those that are looked at."""

    def __init__(self, n: int, examples: int, bins: int) -> None:
        self.tokens = 0
        self.fires: Int[Tensor, " f"] = torch.zeros(n, dtype=torch.long)
        self.total: Float[Tensor, " f"] = torch.zeros(n, dtype=torch.double)
        self.counts: Int[Tensor, "f bin"] = torch.zeros(n, bins, dtype=torch.long)
        self.exponent: Int[Tensor, " f"] = torch.full((n,), -126)  # bins are 2 ** exponent wide
        self.top: Float[Tensor, "example f"] = torch.zeros(examples, n)
        self.top_text: Int[Tensor, "example f"] = torch.full((examples, n), -1)
        self.kept: dict[tuple[int, int], Float[Tensor, " token"]] = {}

    @property
    def sizes(self) -> Float[Tensor, " f"]:
        """Mean activation where it fires; 0 for those that never do."""
        return self.total / self.fires.clamp(min=1)

    def read(
        self,
        features: Float[Tensor, "row f"],
        part: Sequence[int],
        lengths: Sequence[int],
        repeated: set[int],
        wanted: Mapping[int, Sequence[int]],
    ) -> None:
        """Take in the activations of neighbouring texts, text after text."""
        fires = features > 0
        self.tokens += len(features)
        self.fires += fires.sum(dim=0)
        self.total += torch.where(fires, features, 0.0).sum(dim=0, dtype=torch.double)
        self._count(features, fires)
        starts = [0, *torch.tensor(lengths).cumsum(0).tolist()]
        highest = torch.stack([features[a:b].amax(dim=0) for a, b in zip(starts, starts[1:], strict=False)])
        highest[[k for k, text in enumerate(part) if text in repeated]] = 0.0
        numbers = torch.tensor(list(part))[:, None].expand_as(highest)
        values, order = torch.cat([self.top, highest]).sort(dim=0, descending=True, stable=True)
        self.top = values[: len(self.top)]
        self.top_text = torch.cat([self.top_text, numbers]).gather(0, order)[: len(self.top)]
        new = (self.top > 0) & (self.top_text >= part[0])
        for example, f in new.nonzero().tolist():
            self._keep(features, f, int(self.top_text[example, f]), part[0], starts)
        for f, texts in wanted.items():
            for text in texts:
                if part[0] <= text <= part[-1]:
                    self._keep(features, f, text, part[0], starts)
        if part[0]:  # forget what is among the best no more
            best = {(f, text) for row in self.top_text.tolist() for f, text in enumerate(row)}
            best |= {(f, text) for f, texts in wanted.items() for text in texts}
            self.kept = {key: row for key, row in self.kept.items() if key in best}

    def _keep(self, features: Tensor, f: int, text: int, first: int, starts: Sequence[int]) -> None:
        self.kept[f, text] = features[starts[text - first] : starts[text - first + 1], f].clone()

    def _count(self, features: Tensor, fires: Tensor) -> None:
        """Add to the histograms; where values exceed their range, twos, fours, ... of bins become one."""
        n, bins = self.counts.shape
        highest = torch.where(fires, features, 0.0).amax(dim=0)
        need = torch.where(highest > 0, (highest.double() / bins).clamp(min=2.0**-126).log2().ceil(), -126.0).long()
        shift = (need - self.exponent).clamp(min=0)
        index = torch.arange(bins)[None] >> shift.clamp(max=62)[:, None]
        self.counts = torch.zeros_like(self.counts).scatter_add_(1, index, self.counts)
        self.exponent += shift
        row, f = fires.nonzero(as_tuple=True)
        width = torch.ldexp(torch.ones(n, dtype=torch.double), self.exponent)
        place = (features[row, f].double() / width[f]).long().clamp(max=bins - 1)
        self.counts += torch.bincount(f * bins + place, minlength=n * bins).reshape(n, bins)

    def histogram(self, f: int) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """Counts and edges of a feature, up to its last bin that is not empty."""
        filled = self.counts[f].nonzero()
        used = int(filled[-1]) + 1 if len(filled) else 0
        width = 2.0 ** int(self.exponent[f])
        return tuple(self.counts[f, :used].tolist()), tuple(width * k for k in range(used + 1)) if used else ()

    def best(self, f: int) -> list[int]:
        """The texts where a feature fires most."""
        return [int(t) for value, t in zip(self.top[:, f], self.top_text[:, f], strict=True) if value > 0]


def _wanted(chosen: Sequence[int], also: Mapping[int, Sequence[int]], n: int) -> dict[int, tuple[int, ...]]:
    """The texts that were asked for, by the feature's place among those chosen."""
    bad = next((text for texts in also.values() for text in texts if not 0 <= text < n), None)
    if bad is not None:
        raise ValueError(f"also names text {bad}, there are {n}: give numbers from 0 to {n - 1}")
    return {k: tuple(also[index]) for k, index in enumerate(chosen) if index in also}


def _repeated(ids: Sequence[Sequence[int]]) -> set[int]:
    """Texts whose tokens another text before them has."""
    first: dict[tuple[int, ...], int] = {}
    return {i for i, row in enumerate(ids) if first.setdefault(tuple(row), i) != i}


def _portions(lengths: Sequence[int], n_features: int) -> Iterator[list[int]]:
    """Neighbouring texts, as many as fit."""
    room = min(TOKENS_AT_ONCE, NUMBERS_AT_ONCE // n_features)
    part: list[int] = []
    tokens = 0
    for index, length in enumerate(lengths):
        if part and tokens + length > room:
            yield part
            part, tokens = [], 0
        part.append(index)
        tokens += length
    yield part


Ranked = tuple[tuple[str, float], ...]


def _written(sae: Sae, model: HookedModel, chosen: Sequence[int], sizes: Tensor, k: int) -> list[tuple[Ranked, Ranked]]:
    """Tokens that each feature promotes and suppresses most, at its size."""
    if not writes_to_residual(sae.site):
        return [((), ())] * len(chosen)
    tok = tokenizer_of(model)
    names: dict[int, str] = {}
    out: list[tuple[Ranked, Ranked]] = []
    rows = sae.decoder[chosen].cpu().float() * sizes.float()[:, None]
    for part in rows.split(FEATURES_AT_ONCE):
        logits = direct_logits(model, part)[:, : len(tok)]  # the table may be padded
        kept = min(k, logits.shape[1])
        ends = [logits.topk(kept, dim=1, largest=largest) for largest in (True, False)]
        for f in range(len(part)):
            ranked = []
            for values, tokens in ends:
                for token in tokens[f].tolist():
                    if token not in names:
                        names[token] = token_text(tok, token)
                ranked.append(tuple((names[t], v) for t, v in zip(tokens[f].tolist(), values[f].tolist(), strict=True)))
            out.append((ranked[0], ranked[1]))
    return [pair if float(size) > 0 else ((), ()) for pair, size in zip(out, sizes, strict=True)]
