"""Pairs on disk are those in memory: the same rows, the same mappers, whatever happened while they were collected."""

import json
import multiprocessing
import random
import signal
import sys
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch

import interp_transfer as it
from interp_transfer.activations.agreement import Agreement, fvu, mean_cosine, norm_ratio
from interp_transfer.activations.store.manifest import MANIFEST, columns_like, read_manifest
from interp_transfer.activations.store.reader import open_store
from interp_transfer.activations.store.writer import StoreWriter
from interp_transfer.mapping import pair_reader, row_blocks
from interp_transfer.mapping.fit import fit
from interp_transfer.mapping.pairs import PairedActivations
from interp_transfer.mapping.stored import StoredPairs, open_pairs
from interp_transfer.models.load import load_model
from interp_transfer.vectors.vector import SteeringVector
from tests.checkpoints import make_checkpoint, word_tokenizer
from tests.planted_pairs import S, T, planted

WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "dogs", "run", "far", "from", "home", "they", "say", "12", "+", "7"]


def sentences(number: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(2, 9))) for _ in range(number)]


TEXTS = sentences(48)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two models of one tokenizer, and one of another."""
    root = tmp_path_factory.mktemp("models")
    made = {name: make_checkpoint(root / name, "qwen2", seed, hidden_size=d) for name, seed, d in (("a", 0, 16), ("b", 1, 24))}
    loaded = {name: load_model(str(folder), device="cpu") for name, folder in made.items()}
    other = make_checkpoint(root / "c", "llama", 2)
    return loaded | {"c": load_model(str(other), device="cpu", tokenizer=word_tokenizer(WORDS))}


@pytest.fixture(autouse=True)
def small_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    """So small that some dozen texts are many."""
    monkeypatch.setattr(pair_reader, "ROWS_PER_PORTION", 50)


def collected(models: dict[str, Any], texts: Any, store: Path | None = None, pair: str = "ab", **kwargs: Any) -> Any:
    return it.collect(models[pair[0]], models[pair[1]], texts, S, T, store=store, progress=False, **kwargs)


def content(pairs: PairedActivations) -> dict[str, torch.Tensor]:
    columns = {**{f"s{k}": v for k, v in pairs.source.items()}, **{f"t{k}": v for k, v in pairs.target.items()}}
    return {name: column[:] for name, column in {**columns, "i": pairs.text_index, "k": pairs.target_token}.items()}


def assert_same(one: PairedActivations, other: PairedActivations) -> None:
    left, right = content(one), content(other)
    assert left.keys() == right.keys()
    for name, rows in left.items():
        assert rows.dtype == right[name].dtype, name
        assert torch.equal(rows, right[name]), name
    assert figures(one) == figures(other)
    assert (one.site_pairs, one.source_model, one.target_model) == (other.site_pairs, other.source_model, other.target_model)


def figures(pairs: PairedActivations) -> tuple[Any, ...]:
    report = pairs.alignment
    return report.strategy, len(report), report.coverage, report.gap, report.peeks, report.examples, pairs.dropped


# --- pair_reader


@pytest.mark.parametrize("pair", ["ab", "cb", "bc"])
def test_a_store_holds_what_memory_holds(models: dict[str, Any], tmp_path: Path, pair: str) -> None:
    memory, disk = collected(models, TEXTS, None, pair), collected(models, TEXTS, tmp_path, pair)
    assert isinstance(disk, StoredPairs)
    assert_same(memory, disk)
    assert len(read_manifest(tmp_path).shards) > 3, "portion by portion"
    assert disk.text_index[:].unique().tolist() == list(range(48)), "numbered through all portions"
    assert (memory.alignment.strategy == "same_tokens") == (pair == "ab")
    assert len(memory.alignment.examples) == (0 if pair == "ab" else 8)
    assert_same(open_pairs(tmp_path), disk)
    if pair != "ab":
        assert disk.alignment.plot(3) is not None


def test_a_portion_is_as_good_as_all_at_once(models: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    small = collected(models, TEXTS, None, "cb")
    monkeypatch.setattr(pair_reader, "ROWS_PER_PORTION", 10**6)
    whole = collected(models, TEXTS, None, "cb")
    assert figures(small) == figures(whole)
    for name, rows in content(whole).items():
        torch.testing.assert_close(content(small)[name], rows, rtol=1e-5, atol=1e-5)


def test_texts_come_from_anywhere(models: dict[str, Any], tmp_path: Path) -> None:
    memory = collected(models, TEXTS)
    table = datasets.Dataset.from_dict({"id": list(range(48)), "said": TEXTS})
    endless = (text for _ in iter(int, 1) for text in TEXTS)
    for index, (texts, how) in enumerate(
        (
            ((text for text in TEXTS), {}),
            (table, {"text_column": "said"}),
            (table.to_iterable_dataset(), {"text_column": "said"}),
            ([{"text": text} for text in TEXTS], {}),
            (endless, {"max_texts": 48}),
        )
    ):
        assert_same(collected(models, texts, tmp_path / str(index) if index % 2 else None, **how), memory)


def test_an_endless_stream_is_taken_portion_by_portion(models: dict[str, Any], tmp_path: Path) -> None:
    taken = 0

    def endless() -> Any:
        nonlocal taken
        while True:
            taken += 1
            if taken > 40:
                raise KeyboardInterrupt
            yield TEXTS[taken - 1]

    with pytest.raises(KeyboardInterrupt):
        collected(models, endless(), tmp_path)
    there = read_manifest(tmp_path).upto
    assert 20 < there <= 40, "what was read before is safe"
    assert_same(collected(models, TEXTS, tmp_path), collected(models, TEXTS))


def test_what_is_no_text_is_refused_before_any_work(models: dict[str, Any], tmp_path: Path, monkeypatch: Any) -> None:
    table = datasets.Dataset.from_dict({"id": [1, 2], "said": ["x", "y"]})
    talk = [{"role": "user", "content": "x"}]
    cases: list[tuple[Any, dict[str, Any], str]] = [
        (table, {}, "no column 'text' among id, said: name the one of the texts, text_column="),
        (table.to_iterable_dataset(), {"text_column": "sad"}, "no column 'sad' among id, said"),
        (iter([{"a": "x"}]), {}, "no column 'text' among a"),
        (datasets.DatasetDict({"train": table}), {}, r"DatasetDict of train: give one of them, texts\[...\]"),
        (table, {"text_column": "id"}, "column 'id' of row 0 holds 1, neither a string nor a conversation"),
        (iter(["x", None]), {}, "text 1 holds None, neither"),
        (iter(["x", talk]), {}, "strings and conversations"),
        (iter([]), {}, "no texts"),
        (["x"], {"max_texts": 0}, "max_texts=0"),
        (["x"], {"dtype": "int8"}, "dtype 'int8': a column is stored as one of"),
        ([*TEXTS, "dogs " * 100], {}, "text 48 has .* tokens, the model's context is 96"),
        ([*TEXTS, ""], {}, "text 48 .* has no tokens"),
    ]
    read = pair_reader.PairReader.read
    seen: list[int] = []

    def watched(self: Any, texts: Any, *args: Any) -> Any:
        seen.append(len(texts))
        return read(self, texts, *args)

    monkeypatch.setattr(pair_reader.PairReader, "read", watched)
    for index, (texts, how, said) in enumerate(cases):
        with pytest.raises(ValueError, match=said):
            collected(models, texts, tmp_path / str(index), **how)
    assert sum(seen) <= 8 * len(cases) and max(seen) <= 8, "no more than the first few texts were read"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_rows_are_kept_as_they_are_asked_for(models: dict[str, Any], tmp_path: Path, dtype: str) -> None:
    memory, disk = collected(models, TEXTS, dtype=dtype), collected(models, TEXTS, tmp_path, dtype=dtype)
    assert_same(memory, disk)
    kept = getattr(torch, dtype)
    assert torch.equal(disk.source[S][:], collected(models, TEXTS).source[S].to(kept))
    assert dtype in repr(disk) and disk.source[S].dtype == kept
    with pytest.raises(ValueError, match=rf"\['dtype'\] is '{dtype}' in the store, and 'float32' is asked for"):
        collected(models, TEXTS, tmp_path)


def test_a_finished_store_goes_on_with_further_texts(models: dict[str, Any], tmp_path: Path) -> None:
    before = content(collected(models, TEXTS[:25], tmp_path, "cb"))
    again = collected(models, TEXTS[:25], tmp_path, "cb")
    assert {k: v.tolist() for k, v in content(again).items()} == {k: v.tolist() for k, v in before.items()}
    more, memory = collected(models, iter(TEXTS), tmp_path, "cb"), collected(models, TEXTS, None, "cb")
    assert figures(more) == figures(memory)
    for name, rows in content(memory).items():  # texts are read together with others than in one go
        torch.testing.assert_close(content(more)[name], rows, rtol=1e-5, atol=1e-5)


def test_another_request_is_refused_by_name(models: dict[str, Any], tmp_path: Path) -> None:
    collected(models, TEXTS, tmp_path, "cb")
    a, b, c = models["a"], models["b"], models["c"]
    cases: list[tuple[Any, Any, Any, Any, dict[str, Any], str]] = [
        (a, b, S, T, {}, r"meta\['source'\]\['name'\] is '.*c' in the store, and '.*a' is asked for"),
        (c, a, S, T, {}, r"meta\['target'\]\['name'\] is '.*b' in the store, and '.*a' is asked for"),
        (c, b, T, T, {}, rf"meta\['sites'\] is \[\['{S}', '{T}'\]\] in the store, and \[\['{T}', '{T}'\]\] is asked for"),
        (c, b, S, T, {"strategy": "word_ends"}, r"meta\['strategy'\] is 'last_so_far' in the store, and 'word_ends' is"),
    ]
    for source, target, s, t, how, said in cases:
        with pytest.raises(ValueError, match=said):
            it.collect(source, target, TEXTS, s, t, store=tmp_path, progress=False, **how)
    with pytest.raises(ValueError, match="holds the rows of 48 texts, and the first 48 that are given are not those"):
        collected(models, sentences(70, seed=1), tmp_path, "cb")
    with pytest.raises(ValueError, match="48 texts, and only 20 are given: give them all, or open it with open_pairs"):
        collected(models, TEXTS[:20], tmp_path, "cb")
    with StoreWriter(tmp_path / "else", columns_like({"x": torch.zeros(1)}), {}):
        pass
    with pytest.raises(ValueError, match="holds no pairs of this package"):
        open_pairs(tmp_path / "else")
    (tmp_path / "examples.json").write_text("[{")
    for text in ("[{", "[" * 20_000, "[3]"):
        (tmp_path / "examples.json").write_text(text)
        with pytest.raises(ValueError, match="examples.json' is damaged"):
            open_pairs(tmp_path)
    (tmp_path / "examples.json").unlink()
    plain = {key: value for key, value in json.loads((tmp_path / MANIFEST).read_text()).items() if key != "digest"}
    for meta in ({"source": []}, {"sites": []}, {"sites": [["else", "where"]]}):
        (tmp_path / MANIFEST).write_text(json.dumps({**plain, "meta": {**plain["meta"], **meta}}))
        with pytest.raises(ValueError, match=f"{tmp_path.name}' is damaged: its manifest does not describe pairs"):
            open_pairs(tmp_path)


def spoil(monkeypatch: pytest.MonkeyPatch) -> None:
    """The target's last row of text 31 holds NaN, the source's of text 44 infinity."""
    capture = pair_reader.capture

    def spoiled(model: Any, given: Any, sites: Any, **kwargs: Any) -> Any:
        acts = capture(model, given, sites, **kwargs)
        for text, site, value in ((31, T, float("nan")), (44, S, float("-inf"))):
            mine = (acts.text_index == text).nonzero()[:, 0]
            if site in sites and len(mine):
                acts.sites[site][mine[-1], 3] = value
        return acts

    monkeypatch.setattr(pair_reader, "capture", spoiled)


@pytest.mark.parametrize("on_disk", [True, False])
def test_bad_rows_are_refused_or_dropped_and_counted(
    models: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_disk: bool
) -> None:
    whole = content(collected(models, TEXTS))
    spoil(monkeypatch)
    folder = tmp_path if on_disk else None
    with pytest.raises(ValueError, match=f"column 'target:{T}': 1 of .* rows, the first in text 31, hold NaN .* drop_bad=True"):
        collected(models, TEXTS, folder)
    found = collected(models, TEXTS, folder, drop_bad=True)
    last = [int((whole["i"] == text).nonzero()[-1, 0]) for text in (31, 44)]
    keep = torch.ones(len(whole["i"]), dtype=torch.bool)
    keep[last] = False
    for name, rows in content(found).items():
        assert torch.equal(rows, whole[name][keep])
    assert found.dropped == 2 and "2 rows dropped" in repr(found)
    assert found.alignment.coverage == 1.0, "they were paired"


def collect_and_tell(models: dict[str, Any], texts: list[str], folder: Path, go: Any) -> None:
    """Collect, and say so before each portion is read."""
    torch.set_num_threads(1)
    read = pair_reader.PairReader.read

    def told(self: Any, *args: Any) -> Any:
        go.send_bytes(b"go")
        return read(self, *args)

    pair_reader.PairReader.read = told  # type: ignore[method-assign]
    collected(models, texts, folder, "cb")


def in_a_process(kill: tuple[int, float] | None, *args: Any) -> tuple[int, list[float]]:
    """Collect in another process, and kill it so many portions and seconds after it began.

    Returns its exit code, and how long it took to begin with each portion after the one before.
    """
    context = multiprocessing.get_context("fork")  # importing torch twenty times over would take most of the time
    here, there = context.Pipe()
    child = context.Process(target=collect_and_tell, args=(*args, there))
    child.start()
    there.close()
    marks = [time.perf_counter()]
    try:
        with suppress(EOFError):  # it was done
            while kill is None or len(marks) <= kill[0]:
                assert here.poll(60), "the child stands still"
                here.recv_bytes()
                marks.append(time.perf_counter())
        child.join(60 if kill is None else kill[1])
    finally:
        child.kill()
        child.join()
        here.close()
    assert child.exitcode in (0, -signal.SIGKILL)
    return child.exitcode or 0, [b - a for a, b in pairwise(marks)]


def files_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs fork and SIGKILL")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_twenty_kills_lose_and_double_nothing(models: dict[str, Any], tmp_path: Path) -> None:
    """At any moment: before the store is there, while a portion is read, while it is written."""
    moments, texts, whole = random.Random(0), sentences(250), tmp_path / "whole"
    code, took = in_a_process(None, models, texts, whole)
    assert code == 0 and len(took) > 20, "so many portions"
    undisturbed, files = content(open_pairs(whole)), files_of(whole)
    killed = [tmp_path / "killed-0"]
    kills, reached = 0, [0]
    while kills < 20:
        portion = moments.randint(0, 4)
        moment = portion, moments.uniform(0, took[portion])
        code, _ = in_a_process(moment, models, texts, killed[-1])
        if code == 0:  # it was done before it could be killed: the next one begins anew
            assert files_of(killed[-1]) == files
            killed.append(tmp_path / f"killed-{len(killed)}")
            reached.append(0)
            continue
        kills += 1
        if not (killed[-1] / MANIFEST).exists():
            assert reached[-1] == 0
            continue
        found = open_pairs(killed[-1])
        for name, rows in content(found).items():
            assert torch.equal(rows, undisturbed[name][: len(found)]), "what is in is what belongs there"
        assert found.store.manifest.upto >= reached[-1], "what was in stays"
        reached.append(found.store.manifest.upto)
    assert len(set(reached)) > 5, "at several places"
    assert_same(collected(models, texts, killed[-1], "cb"), open_pairs(whole))
    assert files_of(killed[-1]) == files, "byte for byte"


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of the operating system")
def test_a_full_disk_leaves_what_was_in(models: dict[str, Any], tmp_path: Path) -> None:
    import resource  # noqa: PLC0415

    before = content(collected(models, TEXTS[:25], tmp_path, "cb"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    room = min(shard.bytes for shard in read_manifest(tmp_path).shards[:-1]) // 2
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))  # a shard comes to a stop halfway
        with pytest.raises(OSError, match="rows of the first 25 texts are safe; make room"):
            collected(models, TEXTS, tmp_path, "cb")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    found = open_pairs(tmp_path)
    for name, rows in content(found).items():
        assert torch.equal(rows, before[name])
    assert not list(tmp_path.glob(".*.part"))
    assert figures(collected(models, TEXTS, tmp_path, "cb")) == figures(collected(models, TEXTS, None, "cb"))


def test_a_second_collection_into_one_store_is_refused(models: dict[str, Any], tmp_path: Path, monkeypatch: Any) -> None:
    read, refused = pair_reader.PairReader.read, []

    def meanwhile(self: Any, texts: Any, first_text: int, *args: Any) -> Any:
        if first_text >= 20 and not refused:
            refused.append(first_text)
            with pytest.raises(ValueError, match="another writer is at work .*: wait for it"):
                collected(models, TEXTS, tmp_path)
            assert 0 < open_pairs(tmp_path).store.manifest.upto <= first_text, "it can be read meanwhile"
        return read(self, texts, first_text, *args)

    monkeypatch.setattr(pair_reader.PairReader, "read", meanwhile)
    found = collected(models, TEXTS, tmp_path)
    assert refused
    assert_same(found, collected(models, TEXTS))


# --- fitting


@pytest.mark.parametrize("kind", ["affine", "procrustes", "low_rank"])
@pytest.mark.parametrize("massive", [False, True])
def test_closed_forms_from_disk_are_those_from_memory(tmp_path: Path, kind: str, massive: bool) -> None:
    memory, disk = planted(9000, tmp_path, massive=massive)
    one, other = fit(memory, kind), fit(disk, kind)
    assert one.card.massive_rows == (300 if massive else 0)
    torch.testing.assert_close(other(memory.source[S][:50]), one(memory.source[S][:50]), rtol=1e-6, atol=1e-6)
    assert other.card.rows == one.card.rows and other.card.held_out_rows == one.card.held_out_rows == 900 - 30 * massive
    for name in ("fvu", "cosine", "norm_ratio"):
        assert getattr(other.card, name) == pytest.approx(getattr(one.card, name), rel=1e-6)


@pytest.mark.parametrize("massive", [False, True])
def test_training_from_disk_is_as_good(tmp_path: Path, massive: bool) -> None:
    memory, disk = planted(3000, tmp_path, massive=massive)
    one, other = (fit(pairs, "autoencoder", width=24, epochs=12, batch_size=64) for pairs in (memory, disk))
    assert other.card.fvu == pytest.approx(one.card.fvu, rel=0.1)
    assert other.card.fvu < 0.9 * fit(disk, "affine").card.fvu
    assert torch.equal(
        fit(disk, "autoencoder", epochs=1)(memory.source[S]), fit(disk, "autoencoder", epochs=1)(memory.source[S])
    )


def test_fitting_holds_no_more_than_a_buffer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, disk = planted(6000, tmp_path)
    monkeypatch.setattr(row_blocks, "BLOCK_ROWS", 256)
    monkeypatch.setattr(row_blocks, "BUFFER_ROWS", 512)
    monkeypatch.setattr(row_blocks, "SAMPLE_ROWS", 512)
    monkeypatch.setattr("interp_transfer.mapping.fit.BLOCK_ROWS", 256)
    most, cat, empty = 0, torch.cat, torch.empty

    def watched(made: Any) -> Any:
        def make(*args: Any, **kwargs: Any) -> torch.Tensor:
            nonlocal most
            out = made(*args, **kwargs)
            if out.ndim == 2 and out.shape[1] in (6, 9):
                most = max(most, len(out))
            return out

        return make

    monkeypatch.setattr(torch, "cat", watched(cat))
    monkeypatch.setattr(torch, "empty", watched(empty))
    fit(disk, "affine")
    fit(disk, "autoencoder", epochs=1)
    fit(disk.shuffled(0), "affine")
    assert 256 <= most <= 2048, "a block of the store at most"


def test_the_split_is_that_of_memory(tmp_path: Path) -> None:
    memory, disk = planted(3000, tmp_path)
    for one, other in zip(memory.split(0.2, 3), disk.split(0.2, 3), strict=True):
        assert torch.equal(one, other)
    for texts in (disk.held_out(0.2, 3), ~disk.held_out(0.2, 3)):
        one, other = memory.part(texts), disk.part(texts)
        assert len(one) == len(other)
        for (x, y), (u, v) in zip(one.blocks(), other.blocks(), strict=True):
            assert torch.equal(x, u) and torch.equal(y, v)
        drawn = torch.cat([x for x, _ in other.batches(128, 0)])
        assert all(len(x) == 128 for x, _ in list(other.batches(128, 0))[:-1])
        assert sorted(drawn[:, 0].tolist()) == sorted(torch.cat([x for x, _ in one.blocks()])[:, 0].tolist())


@pytest.mark.parametrize("rows", [900, 7500])
def test_a_shuffled_control_explains_nothing(tmp_path: Path, rows: int) -> None:
    memory, disk = planted(rows, tmp_path)
    mixed = disk.shuffled(1)
    assert mixed.is_shuffled and "partners shuffled" in repr(mixed)
    assert torch.equal(mixed.source[S][:], memory.source[S])
    y, tokens = mixed.target[T][:], mixed.target_token[:]
    weights = torch.arange(1.0, 10.0, dtype=torch.float64).sqrt()  # tells all rows apart
    known, places = (memory.target[T].double() @ weights).sort()
    order = places[torch.searchsorted(known, y.double() @ weights).clamp(max=rows - 1)]
    assert torch.equal(y, memory.target[T][order]) and torch.equal(order.sort()[0], torch.arange(rows)), "every row once"
    assert torch.equal(tokens, memory.target_token[order]), "each with its token"
    assert torch.equal(mixed.target[T][100:333], y[100:333]), "however it is read"
    assert not torch.equal(disk.shuffled(2).target[T][:], y)
    same_text = (memory.text_index[order] == memory.text_index).float().mean()
    assert same_text < 0.1
    for card in (fit(mixed, "affine").card, fit(mixed, "autoencoder", epochs=2).card):
        assert card.shuffled and card.fvu > 0.95
    drawn = {
        tuple(x.tolist()): tuple(v.tolist())
        for a, b in mixed.part(torch.ones(rows, dtype=torch.bool)).batches(64, 0)
        for x, v in zip(a, b, strict=True)
    }
    assert drawn == {tuple(x.tolist()): tuple(v.tolist()) for x, v in zip(memory.source[S], y, strict=True)}


def test_pairs_on_disk_can_be_reversed(tmp_path: Path) -> None:
    memory, disk = planted(3000, tmp_path)
    back = fit(disk.reversed(), "affine")
    torch.testing.assert_close(back(memory.target[T]), fit(memory.reversed(), "affine")(memory.target[T]), rtol=1e-6, atol=1e-6)
    assert fit(disk.reversed().shuffled(0), "affine").card.fvu > 0.95
    assert (disk.reversed().source_model, disk.reversed().site_pairs) == (disk.target_model, ((T, S),))


def test_columns_on_disk_are_sliced_as_tensors_are(tmp_path: Path) -> None:
    memory, disk = planted(900, tmp_path)
    x, column = memory.source[S], disk.source[S]
    for rows in (slice(3, 50), slice(None), slice(-5, None), slice(890, 2000), slice(7, 3), 4, -1):
        assert torch.equal(column[rows], x[rows])
    assert (tuple(column.shape), len(column), column.dtype) == (tuple(x.shape), len(x), x.dtype)
    assert "on disk" in repr(column)
    with pytest.raises(ValueError, match="step 2"):
        column[::2]
    with pytest.raises(IndexError):
        column[900]


def test_a_fitted_mapper_moves_a_vector(models: dict[str, Any], tmp_path: Path) -> None:
    pairs = collected(models, TEXTS, tmp_path)
    mapper = fit(pairs, "affine", held_out=0.2)
    vector = it.extract(models["a"], [it.ContrastPair("the cat", "they say"), it.ContrastPair("a mat", "dogs run")], S)
    moved = mapper.transfer(vector)
    assert isinstance(moved, SteeringVector) and moved.model == pairs.target_model and torch.isfinite(moved.direction).all()


def test_what_cannot_be_fitted_is_named(tmp_path: Path) -> None:
    memory, disk = planted(300, tmp_path)
    rows, each = ({S: memory.source[S][:6]}, {T: memory.target[T][:6]}), torch.arange(6)
    few = PairedActivations(*rows, ((S, T),), each, each, disk.source_model, disk.target_model, disk.alignment)
    with pytest.raises(ValueError, match="5 rows of 6 dimensions leave the map open when ridge=0: collect more texts"):
        fit(few, "affine", ridge=0.0, held_out=0.2)
    assert torch.isfinite(fit(few, "affine", held_out=0.34)(memory.source[S])).all(), "a ridge needs no more"
    with pytest.raises(ValueError, match="held_out=0.001 of 10 texts leaves one side empty"):
        fit(disk, "affine", held_out=0.001)
    for change, said in (
        ({"text_index": torch.arange(299)}, f"source {S} has 300 rows and text_index 299"),
        ({"target": {T: memory.target[T][:5]}}, f"target {T} has 5 rows and text_index 300"),
        ({"site_pairs": ((S, S),)}, f"site_pairs name '{S}', and target holds {T}"),
        ({"source": {S: torch.zeros(300)}}, r"have shape \(300,\)"),
    ):
        with pytest.raises(ValueError, match=said):
            PairedActivations(**{**{name: getattr(memory, name) for name in memory.__dataclass_fields__}, **change})


def test_running_figures_are_those_of_all_rows() -> None:
    truth = torch.randn(500, 4, generator=torch.Generator().manual_seed(0)) + 1000
    guess = truth + torch.randn(500, 4, generator=torch.Generator().manual_seed(1))
    found = Agreement()
    for t, g in zip(truth.split(77), guess.split(77), strict=True):
        found.update(t, g)
    assert found.fvu == pytest.approx(fvu(truth, guess), rel=1e-9)
    assert found.cosine == pytest.approx(mean_cosine(truth, guess), rel=1e-12)
    assert found.norm_ratio == pytest.approx(norm_ratio(truth, guess), rel=1e-12)


def test_a_damaged_shard_is_named(models: dict[str, Any], tmp_path: Path) -> None:
    pairs = collected(models, TEXTS, tmp_path)
    shard = tmp_path / read_manifest(tmp_path).shards[2].file
    shard.write_bytes(shard.read_bytes()[:-8])
    with pytest.raises(ValueError, match=f"{shard.name} is truncated"):
        fit(pairs, "affine")
    with pytest.raises(ValueError, match=f"cannot resume the store .*{shard.name} is truncated"):
        collected(models, TEXTS, tmp_path)


def test_a_shard_of_another_model_is_named(models: dict[str, Any], tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    pairs = collected(models, TEXTS, one)
    name = read_manifest(one).shards[2].file
    it.collect(models["c"], models["b"], TEXTS, T, S, store=other, progress=False)
    it.collect(models["a"], models["b"], TEXTS, T, S, store=tmp_path / "same size", progress=False)
    for foreign, said in ((other, "truncated|too long"), (tmp_path / "same size", "has changed since it was written")):
        (one / name).write_bytes((foreign / name).read_bytes())
        with pytest.raises(ValueError, match=f"{name} (is |)({said})"):
            fit(pairs, "affine")


def test_the_state_is_plain(models: dict[str, Any], tmp_path: Path) -> None:
    collected(models, TEXTS, tmp_path)
    state = json.loads((tmp_path / MANIFEST).read_text())["state"]
    assert state["pairs"] == state["target_tokens"] == len(open_store(tmp_path)) and len(state["texts"]) == 64
