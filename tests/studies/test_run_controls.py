"""The controls of a run: of the moved vector's length, and of different draws."""

import pytest
import torch

import interp_transfer as it
from interp_transfer.evaluation.kept import Kept
from interp_transfer.mapping.collect import collect
from interp_transfer.studies import controls as module
from interp_transfer.studies.controls import Fitter, moved_and_controls
from interp_transfer.studies.options import RunOptions
from interp_transfer.vectors.controls import span_vectors
from interp_transfer.vectors.vector import evidence_rows
from tests.registered import SITE


@pytest.fixture(scope="module")
def made(models, cats):
    how = RunOptions(mapper="affine", directions=4, seeds=3)
    source, target = models
    pairs = collect(source, target, cats.texts("train"), SITE, SITE, progress=False)
    vector = it.extract(source, cats.contrast("train"), SITE)
    exchanges: list[tuple[int, bool]] = []
    real = type(pairs).shuffled

    def shuffled(self, seed=0, *, within_text=False):
        exchanges.append((seed, within_text))
        return real(self, seed, within_text=within_text)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(pairs), "shuffled", shuffled)
        fitter = Fitter(pairs, models, "cats", Kept(), progress=False)
        return moved_and_controls(fitter, cats, fitter.fit_seeds(how), vector, how), exchanges


def test_every_control_has_the_moved_vectors_length_and_draws_that_differ(made):
    vectors, _ = made
    assert {name: len(draws) for name, draws in vectors.items()} == {
        "moved": 3, "random": 4, "random_in_span": 2, "wrong_contrast": 3,
        "shuffled": 3, "shuffled_within_text": 3, "untrained": 3,
    }  # fmt: skip
    for name, draws in vectors.items():
        assert name == "moved" or all(v.norm == pytest.approx(vectors["moved"][0].norm, rel=1e-4) for v in draws), name
        assert all(abs(a.cosine(b)) < 0.9999 for a, b in zip(draws, draws[1:], strict=False) if name != "moved"), name


def test_every_seed_exchanges_partners_anew(made):
    _, exchanges = made
    assert exchanges == [(k, within) for within in (True, False) for k in range(3)]
    assert module.same_side([("a", "b")] * 4, 0) == [("a", "a")] * 2


def test_directions_in_the_span_are_combinations_of_the_leading_components(made):
    moved = made[0]["moved"][0]
    rows = evidence_rows(moved.evidence).float()
    basis = torch.linalg.svd(rows - rows.mean(dim=0), full_matrices=False).Vh
    for vector in span_vectors(moved, 5, components=3):
        inside = (vector.direction.float() @ basis[:3].T).norm()
        assert float(inside) == pytest.approx(vector.norm, rel=1e-4)
