"""Maps between pretrained models, on text of another data set than the one that they were fitted on.

Mappers are fitted on harmless instructions of Arditi et al. (Alpaca); what they never saw are the prompts of XSTest.
"""

import warnings
from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool
from torch import Tensor

from interp_transfer.activations.capture import Activations
from interp_transfer.evaluation.replacement import ABLATED, ALL, MAPPED, validate_replacement
from interp_transfer.interventions.follow import follow
from interp_transfer.mapping.collect import collect
from interp_transfer.mapping.fit import MASSIVE, fit
from interp_transfer.mapping.mappers import Mapper
from interp_transfer.mapping.pairs import PairedActivations
from interp_transfer.mapping.token_classes import fit_by_class, frequency_classes, position_classes
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.load import load_model
from interp_transfer.paper.charts import Chart, Dots, number
from interp_transfer.paper.given import instructions, xstest
from interp_transfer.paper.rows import Row, RowsByCase, Verdict, grade, value_of
from interp_transfer.paper.setup import Setup, unexplained

KINDS = ("affine", "procrustes")
SHUFFLED = "affine, shuffled pairs"
TEXTS, TOKENS = 1000, 16
NUMBERS = (1_000, 3_000, 10_000, 30_000, 100_000)
"""Numbers of pairs, besides all of them."""
GOAL = 0.8
"""Share of the KL between mean ablation and the target itself that the best map within a family should recover."""
FAMILY, DECIDE = "Qwen", 2
"""The family, and the number of its pairs that decide together."""


def measure(
    setup: Setup, source: str, target: str, sites: Sequence[Sequence[str]], texts: int = TEXTS, dtype: str = "bfloat16"
) -> list[Row]:
    """Measure a row for each kind of map, its control, and pair of sites; then for classes of tokens, and numbers of pairs.

    The layer is replaced by mapped activations only at the pair of sites that leaves least unexplained of held-out texts of the
    first data set. Classes and numbers are those of the affine map at these sites.

    Args:
        setup: the data and n.
        source: model that is mapped from.
        target: model that is mapped to.
        sites: pairs of a site of the source and one of the target.
        texts: number of texts that maps are fitted on, with a tenth of them held out.
        dtype: that both models are loaded in.
    """
    a, b = (load_model(name, dtype=dtype) for name in (source, target))
    pairs = [(site, other) for site, other in sites]
    read = setup.draw(instructions(setup.data, "harmless_train"), "texts", texts)
    prompts = setup.draw(list(dict.fromkeys(one.prompt for one in xstest(setup.data))), "prompts")
    ends = [site for site, _ in pairs], [other for _, other in pairs]
    fitted_on, unseen = (collect(a, b, some, *ends, progress=False) for some in (read, prompts))
    plain = {pair: _ordinary(unseen, pair) for pair in pairs}
    rows: list[Row] = []
    leaves_least: dict[str, tuple[tuple[str, str], Mapper]] = {}
    for kind in (*KINDS, SHUFFLED):
        seen = fitted_on.shuffled(setup.seed) if kind == SHUFFLED else fitted_on
        name = KINDS[0] if kind == SHUFFLED else kind
        maps = {pair: fit(seen, name, sites=pair, models=(a, b), seed=setup.seed, progress=False) for pair in pairs}
        best = min(maps, key=lambda pair: maps[pair].card.fvu)
        for pair, mapper in maps.items():
            found: Row = _replaced(a, b, pair, mapper, prompts) if pair == best else dict.fromkeys(REPLACED)
            row = {"map": kind, "sites": " to ".join(pair), "tokens": mapper.card.rows, "FVU": mapper.card.fvu}
            rows.append({**row, "FVU, other data": unexplained(mapper, plain[pair], pair), **found})
        leaves_least[kind] = best, maps[best]
    chosen, whole = leaves_least[KINDS[0]]
    few = plain[chosen]
    return [*rows, *_by_class(whole, unseen, few, chosen), *_by_number(fitted_on, few, chosen, setup.seed)]


def _by_class(mapper: Mapper, every: PairedActivations, ordinary: PairedActivations, sites: tuple[str, str]) -> list[Row]:
    """A row for each place of a token in its prompt, over every row, and each quarter of ordinary rows by frequency."""
    place = Activations({}, every.text_index, torch.arange(len(every)), every.target_token)
    rows: list[Row] = []
    for pairs, labels in ((every, position_classes(place)), (ordinary, frequency_classes(ordinary.target_token))):
        _, x, y = pairs.rows(sites)
        for name, found in fit_by_class(y[:].float(), mapper(x[:].float()), labels, pairs.text_index).items():
            row = {"map": KINDS[0], "sites": " to ".join(sites), "class of tokens": name, "rows": found.n}
            rows.append(
                {**row, "FVU, other data": found.fvu, "cosine": found.cosine, "share of the error": found.share_of_error}
            )
    return rows


