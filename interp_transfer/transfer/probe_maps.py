"""Mappers in both directions between two models, with their controls, for moving probes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from interp_transfer.activations.align import AlignmentReport
from interp_transfer.activations.capture import Activations, capture
from interp_transfer.activations.positions import Positions, describe
from interp_transfer.mapping.collect import collect
from interp_transfer.mapping.fit import fit
from interp_transfer.mapping.mappers import Mapper
from interp_transfer.mapping.pairs import PairedActivations
from interp_transfer.models.hooked_model import HookedModel

MAPPER = "affine"


@dataclass(frozen=True)
class Maps:
    """Mappers both ways between two models, and their controls, fitted on shuffled pairs."""

    there: Mapper
    back: Mapper
    shuffled_there: Mapper
    shuffled_back: Mapper


def fit_maps(
    source: HookedModel,
    target: HookedModel,
    texts: Sequence[str],
    sites: tuple[str, str],
    positions: Positions | None = None,
    *,
    kind: str = MAPPER,
    seed: int = 0,
) -> Maps:
    """Fit mappers from the source to the target and back, each also on shuffled pairs.

    A map of all tokens mainly fits what distinguishes most tokens, and may lose the little that a probe reads at one of them.
    For a probe that reads one token of each prompt, ``positions`` fits the map on that token alone.

    Args:
        source: model that the probe was fitted on.
        target: model that the probe is moved to.
        texts: texts that both read.
        sites: site of the source and of the target.
        positions: one token of each text, such as "last": the models' tokens there are paired, whatever their tokenizers. All
            tokens, paired by ``collect``, if None.
        kind: kind of all four mappers.
        seed: seed of the fits and of the shuffling.
    """
    if positions is not None:
        return fit_both(pairs_at(source, target, texts, sites, positions), kind=kind, seed=seed)
    there = collect(source, target, texts, *sites, progress=False)
    # Across tokenizers, tokens are paired for one direction only.
    same = there.alignment.strategy == "same_tokens"
    again = there.reversed() if same else collect(target, source, texts, sites[1], sites[0], progress=False)
    return _fit(there, again, kind, seed)


def fit_both(pairs: PairedActivations, *, kind: str = MAPPER, seed: int = 0) -> Maps:
    """Fit mappers as `fit_maps` does, on pairs whose tokens have read the same text, such as those of `pairs_at`."""
    return _fit(pairs, _swapped(pairs), kind, seed)


def _fit(there: PairedActivations, again: PairedActivations, kind: str, seed: int) -> Maps:
    parts = (there, again, there.shuffled(seed), again.shuffled(seed))
    return Maps(*(fit(pairs, kind, seed=seed, progress=False) for pairs in parts))


def pairs_at(
    source: HookedModel, target: HookedModel, texts: Sequence[str], sites: tuple[str, str], positions: Positions = "last"
) -> PairedActivations:
    r"""Pair one row of each text: both models' activations at the same place.

    Args:
        source: model that is mapped from.
        target: model that is mapped to.
        texts: texts that both read.
        sites: site of the source and of the target.
        positions: names one token of each text in either model, after which both have read the same text, such as "last"
            or the first token of ``substring("\nAssistant", 0)``.

    Raises:
        ValueError: for a text in which they name no token, or several.
    """
    left, right = (
        capture(model, texts, site, positions, progress=False) for model, site in zip((source, target), sites, strict=True)
    )
    for acts in (left, right):
        if acts.text_index.tolist() != list(range(len(texts))):
            raise ValueError(
                f"positions {describe(positions)!r} name {len(acts.text_index)} tokens of {len(texts)} texts in "
                f"{acts.model.name}: name one of each, such as 'last', or pair all tokens by collect"
            )
    return paired_rows(left, right, sites, positions)


def paired_rows(left: Activations, right: Activations, sites: tuple[str, str], positions: Positions) -> PairedActivations:
    """Pair what two models hold at one token of each of the same texts, as `pairs_at` does."""
    count = len(left.text_index)
    report = AlignmentReport(f"one token of each text: {describe(positions)}", count, count)
    rows = ({sites[0]: left[sites[0]]}, {sites[1]: right[sites[1]]})
    return PairedActivations(*rows, (sites,), right.text_index, right.token, left.model, right.model, report)


def _swapped(pairs: PairedActivations) -> PairedActivations:
    """The same pairs from the target to the source; both tokens of a pair have read the same text."""
    sites = tuple((there, here) for here, there in pairs.site_pairs)
    models = {"source_model": pairs.target_model, "target_model": pairs.source_model}
    return replace(pairs, source=pairs.target, target=pairs.source, site_pairs=sites, **models)
