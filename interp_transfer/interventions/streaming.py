"""Generate token by token: the text of each token is there before the next one is computed.

The tokens are those of ``generate``: transformers' own, called for a few tokens at a time with the KV cache of the last call.
Hooks are in the model, and the model is in use, during a call and not between two calls. So a consumer may take its time,
several streams of one model may take turns, and one that is left behind leaves nothing in the model.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp_transfer.activations.capture import pad, pad_token
from interp_transfer.interventions.generation import (
    Finite,
    check_interventions,
    check_room,
    default_generation_config,
    end_tokens,
    has_plain_cache,
)
from interp_transfer.interventions.hooks import TokensRead, attached, in_use, started
from interp_transfer.interventions.intervention import Intervention
from interp_transfer.interventions.prompt_cache import PromptCache
from interp_transfer.interventions.transforms import Running
from interp_transfer.models.bypass import bypassed
from interp_transfer.models.exclusive import exclusive
from interp_transfer.models.hooked_model import HookedModel, device_of, huggingface_model
from interp_transfer.models.tokens import UNFINISHED, tokenize, tokenizer_of
from interp_transfer.prompts.chats import PromptLike

PIECE_TOKENS = 64
"""Tokens that are decoded together before the text before them is taken as settled."""

CONTEXT_TOKENS = 16
"""Settled tokens that are decoded again before new ones, because some tokenizers write a token differently at the beginning."""


@dataclass
class Sampling:
    """How the tokens of one text are chosen: the most likely one, or drawn.

    Attributes:
        temperature: the logits are divided by it; 0 is greedy.
        top_p: the smallest set of most likely tokens that has this probability is drawn from.
        seed: of the draws, which do not depend on other texts in the batch.
    """

    temperature: float | int = 0.0
    top_p: float | int = 1.0
    seed: int = 0
    _generator: torch.Generator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Reject numbers that make no sense."""
        if not (0 <= self.temperature < float("inf") and 0 < self.top_p <= 1):
            raise ValueError(f"temperature={self.temperature}, top_p={self.top_p}: give 0 or more, and more than 0 to 1")
        self._generator = torch.Generator().manual_seed(self.seed)

    def scores(self, logits: Float[Tensor, " vocabulary"]) -> Float[Tensor, " vocabulary"]:
        """Return scores, in float32, of which the highest is the token that is chosen."""
        logits = logits.float()
        if not self.temperature:
            return logits
        likely = ((logits - logits.max()) / self.temperature).softmax(dim=-1)
        if self.top_p < 1:
            sorted_, order = likely.sort(descending=True)
            likely[order[sorted_.cumsum(dim=-1) - sorted_ >= self.top_p]] = 0.0
        # The highest of p / e, e drawn from the exponential distribution, is token i with probability p_i.
        drawn = torch.empty(likely.shape).exponential_(generator=self._generator)
        return likely / drawn.to(likely.device)