def _by_number(seen: PairedActivations, unseen: PairedActivations, sites: tuple[str, str], seed: int) -> list[Row]:
    """A row for each number of pairs, of the first texts."""
    rows: list[Row] = []
    for count in (*(one for one in NUMBERS if one < len(seen)), len(seen)):
        few = int(seen.text_index[count - 1]) + 1
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*the map is uncertain")  # that pairs are few is what is measured
            mapper = fit(_some(seen, seen.text_index < few), KINDS[0], sites=sites, seed=seed, progress=False)
        row = {"map": KINDS[0], "sites": " to ".join(sites), "tokens": mapper.card.rows}
        rows.append({**row, "FVU": mapper.card.fvu, "FVU, other data": unexplained(mapper, unseen, sites)})
    return rows


def _ordinary(pairs: PairedActivations, sites: tuple[str, str]) -> PairedActivations:
    """The pairs without a massive row, which `fit` leaves out as well: they would hold nearly all of the variance."""
    _, *sides = pairs.rows(sites)
    lengths = [side[:].float().norm(dim=1) for side in sides]
    short = [length <= MASSIVE * length.median() for length in lengths]
    return _some(pairs, short[0] & short[1])


def _some(pairs: PairedActivations, keep: Bool[Tensor, " row"]) -> PairedActivations:
    source, target = ({site: rows[keep] for site, rows in side.items()} for side in (pairs.source, pairs.target))
    index, token = pairs.text_index[keep], pairs.target_token[keep]
    return replace(pairs, source=source, target=target, text_index=index, target_token=token)


REPLACED = ("KL recovered", "KL", "KL, ablated", "agreement", "agreement, ablated", "MvA", "MvA by KL", "TvS")


def _replaced(a: HookedModel, b: HookedModel, pair: tuple[str, str], mapper: Mapper, prompts: Sequence[str]) -> Row:
    """What the target keeps where the layer holds nothing but mapped activations, on prompts of the other data set."""
    put = follow(a, *pair, mapper)
    figures = validate_replacement(a, b, put, prompts, max_new_tokens=TOKENS, progress=False).slices[ALL]
    mapped, ablated = figures[MAPPED], figures[ABLATED]
    kl, most = mapped.means["kl"], ablated.means["kl"]
    values = (1 - kl.value / most.value, kl, most, mapped.means["agreement"], ablated.means["agreement"])
    shares = (mapped.mva["rouge1"].share, mapped.mva["kl"].share, mapped.tvs["rouge1"].share)
    return dict(zip(REPLACED, (*values, *shares), strict=True))


def chart(rows_by_case: RowsByCase) -> Chart:
    """Share of the KL that each kind of map recovers on the other data set."""
    found = {
        case: {str(row["map"]): number(row, "KL recovered") for row in rows if row.get("KL recovered") is not None}
        for case, rows in rows_by_case.items()
    }
    return Dots("KL recovered on the other data set", found)


def verdict(rows_by_case: RowsByCase) -> Verdict:
    """Whether the map that leaves least unexplained recovers enough of the KL within the family, on data that it never saw."""
    details, best = [], {}
    for case, rows in rows_by_case.items():
        run = {str(row["map"]): row for row in rows if row.get("KL recovered") is not None}
        chosen = min(KINDS, key=lambda name: value_of(run[name], "FVU"))
        best[case] = value_of(run[chosen], "KL recovered")
        said = ", ".join(f"{value_of(row, 'KL recovered'):.3f} {name}" for name, row in run.items())
        left = value_of(run[chosen], "KL") / value_of(run[SHUFFLED], "KL")
        details.append(f"{case}: KL recovered {said}; {left:.2f} of the KL of shuffled pairs are left by the {chosen} map")
    within = {case: value for case, value in best.items() if case.count(FAMILY) > 1}
    good = sum(value >= GOAL for value in within.values())
    sentence = f"The map of least FVU recovers at least {GOAL:g} of the KL in {good} of {len(within)} pairs within {FAMILY}"
    if len(within) < DECIDE:
        return Verdict("cannot tell", f"{sentence}; {DECIDE} decide.", tuple(details))
    return Verdict(grade(good, len(within)), f"{sentence}.", tuple(details))
