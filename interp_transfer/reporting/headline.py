"""The outcome of a run in one sentence that does not flatter, and the numbers that it rests on.

A moved vector is judged by its gain: its intact answers, less those that the unsteered model gives. It is compared with the
native vector, which is the best that can be expected, and with controls that know nothing of the behaviour. Two outcomes are
reported before anything else: a control that does as well as the native vector (the task is too easy to conclude anything), and
a native vector that fails (there is nothing to compare with). Where intervals overlap and gains are apart, the headline says
that it cannot tell.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from interp_transfer.plots.style import percent
from interp_transfer.reporting.formats import interval, points

AS_GOOD = 0.8
"""A control with at least this share of a vector's gain counts as good as it, whatever the intervals are."""
MIGHT_WORK = 0.5
"""A vector whose interval ends below this share does not work, unless it is told from the controls."""
ABOUT_EQUAL = (0.95, 0.9)
"""Shares of native's gain in success and in intact answers from which a moved vector works about as well."""
_MEASURES = ("success", "intact")

LOST = 0.1
"""Share of an ability that the moved vector may cost before the headline reports it."""
ABILITIES: Mapping[str, str] = {
    "clean": "clean prompts answered validly",
    "questions": "other questions answered validly",
    "refuses harmful": "harmful requests refused",
    "helps with harmless": "harmless requests helped with",
    "sings when asked": "songs sung when asked for",
}
"""Abilities of a model other than the task, by name in ``side_effects``."""

CONTROLS: Mapping[str, str] = {
    "random": "a random vector at the same cost",
    "random_in_span": "a random vector in the span of the activations",
    "wrong_contrast": "a vector of a contrast that shows no behaviour",
    "mean_ablated": "replacing the site's activation by its mean",
    "forced_first_token": "giving the first token of the right answer, without steering,",
}
MAPPER_CONTROLS: Mapping[str, str] = {
    "shuffled": "a mapper that was fitted on pairs shuffled across texts",
    "untrained": "a mapper that was not trained",
}
_IN_NUMBERS: Mapping[str, str] = {
    "unsteered": "without steering",
    "system_prompt": "with a system prompt that asks for it in place of a vector",
    "random": "with random vectors at the same cost",
    "random_in_span": "with random vectors in the span of the activations",
    "wrong_contrast": "with the strongest vector of a contrast that shows no behaviour",
    "shuffled": "through the strongest of the mappers fitted on shuffled pairs",
    "shuffled_within_text": "through the strongest fitted on pairs shuffled within texts",
    "untrained": "through the strongest untrained mapper",
    "mean_ablated": "with the site's mean in place of its activation",
    "forced_first_token": "with no steering but the first token of the right answer given",
}


@dataclass(frozen=True)
class Headline:
    """A verdict in one sentence, a few sentences with the numbers that it rests on, and what speaks against it."""

    verdict: str
    numbers: tuple[str, ...]
    caveats: tuple[str, ...] = ()


def headline(result: Mapping[str, Any]) -> str:
    """The outcome in plain words, with intervals, number of prompts and baselines.

    Args:
        result: the content of `result.json`.
    """
    summary = summarise(result)
    return " ".join((summary.verdict, *summary.numbers, *summary.caveats))


def summarise(result: Mapping[str, Any]) -> Headline:
    """The headline in its parts."""
    conditions = result["conditions"]
    target = result["target"]["name"]
    if not {"unsteered", "native", "moved"} <= conditions.keys():
        return Headline(f"{len(conditions)} conditions compared on {target}.", (_plain_numbers(conditions),))
    numbers = _numbers(conditions, result.get("moved_against_native"))
    caveats = (*_texts_are_enough(conditions), *_lost(result.get("side_effects", {})))
    return Headline(_verdict(result, conditions), numbers, caveats)


