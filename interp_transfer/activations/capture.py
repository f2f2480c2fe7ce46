"""Run texts through a model and read activations at any sites.

One pass reads all requested sites and stops as soon as the deepest has been read, so a site in the middle of a model costs half
a forward pass. Texts are sorted by length into batches with little padding, and rows are returned in the order of the texts.
Padding is on the right, whatever the tokenizer's setting: a causal model's real tokens cannot see it.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp_transfer.activations.finite import all_finite
from interp_transfer.activations.positions import Layout, Positions, check_positions, select
from interp_transfer.models.bypass import bypassed, has_no_hooks
from interp_transfer.models.exclusive import exclusive
from interp_transfer.models.hooked_model import HookedModel, device_of, huggingface_model
from interp_transfer.models.identity import ModelIdentity, identity
from interp_transfer.models.sites import hook_points, hooked
from interp_transfer.models.tokens import tokenize, tokenizer_of
from interp_transfer.progress import progress_bar
from interp_transfer.prompts.chats import PromptLike

TOKENS_PER_BATCH = 8192
FULL_BATCH = 1024
"""Number of tokens beyond which a larger batch is hardly faster."""


@dataclass(frozen=True, repr=False)
class Activations(Mapping[str, Tensor]):
    """Activations of selected tokens, one row each, ordered by text and position.

    ``acts[site]`` is ``Float[Tensor, "row d_model"]``; sites with heads have them flattened into the last axis.

    Attributes:
        sites: activations by site.
        text_index: number of each row's text.
        position: index of the row's token in its text, counted in real tokens from 0.
        token: the row's token id.
        model: identity of the model that was read.
    """

    sites: dict[str, Float[Tensor, "row _"]]
    text_index: Int[Tensor, " row"]
    position: Int[Tensor, " row"]
    token: Int[Tensor, " row"]
    model: ModelIdentity = field(default_factory=lambda: ModelIdentity("unknown", ""))

    def __getitem__(self, site: str) -> Float[Tensor, "row _"]:
        if site not in self.sites:
            raise KeyError(f"{site!r} was not captured; these were: {', '.join(self.sites)}")
        return self.sites[site]

    def __iter__(self) -> Iterator[str]:
        return iter(self.sites)

    def __len__(self) -> int:
        return len(self.sites)

    def __repr__(self) -> str:
        shapes = ", ".join(f"{site} {tuple(rows.shape)}" for site, rows in self.sites.items())
        return f"Activations of {self.model.name}: {shapes}, {int(self.text_index.unique().numel())} texts"


def capture(
    model: HookedModel,
    texts: Sequence[PromptLike],
    sites: str | Sequence[str],
    positions: Positions = "all",
    *,
    batch_tokens: int = TOKENS_PER_BATCH,
    first_text: int = 0,
    allow_bad: bool = False,
    ids: Sequence[list[int]] | None = None,
    progress: bool = True,
) -> Activations:
    """Return the activations of ``texts`` at ``sites``.

    Args:
        model: any hooked model.
        texts: texts or chats, see ``models.tokens.tokenize``.
        sites: hook-point names, in any order; ``blocks.*.hook_resid_pre`` stands for every block.
        positions: which tokens; each text counts as a prompt, so "last" is its last token.
        batch_tokens: tokens in a batch, including padding; a batch is halved when memory runs out.
        first_text: number of the first text in ``text_index`` and in errors, for texts that are read in portions.
        allow_bad: return rows that hold NaN or infinity instead of refusing them.
        ids: the texts' token ids from ``tokenize``, if they are known already.
        progress: show a bar when it takes longer than two seconds.

    Returns:
        Rows on the CPU, in the model's dtype.

    Raises:
        ValueError: for unknown sites, texts beyond the context, positions that a text lacks, NaN in the activations.
    """
    points = hook_points(model, sites)
    check_positions(positions)
    if positions in ("generated", "response"):
        raise ValueError(f"positions={positions!r}: captured texts hold no generated tokens; use 'all', 'last' or an index")
    ids = tokenize(model, texts, first_text=first_text) if ids is None else ids
    if len(ids) != len(texts):
        raise ValueError(f"token ids of {len(ids)} texts for {len(texts)} texts: give those of every text")
    chosen = [_rows_of(i, row, positions, tokenizer_of(model)) for i, row in enumerate(ids, first_text)]
    offsets = torch.tensor([0] + [len(c) for c in chosen]).cumsum(0)
    out: dict[str, Tensor] = {}
    with progress_bar("capture", progress, total=len(ids), unit="text") as bar:
        for batch in by_length([len(row) for row in ids], batch_tokens):
            for part, read in _read_within_memory(model, batch, ids, points):
                _store(out, read, part, chosen, offsets)
                bar.update(len(part))
    if not allow_bad:
        _check_finite(out, offsets, first_text)
    if not out:
        out = {name: torch.empty(0, int(model.cfg.d_model)) for name in points}
    index = first_text + torch.repeat_interleave(torch.arange(len(ids)), offsets.diff())
    position = torch.cat(chosen) if chosen else torch.empty(0, dtype=torch.long)
    token = torch.tensor([row[p] for row, c in zip(ids, chosen, strict=True) for p in c.tolist()], dtype=torch.long)
    return Activations({name: out[name] for name in points}, index, position, token, identity(model))


class _Enough(Exception):
    """Raised by the last hook to end the forward pass early."""


@contextmanager
def reading(points: Mapping[str, Any], into: dict[str, Tensor], stop: bool = False) -> Iterator[None]:
    """Add hooks that store activations in a dictionary, and remove them afterwards.

    Args:
        points: hook points by site.
        into: filled with detached tensors.
        stop: end the forward pass, by an exception that is caught here, once every site has been read.
    """

    def make(site: str) -> Any:
        def hook(tensor: Tensor, hook: Any) -> None:  # noqa: ARG001 - transformer-lens passes it by name
            into[site] = tensor.detach()
            if stop and len(into) == len(points):
                raise _Enough

        return hook

    with ExitStack() as stack:
        for site, point in points.items():
            stack.enter_context(hooked(point, make(site)))
        with suppress(_Enough):
            yield


def token_rows(site: str, read: Mapping[str, Tensor], tokens: Int[Tensor, "text column"]) -> Float[Tensor, "text column _"]:
    """Return what ``reading`` read at a site in a pass over ``tokens``: a row for each token, heads in the last axis.

    Raises:
        ValueError: for a site that never fired, or has no row for each token.
    """
    if site not in read:
        raise ValueError(f"hook {site!r} never fired: this model does not compute it (a use_... switch may be off)")
    tensor = read[site]
    if tensor.shape[:1] == (1,):  # position embeddings have one row for the whole batch
        tensor = tensor.expand(len(tokens), *tensor.shape[1:])
    if tensor.ndim < 3 or tensor.shape[:2] != tokens.shape:
        raise ValueError(f"{site!r} has shape {tuple(tensor.shape)}, not (text, token, ...): it has no row for each token")
    return tensor.flatten(2)


def forward(model: HookedModel, tokens: Int[Tensor, "row column"], real: Tensor | None = None, **kwargs: Any) -> Any:
    """Return the logits, bypassing a bridge's own ``forward`` and the wrappers that have no hook."""
    hf = huggingface_model(model)
    with exclusive(model), bypassed(model):
        if hf is not None:
            return hf(input_ids=tokens, attention_mask=real, use_cache=False, **kwargs).logits
        return model(tokens, attention_mask=real)