class TokenStream:
    """A batch that is generated token by token, see the module.

    Args:
        model: a bridge, as ``load_model`` makes it.
        ids: token ids of each prompt.
        interventions: applied in this order.
        sampling: for each prompt; greedy without it.
        rows: which text each prompt is, for transforms that read ``at.row``; 0, 1, ... by default.
        prompts: what is known of earlier prompts of the model; it is used for a single one.

    Attributes:
        rows: index in ``ids`` of each row that is still generated.

    Raises:
        ValueError: for a ``HookedTransformer``, and whatever ``applied`` refuses.
    """

    def __init__(
        self,
        model: HookedModel,
        ids: Sequence[Sequence[int]],
        interventions: Sequence[Intervention],
        sampling: Sequence[Sampling] | None = None,
        rows: Int[Tensor, " row"] | None = None,
        prompts: PromptCache | None = None,
    ) -> None:
        self._hf = huggingface_model(model)
        if self._hf is None:
            raise ValueError(f"a {type(model).__name__} cannot stream: load the model with wrapper='bridge', the default")
        check_interventions(model, interventions, [list(row) for row in ids])
        self._model, self._interventions = model, tuple(interventions)
        self._tokens, real = pad([list(row) for row in ids], pad_token(model), left=True)
        self._tokens = self._tokens.to(device_of(model))
        self._mask = real.long().to(self._tokens.device)
        self._read = TokensRead(tokenizer_of(model), real.sum(dim=1), torch.arange(len(ids)) if rows is None else rows)
        self._cache: Any = None
        self._prompts = prompts
        self._sampling = list(sampling or [])
        self.rows = list(range(len(ids)))
        self._open = ExitStack()
        self._steps = [self._open.enter_context(started(model, one)) for one in interventions]
        stateful = any(isinstance(one.transform, Running) for one in interventions)  # their state has an entry for every row
        self._can_drop = has_plain_cache(self._hf) and not stateful

    @torch.no_grad()
    def advance(self, give: Callable[[list[int]], bool], most: int = 1) -> None:
        """Generate up to ``most`` tokens of each row.

        Putting hooks into a large model takes as long as a token of a small one, so a consumer that is fast takes several.

        Args:
            give: receives the tokens of ``rows`` as soon as they are there, and returns whether to pause.
            most: the model is in use, with its hooks, until so many tokens are generated.
        """
        model, width = self._model, self._tokens.shape[1]

        def given(tokens: Tensor, _: Any) -> Bool[Tensor, " row"]:
            return torch.full((len(tokens),), give(tokens[:, -1].tolist()), device=tokens.device)

        with in_use(model, self._interventions), exclusive(model), default_generation_config(self._hf):
            known = None
            if self._cache is None and self._prompts is not None:
                known = self._prompts.get(self._tokens, self._interventions)
            with attached(model, self._steps, self._read), bypassed(model):
                if known is not None and self._prompts is not None:
                    self._cache = self._prompts.begin(known, self._tokens, self._interventions)
                out = self._hf.generate(
                    self._tokens,
                    attention_mask=self._mask,
                    past_key_values=self._cache,
                    max_new_tokens=most,
                    return_dict_in_generate=True,
                    logits_processor=[Finite(self.rows), *([self._chosen] if self._sampling else [])],
                    stopping_criteria=[given],
                    eos_token_id=None,
                    pad_token_id=pad_token(model),
                    do_sample=False,
                )
        self._tokens, self._cache = out.sequences, getattr(out, "past_key_values", None)
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(self._mask), self._tokens.shape[1] - width)], dim=1)

    def keep(self, rows: Sequence[int]) -> None:
        """Generate these of the ``rows`` alone from now on; a model whose cache cannot be cut goes on computing the others."""
        if list(rows) == self.rows or not self._can_drop or not rows or self._cache is None:
            return
        left = torch.tensor([self.rows.index(row) for row in rows])
        here = left.to(self._tokens.device)
        self._tokens, self._mask = self._tokens[here], self._mask[here]
        self._cache.batch_select_indices(left)  # layers of the cache may be on several devices; a CPU index suits them all
        self._read.keep(here)
        self.rows = list(rows)

    def close(self) -> None:
        """Let go of the cache and of transforms that keep a state."""
        self._open.close()
        self._cache = None

    def _chosen(self, _: Tensor, scores: Float[Tensor, "row vocabulary"]) -> Float[Tensor, "row vocabulary"]:
        return torch.stack([self._sampling[row].scores(logits) for row, logits in zip(self.rows, scores, strict=True)])


@dataclass
class TextPieces:
    """The text of tokens as they come; a character that several tokens make up is given whole.

    Attributes:
        tokenizer: decodes the tokens, special ones left out.
    """

    tokenizer: Any
    _ids: list[int] = field(default_factory=list)
    _given: str = ""

    def add(self, token: int) -> str:
        """Return the text that a token adds; empty while a character is incomplete."""
        self._ids.append(token)
        text = self._decoded()
        piece = self._piece(text.rstrip(UNFINISHED))
        if len(self._ids) > PIECE_TOKENS and self._given == text:
            self._ids = self._ids[-CONTEXT_TOKENS:]
            self._given = self._decoded()
        return piece

    def end(self) -> str:
        """Return the rest: characters that stayed incomplete."""
        return self._piece(self._decoded())

    def _decoded(self) -> str:
        return self.tokenizer.decode(self._ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def _piece(self, text: str) -> str:
        if not text.startswith(self._given):
            return ""  # a byte changed how those before it are read; the next bytes complete a character
        piece, self._given = text[len(self._given) :], text
        return piece


def stream(
    model: HookedModel,
    prompt: PromptLike,
    *interventions: Intervention,
    max_new_tokens: int = 40,
    temperature: float | int = 0.0,
    top_p: float | int = 1.0,
    seed: int = 0,
) -> Iterator[str]:
    """Yield the completion of one prompt under interventions piece by piece; the pieces together are that of ``generate``.

    Between two pieces the model is free and has no hooks. An iterator that is closed or dropped leaves nothing behind.

    Args:
        model: a bridge, as ``load_model`` makes it.
        prompt: a text or a chat, see ``models.tokens.tokenize``.
        interventions: applied in the order of the arguments.
        max_new_tokens: maximum number of generated tokens.
        temperature: of sampling; 0 is greedy.
        top_p: see `Sampling`.
        seed: of sampling.

    Raises:
        ValueError: at once, for what ``generate`` refuses, and a ``HookedTransformer``.
    """
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens={max_new_tokens}: generate at least one token")
    ids = tokenize(model, [prompt])
    check_room(model, ids, max_new_tokens)
    tokens = TokenStream(model, ids, interventions, [Sampling(temperature, top_p, seed)])
    return _pieces(tokens, TextPieces(tokenizer_of(model)), max_new_tokens, end_tokens(model))


def _pieces(tokens: TokenStream, text: TextPieces, new: int, ends: Sequence[int]) -> Iterator[str]:
    row: list[int] = []
    with closing(tokens):
        while len(row) < new and not (row and row[-1] in ends):
            tokens.advance(lambda token: bool(row.extend(token)))
            if piece := text.add(row[-1]):
                yield piece
        if rest := text.end():
            yield rest