def abilities(effects: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Shares of prompts on which a model does what it should, for clean prompts and each skill, by name in words."""
    shares = {"clean": effects["clean_valid"], **effects["skills"]}
    return {ABILITIES.get(name, name): share for name, share in shares.items()}


def _lost(effects: Mapping[str, Any]) -> Iterator[str]:
    """A sentence on abilities of which the moved vector costs more than ``LOST``."""
    if not {"unsteered", "moved"} <= effects.keys():
        return
    before, after = (abilities(effects[name]) for name in ("unsteered", "moved"))
    native = abilities(effects["native"]) if "native" in effects else {}
    parts = []
    for what in (what for what in before if what in after and before[what]["rate"] - after[what]["rate"] > LOST):
        of_native = f", native {percent(native[what]['rate'])}" if what in native else ""
        rates = f"{percent(before[what]['rate'])} without it, {percent(after[what]['rate'])} with it{of_native}"
        parts.append(f"{what} {rates} (n = {after[what]['n']})")
    if parts:
        yield f"But the moved vector costs other abilities: {'; '.join(parts)}."


def _verdict(result: Mapping[str, Any], conditions: Mapping[str, Any]) -> str:
    source = result.get("source", {}).get("name", "the source model")
    target = result["target"]["name"]
    unsteered, native, moved = (conditions[name] for name in ("unsteered", "native", "moved"))
    controls = {name: conditions[name] for name in CONTROLS if name in conditions}
    relation = _relation(native, moved, unsteered)
    beaten_by = [n for n, c in {"unsteered": unsteered, **controls}.items() if _as_good(c, moved, unsteered)]

    if _as_good(unsteered, native, unsteered):
        if unsteered["intact"]["rate"] >= 0.5:
            return f"No verdict: {target} gives the wanted answers without any steering, so there is nothing to mend here."
        why = "does not work there"
        if native["success"]["low"] > unsteered["success"]["high"]:
            why = "gets its effect there only by breaking the answers"
        if not beaten_by:
            return f"A vector found on {source} works on {target}, although the vector found on {target} itself {why}."
        return f"No verdict on the move: the vector found on {target} itself {why}."
    easy = [name for name, c in controls.items() if _as_good(c, native, unsteered)]
    if easy:
        also = "the moved vector does not work" if "unsteered" in beaten_by else f"the moved vector works {relation} it"
        return f"This run says little: {CONTROLS[easy[0]]} does about as well as the native vector ({also})."
    if beaten_by:
        than = "no steering at all" if beaten_by[0] == "unsteered" else CONTROLS[beaten_by[0]].rstrip(",")
        return f"A vector found on {source} does not work on {target}: it does no better than {than}."
    doubt = next(_doubts({"unsteered": unsteered, **controls}, native, moved), None)
    if doubt:
        return f"Cannot tell whether a vector found on {source} works on {target}: {doubt}."
    through = {words: conditions[name] for name, words in MAPPER_CONTROLS.items() if name in conditions}
    same = [words for words, c in through.items() if _as_good(c, moved, unsteered)]
    if same:
        return (
            f"A vector found on {source} works on {target}, but so does one moved by {same[0]}: what the mapper learned is not "
            "the reason."
        )
    works = f"A vector found on {source} works on {target} {relation} the one found there"
    apart = [f"{words} ({_range(c)})" for words, c in through.items() if _undecided(c, moved, unsteered)]
    if apart:
        return f"{works}, but {moved['intact']['n']} prompts do not tell it from one moved by {apart[0]}: take more."
    return f"{works}."


def _as_good(control: Mapping[str, Any], vector: Mapping[str, Any], unsteered: Mapping[str, Any]) -> bool:
    """Whether a control gains nearly as many intact answers as a vector, or the vector hardly works and is not told from it.

    Where the control is the unsteered model itself, which gains none, all its answers count.
    """
    a, b = control["intact"], vector["intact"]
    base = 0.0 if control is unsteered else unsteered["intact"]["rate"]
    near = a["rate"] - base >= AS_GOOD * (b["rate"] - base)
    return near or (a["high"] >= b["low"] and b["high"] < MIGHT_WORK)


def _undecided(control: Mapping[str, Any], vector: Mapping[str, Any], unsteered: Mapping[str, Any]) -> bool:
    """Whether a control has fewer intact answers than a vector, in intervals that overlap."""
    return control["intact"]["high"] >= vector["intact"]["low"] and not _as_good(control, vector, unsteered)


def _doubts(controls: Mapping[str, Mapping[str, Any]], native: Mapping[str, Any], moved: Mapping[str, Any]) -> Iterator[str]:
    """Of each control that is not told from a vector, a clause."""
    for which, vector in (("native", native), ("moved", moved)):
        for name, control in controls.items():
            if _undecided(control, vector, controls["unsteered"]):
                words = "no steering" if name == "unsteered" else CONTROLS[name].rstrip(",")
                more = "more prompts" + (" or directions" if name.startswith("random") else "")
                yield (
                    f"{vector['intact']['n']} prompts do not tell the {which} vector ({_range(vector)}) from {words} "
                    f"({_range(control)}); take {more}"
                )


def _range(condition: Mapping[str, Any]) -> str:
    share = condition["intact"]
    return f"{percent(share['rate'])}, {percent(share['low'])} to {percent(share['high'])}"


def _relation(native: Mapping[str, Any], moved: Mapping[str, Any], unsteered: Mapping[str, Any]) -> str:
    if moved["intact"]["low"] > native["intact"]["high"]:
        return "better than"

    def near(what: str, share: float) -> bool:
        gains = [condition[what]["rate"] - unsteered[what]["rate"] for condition in (moved, native)]
        return gains[0] >= share * gains[1]

    success, intact = map(near, _MEASURES, ABOUT_EQUAL)
    return "about as well as" if success and intact else "less well than"


def _numbers(conditions: Mapping[str, Any], differences: Mapping[str, Any] | None) -> tuple[str, ...]:
    native, moved = conditions["native"], conditions["moved"]
    baselines = ", ".join(
        f"{percent(conditions[name]['intact']['rate'])} {words}" for name, words in _IN_NUMBERS.items() if name in conditions
    )
    successes = ", ".join(
        f"{name} {percent(conditions[name]['success']['rate'])}" for name in ("moved", "native", "random") if name in conditions
    )
    return (
        f"On {moved['intact']['n']} held-out prompts the moved vector did what it is for, and left a valid answer, on "
        f"{_intact(moved)}; the native one on {_intact(native)}.",
        *_seeds(moved),
        *([] if differences is None else [_paired(differences)]),
        f"Baselines: {baselines}.",
        f"If answers may be broken: {successes}. Cost on clean prompts, in nats per token: moved {moved['clean_kl']:.2g}, "
        f"native {native['clean_kl']:.2g}.",
    )


def _texts_are_enough(conditions: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for pairs shuffled within texts that do as well: they keep what each text is about."""
    within, moved = conditions.get("shuffled_within_text"), conditions["moved"]
    unsteered = conditions["unsteered"]
    if within is not None and _as_good(within, moved, unsteered) and not _as_good(unsteered, moved, unsteered):
        yield (
            "A mapper fitted on pairs shuffled within each text does about as well: it is enough to know which texts belong "
            "together, not which tokens."
        )


def _seeds(moved: Mapping[str, Any]) -> Iterator[str]:
    """A sentence on the seeds of the mapper, if it was fitted with several."""
    shares = [draw["intact"] for draw in moved.get("draws", [])]
    if len(shares) > 1:
        yield f"Over {len(shares)} seeds of the mapper the share is {percent(min(shares))} to {percent(max(shares))}."


def _paired(differences: Mapping[str, Any]) -> str:
    """Whether moved is as good as native, prompt by prompt."""
    parts = [f"{name} {points(d['difference'])} points ({interval(d, points)})" for name, d in differences.items()]
    equivalent = [d["equivalent"] for d in differences.values()]
    margin = f"{100 * next(iter(differences.values()))['margin']:g} points"
    if all(equivalent):
        conclusion = f"as good as the native one, to within {margin}"
    elif False in equivalent:
        conclusion = f"further apart than {margin}"
    else:
        conclusion = f"not shown to be as good to within {margin}, nor to be worse; that takes more prompts"
    return f"Moved less native, prompt by prompt: {', '.join(parts)}: {conclusion}."


def _plain_numbers(conditions: Mapping[str, Any]) -> str:
    parts = [f"{name.replace('_', ' ')} {_intact(c)}, n = {c['intact']['n']}" for name, c in conditions.items()]
    return f"Prompts on which each did what it is for and left a valid answer: {'; '.join(parts)}."


def _intact(judged: Mapping[str, Any]) -> str:
    share = judged["intact"]
    return f"{percent(share['rate'])} (95% interval {interval(share)})"