def logits_of(model: HookedModel, rows: Sequence[Sequence[int]]) -> tuple[Float[Tensor, "text column vocabulary"], Tensor]:
    """Return the logits after each token of some texts, padded on the right, and which columns are real."""
    tokens, real = (each.to(device_of(model)) for each in pad(rows, pad_token(model)))
    return forward(model, tokens, real if huggingface_model(model) is None else real.long()), real


def pad(rows: Sequence[Sequence[int]], fill: int, left: bool = False) -> tuple[Tensor, Tensor]:
    """Return token ids as one tensor, and which of its columns are real."""
    longest = max(len(row) for row in rows)
    lengths = torch.tensor([len(row) for row in rows])
    columns = torch.arange(longest)
    real = columns >= (longest - lengths)[:, None] if left else columns < lengths[:, None]
    tokens = torch.full((len(rows), longest), fill, dtype=torch.long)
    tokens[real] = torch.tensor([token for row in rows for token in row], dtype=torch.long)
    return tokens, real


def pad_token(model: HookedModel) -> int:
    """Return a token id to pad with: any, if the tokenizer has none, because padding is masked or never read."""
    pad_id = tokenizer_of(model).pad_token_id
    return 0 if pad_id is None else int(pad_id)


def out_of_memory(error: BaseException) -> bool:
    """Return whether an exception means that memory ran out, on a GPU or on the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and ("out of memory" in str(error) or "can't allocate memory" in str(error))


def _rows_of(index: int, ids: list[int], positions: Positions, tok: Any) -> Int[Tensor, " row"]:
    if isinstance(positions, str) and positions in ("all", "prompt"):
        return torch.arange(len(ids))
    tokens = torch.tensor([ids])
    length = torch.tensor([len(ids)])
    layout = Layout(tokens, torch.ones_like(tokens, dtype=torch.bool), length, torch.tensor([index]), tok)
    columns = select(positions, layout)[0].nonzero()[:, 0]
    if not len(columns):
        raise ValueError(f"text {index} has no token at positions {positions}: check the text or the positions")
    return columns


def by_length(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Return batches of indices of texts of similar length, each of at most ``budget`` tokens including padding.

    A batch of ``FULL_BATCH`` tokens takes no text that would need a quarter of padding.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        # Sorted from long to short: the first text of a batch is its width, and memory runs out early or never.
        widest = lengths[batches[-1][0]] if batches else 0
        tokens = widest * len(batches[-1]) if batches else 0
        alike = tokens < FULL_BATCH or lengths[index] > 0.75 * widest
        if batches and alike and tokens + widest <= budget:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def _read_within_memory(
    model: HookedModel, batch: list[int], ids: Sequence[list[int]], points: dict[str, Any]
) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
    try:
        read = _read(model, [ids[i] for i in batch], points)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error) or len(batch) == 1:
            raise
        half = len(batch) // 2
        yield from _read_within_memory(model, batch[:half], ids, points)
        yield from _read_within_memory(model, batch[half:], ids, points)
        return
    yield batch, read


@torch.no_grad()
def _read(model: HookedModel, rows: list[list[int]], points: dict[str, Any]) -> dict[str, Tensor]:
    read: dict[str, Tensor] = {}
    tokens, real = pad(rows, pad_token(model))
    device = device_of(model)
    # Padding on the right needs no mask in a bridge, unless there are interventions, which recognise padding by the mask.
    masked = (
        None if has_no_hooks(model) else real.long().to(device) if huggingface_model(model) is not None else real.to(device)
    )
    with exclusive(model), reading(points, read, stop=True):
        forward(model, tokens.to(device), masked)
    return {site: token_rows(site, read, tokens) for site in points}


def _store(out: dict[str, Tensor], read: dict[str, Tensor], part: list[int], chosen: list[Tensor], offsets: Tensor) -> None:
    row = torch.cat([torch.full_like(chosen[i], k) for k, i in enumerate(part)])
    column = torch.cat([chosen[i] for i in part])
    where = torch.cat([torch.arange(int(offsets[i]), int(offsets[i + 1])) for i in part])
    for site, tensor in read.items():
        index = (row * tensor.shape[1] + column).to(tensor.device)
        rows = tensor.flatten(0, 1).index_select(0, index).cpu()
        if site not in out:
            out[site] = torch.empty(int(offsets[-1]), rows.shape[1], dtype=rows.dtype)
        out[site].index_copy_(0, where, rows)


def _check_finite(out: dict[str, Tensor], offsets: Tensor, first_text: int) -> None:
    for site, rows in out.items():
        if all_finite(rows):
            continue
        bad = ~torch.isfinite(rows).all(dim=1)
        if bad.any():
            text = int(torch.searchsorted(offsets, bad.nonzero()[0, 0], right=True)) - 1 + first_text
            raise ValueError(
                f"{int(bad.sum())} of {len(rows)} rows at {site!r} hold NaN or infinity, the first in text {text}: "
                "load the model with dtype='float32', or leave such texts out"
            )
