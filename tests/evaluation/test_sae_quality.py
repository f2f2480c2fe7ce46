"""The quality of an SAE against the same figures computed plainly."""

import pytest
import torch

import interp_transfer as it
from interp_transfer.activations.agreement import fvu
from interp_transfer.evaluation.sae_quality import fit_of, measure_sae, with_quality
from interp_transfer.features.sae import Sae, quiet_sae_lens
from interp_transfer.features.use import reconstructed
from interp_transfer.interventions.generation import generate_tokens
from interp_transfer.interventions.predictions import teacher_forced_each
from interp_transfer.models.identity import ModelIdentity
from interp_transfer.models.tokens import tokenize
from tests.tiny_sae import SITE


def test_measured_quality(sae, models, cats):
    model, prompts = models[0], cats.clean("validation")
    found = measure_sae(sae, model, cats, n=len(prompts), progress=False)
    rows = it.capture(model, cats.texts("train"), SITE)[SITE]
    held = measure_sae(sae, model, cats, split="train", n=8, progress=False)
    assert held.explained_variance == pytest.approx(1 - fvu(rows, sae.reconstruct(rows)), abs=1e-5)
    assert held.tokens == len(rows)
    answers = generate_tokens(model, prompts, max_new_tokens=cats.max_new_tokens, progress=False)
    [spliced] = teacher_forced_each(model, tokenize(model, prompts), answers, [(reconstructed(sae),)])
    assert found.spliced_kl == pytest.approx(float(spliced.kl.mean()), rel=1e-3)
    assert found.mean_ablated_kl > 0
    verdicts = cats.judge(prompts, it.generate(model, prompts, max_new_tokens=cats.max_new_tokens, progress=False))
    assert found.valid.value == sum(v.intact for v in verdicts) / len(prompts) and found.valid_spliced.n == len(prompts)
    assert f"explained variance {found.explained_variance:.3f}" in str(found)
    kept = with_quality(sae, found)
    assert kept.details["measured"] == found.to_dict() and "explained_variance" in repr(kept)
    with pytest.raises(ValueError, match="this SAE and the model"):
        measure_sae(sae, models[1], cats, n=4)


def test_fit_of_counts():
    with quiet_sae_lens():
        from sae_lens import StandardSAE, StandardSAEConfig

        module = StandardSAE(StandardSAEConfig(d_in=3, d_sae=3, apply_b_dec_to_input=False))
    for name in ("W_enc", "W_dec"):
        getattr(module, name).data = torch.eye(3)  # so that it reconstructs what is positive
    identity = Sae(module, SITE, ModelIdentity("a", "a"))
    rows = torch.tensor([[1.0, 0.0, 0.0], [3.0, 2.0, 0.0]])
    explained, active, dead = fit_of(identity, rows)
    assert (explained, active, dead) == (1.0, 1.5, pytest.approx(1 / 3))
    half = fit_of(identity, torch.tensor([[1.0, -1.0, 0.0], [3.0, 1.0, 0.0]]))
    assert half[0] == pytest.approx(1 - 1 / 4)
