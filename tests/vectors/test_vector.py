"""Steering vectors: evidence, arithmetic, files, and the models that they belong to."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import interp_transfer as it
from interp_transfer.io import read_tensors
from interp_transfer.models.identity import ModelIdentity
from interp_transfer.vectors.vector import Contrast, Reference, SteeringVector
from tests.checkpoints import TEXTS, WIDTH

HERE, ELSEWHERE = ModelIdentity("one", "1" * 16), ModelIdentity("other", "2" * 16)
SITE = "blocks.2.hook_resid_pre"


def contrast(seed: int, weight: float = 1.0) -> Contrast:
    generator = torch.Generator().manual_seed(seed)
    return Contrast(torch.randn(5, WIDTH, generator=generator), torch.randn(7, WIDTH, generator=generator), weight)


def vector(seed: int = 0, **changes: Any) -> SteeringVector:
    found = contrast(seed)
    plain = SteeringVector(found.difference(), SITE, HERE, (found,), "difference_in_means", "last")
    return replace(plain, **changes)


def difference(of: SteeringVector) -> Tensor:
    assert isinstance(of.evidence, tuple)
    return torch.stack([c.difference() for c in of.evidence]).sum(0)


@pytest.mark.parametrize(
    "made",
    [
        lambda u, v: u,
        lambda u, v: -u,
        lambda u, v: 2.5 * u,
        lambda u, v: u / 4,
        lambda u, v: u + v,
        lambda u, v: 0.5 * (u - 3 * v) + u,
        lambda u, v: (u - v).normalized(),
        lambda u, v: u.normalized(7.0),
    ],
)
def test_arithmetic_keeps_the_evidence_as_weighted_contrasts(made: Callable[..., SteeringVector]) -> None:
    result = made(vector(0), vector(1))
    torch.testing.assert_close(difference(result), result.direction, atol=1e-5, rtol=1e-5)


def test_arithmetic() -> None:
    u, v = vector(0), vector(1)
    torch.testing.assert_close((u + v).direction, u.direction + v.direction)
    torch.testing.assert_close((2 * u - v).direction, 2 * u.direction - v.direction)
    assert u.normalized(3.0).norm == pytest.approx(3.0, rel=1e-5)
    assert u.cosine(-2 * u) == pytest.approx(-1.0, abs=1e-6)
    assert u.cosine(v) == pytest.approx(float(torch.cosine_similarity(u.direction, v.direction, dim=0)), abs=1e-6)
    assert (u + replace(v, method="probe")).method == "difference_in_means+probe"
    with pytest.raises(ValueError, match="norm zero"):
        (0 * u).normalized()


def test_vectors_of_two_spaces_are_not_mixed() -> None:
    u = vector()
    with pytest.raises(ValueError, match=r"one \[1+\] and other \[2+\]; move one through a mapper, or rebind"):
        _ = u + vector(1, model=ELSEWHERE)
    with pytest.raises(ValueError, match="of two models"):
        u.cosine(vector(1, model=ELSEWHERE))
    with pytest.raises(ValueError, match="blocks.3.hook_resid_pre"):
        _ = u + vector(1, site="blocks.3.hook_resid_pre")


def test_a_bare_direction_has_reference_activations() -> None:
    reference = torch.randn(4, WIDTH)
    bare = SteeringVector(torch.randn(WIDTH), SITE, HERE, Reference(reference))
    scaled = (-3 * bare).evidence
    assert isinstance(scaled, Reference) and torch.equal(scaled.activations, reference)
    both = bare + vector()
    assert isinstance(both.evidence, Reference) and len(both.evidence.activations) == 4 + 5 + 7


@pytest.mark.parametrize("kind", ["contrasts", "reference", "none", "bfloat16"])
def test_save_and_load(kind: str, tmp_path: Path) -> None:
    saved = {
        "contrasts": vector(0) - 2 * vector(1),
        "reference": vector(evidence=Reference(torch.randn(3, WIDTH))),
        "none": vector(evidence=()),
        "bfloat16": vector(direction=torch.randn(WIDTH).bfloat16(), history=("moved", "rebound")),
    }[kind]
    file = saved.save(tmp_path / "v.safetensors", strength=1.5, positions="all")
    assert [p.name for p in tmp_path.iterdir()] == ["v.safetensors"], "nothing half-written stays"
    loaded = SteeringVector.load(file)
    assert torch.equal(loaded.direction, saved.direction) and loaded.direction.dtype == saved.direction.dtype
    assert (loaded.site, loaded.model, loaded.method) == (saved.site, saved.model, saved.method)
    assert (loaded.positions, loaded.history) == (saved.positions, saved.history)
    assert type(loaded.evidence) is type(saved.evidence)
    if isinstance(saved.evidence, Reference):
        assert isinstance(loaded.evidence, Reference)
        assert torch.equal(loaded.evidence.activations, saved.evidence.activations)
    else:
        assert isinstance(loaded.evidence, tuple)
        for a, b in zip(loaded.evidence, saved.evidence, strict=True):
            assert torch.equal(a.positive, b.positive) and torch.equal(a.negative, b.negative) and a.weight == b.weight


def test_what_the_file_says_to_others(tmp_path: Path) -> None:
    tensors, meta = read_tensors(vector().save(tmp_path / "v.safetensors", strength=1.5, positions="all"))
    assert tensors["direction"].shape == (WIDTH,)
    assert meta["site"] == SITE and meta["strength"] == "1.5" and meta["positions"] == "all"
    assert meta["model"] == "one" and meta["fingerprint"] == "1" * 16
    assert meta["extracted_at"] == "last" and json.loads(meta["weights"]) == [1.0]


def test_damaged_and_foreign_files_are_named(tmp_path: Path) -> None:
    file = vector().save(tmp_path / "v.safetensors")
    good = file.read_bytes()
    for bad in (good[: len(good) // 2], good[:20], b"", b"not a tensor in sight" * 10):
        file.write_bytes(bad)
        with pytest.raises(ValueError, match="v.safetensors.* is damaged"):
            SteeringVector.load(file)
    with pytest.raises(ValueError, match="no file .*absent.safetensors"):
        SteeringVector.load(tmp_path / "absent.safetensors")
    save_file({"direction": torch.zeros(3)}, tmp_path / "foreign.safetensors")
    with pytest.raises(ValueError, match="foreign.safetensors.* is no steering vector"):
        SteeringVector.load(tmp_path / "foreign.safetensors")
    file.write_bytes(good)
    tensors, meta = read_tensors(file)
    for key, value in (("weights", '["a"]'), ("weights", "[1.0, 2.0]"), ("history", "{"), ("site", None)):
        changed = {k: v for k, v in {**meta, key: value}.items() if v is not None}
        save_file(tensors, file, metadata=changed)
        with pytest.raises(ValueError, match="v.safetensors.* is damaged"):
            SteeringVector.load(file)


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    file = vector().save(tmp_path / "v.safetensors")
    before = file.read_bytes()
    with pytest.raises(Exception, match="strength"):
        vector(1).save(file, strength=_Unprintable())  # type: ignore[arg-type]
    assert file.read_bytes() == before


class _Unprintable(float):
    def __str__(self) -> str:
        raise RuntimeError("strength")


def test_rebinding_is_on_purpose_and_remembered(wrapped: Callable[[str], Any]) -> None:
    model = wrapped("qwen2")
    rebound = vector().for_model(model)
    assert rebound.model == it.identity(model)
    assert "one [1111111111111111] to" in rebound.history[-1]
    assert it.generate(model, TEXTS[:1], it.add(rebound), max_new_tokens=1)
    with pytest.raises(ValueError, match="unknown site"):
        vector(site="blocks.2.hook_nonsense").for_model(model)
    with pytest.raises(ValueError, match="5 numbers does not fit d_model 16"):
        vector(direction=torch.zeros(5), evidence=()).for_model(model)


def test_repr_says_what_it_is() -> None:
    assert "1 x (5 | 7)" in repr(vector()) and SITE in repr(vector()) and "one [1111" in repr(vector())


def test_a_vector_makes_its_interventions() -> None:
    one = vector()
    for method, function in (
        (one.add(2.0, "last"), it.add(one, 2.0, "last")),
        (one.add(), it.add(one)),
        (one.ablate(everywhere=True), it.ablate(one, everywhere=True)),
        (one.clamp(3.0, "prompt"), it.clamp(one, 3.0, "prompt")),
    ):
        assert (method.site, method.positions, method.model) == (function.site, function.positions, function.model)
        assert str(method) == str(function)
        rows = torch.randn(3, len(one.direction))
        assert torch.equal(method.transform(rows), function.transform(rows))


def stored(path: Path, tensors: dict[str, torch.Tensor], **changes: str) -> Path:
    """A vector's file with other content and no digest, as older versions wrote it."""
    _, meta = read_tensors(vector().save(path))
    save_file(tensors or read_tensors(path)[0], path, metadata=meta | changes)
    return path


