"""Which ready traits a vector can bring out in a model, on validation prompts.

``python examples/screen_traits.py MODEL BLOCK TRAIT ...`` prints, for each trait, the share of 24 questions that are answered
with it: under a system prompt that asks for it, without anything, with the model's own vector read from the last token or from
all tokens, and with three random directions. Every vector has the largest strength whose clean KL is within BUDGET.
"""

import sys
from dataclasses import replace

import interp_transfer as it
from interp_transfer.evaluation.evaluator import evaluator, pooled
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.search.strengths import largest_within
from interp_transfer.vectors.controls import random_vectors

BUDGET, PROMPTS, CLEAN, TOKENS, RANDOM = 0.5, 24, 16, 24, 3


def screen(model: HookedModel, trait: str, block: int) -> dict[str, str]:
    task = replace(it.load_task(trait), max_new_tokens=TOKENS, budget=BUDGET)
    validation = evaluator(model, task, "validation", n=PROMPTS, clean_prompts=CLEAN)
    pairs = task.contrast("train")
    vectors = {f"native, {read}": it.extract(model, pairs, block, read, progress=False) for read in ("last", "all")}
    vectors |= {f"random {k}": one for k, one in enumerate(random_vectors(vectors["native, all"], RANDOM, seed=0))}
    strengths = {name: limit.strength for name, limit in largest_within(validation, vectors).items()}
    settings = [(vector.add(strengths[name]),) for name, vector in vectors.items()]
    judged = dict(zip(vectors, validation.judge_each(settings, list(strengths.values()), progress=False), strict=True))
    shown = {"system prompt": validation.instructed(progress=False), "unsteered": validation.unsteered(progress=False)}
    shown |= {name: one for name, one in judged.items() if name.startswith("native")}
    shown["random"] = pooled([one for name, one in judged.items() if name.startswith("random")], "")
    return {name: f"{one.success:.2f}" for name, one in shown.items()}


def main(name: str, block: str, *traits: str) -> None:
    model = it.load_model(name)
    for trait in traits:
        print(trait, *(f"{what} {share}" for what, share in screen(model, trait, int(block)).items()), sep="; ", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
