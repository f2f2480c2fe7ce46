"""Moved vectors of saklas' released package beside those of the recipe as the edition "real" has it written anew.

``python examples/rival_check.py PYTHON [SOURCE TARGET]`` takes the Python of another environment, in which saklas is installed
(it is licensed under the AGPL, and nothing of it is part of this package)::

    python3.12 -m venv saklas && saklas/bin/pip install saklas==5.3.0
    python examples/rival_check.py saklas/bin/python

Both get the same weights in float32, the same 90 chats and the same vectors, one of each block of the source. For each block a
line has the cosine between the two moved vectors, their ratio of lengths, the R-squared that the release reports, on the rows
that its map was fitted on, the share of the vector that lies in the span of these rows, and how much of the moved vector the
release adds at strength 1, in units of the first block's: 1 throughout, as one factor is common to all blocks.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

DEFAULT = ("smollm2-135m-instruct", "qwen2.5-coder-0.5b-instruct")
QUESTIONS = 16
"""Pairs of the contrast: questions under an instruction to be formal, and without one."""
RELEASE = "--release"
"""First argument of the process that runs the released package."""


def release(folder: Path) -> None:
    """Move vectors by the released package: read what `main` wrote into a folder, and write what comes out."""
    import torch
    from safetensors.torch import load_file, save_file
    from saklas.core.capture import compute_neutral_activations, fold_directions_to_subspace
    from saklas.core.hooks import _lower_affine_subspaces
    from saklas.core.mahalanobis import LayerWhitener
    from saklas.core.manifold import synthesize_subspace, transfer_manifold_subspaces
    from saklas.io.alignment import alignment_quality, fit_alignment
    from transformers import AutoModelForCausalLM, AutoTokenizer

    rows, means, metrics = [], [], []
    for place in json.loads((folder / "models.json").read_text()):
        model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32).eval()
        found = compute_neutral_activations(model, AutoTokenizer.from_pretrained(place), model.model.layers)
        rows.append(found)
        means.append({layer: each.mean(dim=0) for layer, each in found.items()})
        metrics.append(LayerWhitener.from_neutral_activations(found, means[-1]))
        del model
    given = load_file(folder / "vectors.safetensors")
    vectors = {int(name): vector for name, vector in given.items()}
    source = fold_directions_to_subspace("check", vectors, means[0], whitener=metrics[0])
    maps = fit_alignment(*rows)
    options: dict[str, Any] = {"target_layer_means": means[1], "from_model": "source", "to_model": "target"}
    moved = transfer_manifold_subspaces(source, maps, whitener=metrics[1], **options)
    bases = {layer: one.basis for layer, one in moved.layers.items()}
    ends = {layer: one.node_coords[0] for layer, one in moved.layers.items()}
    added = _lower_affine_subspaces(synthesize_subspace([(bases, ends, 1.0)], [], means[1], whitener=metrics[1]))
    out = {}
    for layer in bases:
        out[f"moved {layer}"] = (ends[layer] @ bases[layer]).contiguous()
        out[f"added {layer}"] = (added[layer].eff_along * added[layer].target @ added[layer].subspace.basis).contiguous()
    save_file(out, folder / "moved.safetensors")
    quality = alignment_quality(maps, *rows)
    (folder / "quality.json").write_text(json.dumps({str(layer): each for layer, each in quality.items()}))


def main(python: str, *names: str) -> list[dict[str, float]]:
    """Compare, and print a line for each block."""
    from safetensors.torch import load_file, save_file

    import interp_transfer as it
    from interp_transfer.models.gguf import dequantized
    from interp_transfer.models.sources import source_of
    from interp_transfer.paper.measures.real_rival import Recipe
    from interp_transfer.paper.neutral import ANSWERED, neutral_chats
    from interp_transfer.prompts.chats import Chat, as_user_message
    from interp_transfer.prompts.traits import questions, traits

    names = names or DEFAULT
    directive = _output([python, "-c", "from saklas.core.capture import _LENGTH_DIRECTIVE as it; print(it)"])
    chats = [Chat((("system", directive), *chat.messages[1:])) for chat in neutral_chats()]
    source, target = (it.load_model(name, dtype="float32") for name in names)
    formal = traits()["formal"].instructions
    asked = enumerate(questions("train")[:QUESTIONS])
    contrast = [(as_user_message(one, formal[k % len(formal)]), as_user_message(one)) for k, one in asked]
    recipe = Recipe.fit(source, target, chats)
    vectors = recipe.vectors(source, contrast, "last")
    ours, inside = recipe.move(vectors, target), recipe.inside(vectors)
    del source, target
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        places = [str(dequantized(source_of(name).known.path)[0]) for name in names]
        (folder / "models.json").write_text(json.dumps(places))
        (folder / "neutral_statements.json").write_text(json.dumps([chat.messages[-1][1] for chat in chats]))
        (folder / "baseline_prompts.json").write_text(json.dumps(list(ANSWERED)))
        save_file({str(block): one.direction.contiguous() for block, one in vectors.items()}, folder / "vectors.safetensors")
        _output([python, __file__, RELEASE, made], SAKLAS_HOME=made)
        theirs, quality = load_file(folder / "moved.safetensors"), json.loads((folder / "quality.json").read_text())
    lines = []
    for block, one in ours.items():
        its, added = (theirs[f"{what} {block}"].double() for what in ("moved", "added"))
        direction = one.direction.double()
        line = {
            "cosine": float(its @ direction / its.norm() / direction.norm()),
            "length": float(its.norm() / direction.norm()),
        }
        factor = float(added @ direction / direction.square().sum())
        lines.append({**line, "R-squared": quality[str(block)], "in span": inside[block], "factor": factor})
    first = lines[0]["factor"]
    print("block", *lines[0])
    for block, line in enumerate(lines):
        line["factor"] /= first
        print(block, *(f"{value:.4f}" for value in line.values()))
    return lines


def _output(command: list[str], **env: str) -> str:
    """What a process prints."""
    done = subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{command[0]} failed: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout.strip()


if __name__ == "__main__":
    if sys.argv[1:2] == [RELEASE]:
        release(Path(sys.argv[2]))
    elif len(sys.argv) in (2, 4):
        main(*sys.argv[1:])
    else:
        raise SystemExit(__doc__)