def test_a_changed_bit_is_noticed_and_older_files_are_read(tmp_path: Path) -> None:
    file = vector().save(tmp_path / "v.safetensors")
    good = file.read_bytes()
    for place in (len(good) - 1, good.index(b"blocks.")):
        file.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        with pytest.raises(ValueError, match="v.safetensors' is damaged: its content does not fit its digest"):
            SteeringVector.load(file)
    older = SteeringVector.load(stored(file, {}, method="probe"))
    assert older.method == "probe" and torch.equal(older.direction, vector().direction)


@pytest.mark.parametrize(
    "changes",
    [
        {"history": "[" * 20_000 + "]" * 20_000},
        {"history": '["a", 1]'},
        {"weights": '[1.0, "a"]'},
        {"weights": "[NaN]"},
        {"history": '["\\ud800"]'},
        {"weights": "[" + "9" * 5000 + "]"},
        {"format": "x" * 100_000},
    ],
)
def test_wrong_metadata_gives_one_short_line(changes: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="v.safetensors' is (damaged|no steering vector)") as error:
        SteeringVector.load(stored(tmp_path / "v.safetensors", {}, **changes))
    assert len(str(error.value).replace(str(tmp_path), "")) < 500 and str(error.value).isprintable()


@pytest.mark.parametrize(("direction", "rows"), [((2, 3), (4, 3)), ((3,), (4, 5)), ((3,), (3,))])
def test_tensors_that_do_not_belong_together_are_refused(direction: Any, rows: Any, tmp_path: Path) -> None:
    tensors = {
        "direction": torch.ones(direction),
        "evidence.0.positive": torch.ones(rows),
        "evidence.0.negative": torch.ones(rows),
    }
    with pytest.raises(ValueError, match="not a direction and rows of the same width"):
        SteeringVector.load(stored(tmp_path / "v.safetensors", tensors))


def test_the_plot_colours_tokens_by_the_component_along_the_vector(wrapped: Callable[[str], Any]) -> None:
    model, site = wrapped("qwen2"), "blocks.1.hook_resid_pre"
    texts = ["a good day", "x"]
    vector = it.extract(model, [("a good day", "a bad day")], site, progress=False) * 2.5
    shown = vector.plot(model, texts)
    acts = it.capture(model, texts, site, progress=False)
    expected = acts[site] @ vector.normalized().direction
    assert [value for row in shown.values for value in row] == pytest.approx(expected.tolist(), rel=1e-5, abs=1e-6)
    assert ["".join(row) for row in shown.texts] == texts
    with pytest.raises(ValueError, match="the model and the vector are of two models"):
        vector.plot(wrapped("llama"), texts)
