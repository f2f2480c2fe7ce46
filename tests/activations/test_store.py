"""Stores of activations: what is written comes back, whatever happens to the writer, the disk or the files."""

import errno
import gc
import json
import multiprocessing
import random
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from interp_transfer.activations.store import manifest as store_manifest
from interp_transfer.activations.store import reader as store_reading
from interp_transfer.activations.store import writer as store
from interp_transfer.activations.store.exchange import Exchange
from interp_transfer.activations.store.manifest import MANIFEST, Column, columns_like, read_manifest
from interp_transfer.activations.store.reader import Store, open_store
from interp_transfer.activations.store.writer import StoreWriter

SITE = "source:blocks.3.hook_resid_pre"
WIDTH = 5
COLUMNS = {SITE: Column("float32", WIDTH), "text_index": Column("int64"), "position": Column("int64")}
META = {"source": {"name": "s", "fingerprint": "abc"}, "sites": ["a", "b"]}


def text(index: int) -> dict[str, Tensor]:
    """The rows of one text: between none and four, every one of them different."""
    rows = (index * 7 + 2) % 5
    position = torch.arange(rows)
    values = index + torch.arange(WIDTH)[None, :] / 8 + position[:, None] / 64
    return {SITE: values, "text_index": torch.full((rows,), index), "position": position}


def texts(start: int, stop: int) -> dict[str, Tensor]:
    return joined([text(i) for i in range(start, stop)])


def joined(blocks: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([block[name] for block in blocks]) for name in blocks[0]}


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(one[k].dtype == other[k].dtype and torch.equal(one[k], other[k]) for k in one)


def everything(of: Store) -> dict[str, Tensor]:
    return of.read(0, len(of))


def filled(folder: Path, number: int = 40, shard_rows: int = 10, **kwargs: Any) -> Path:
    with StoreWriter(folder, COLUMNS, META, shard_rows=shard_rows, **kwargs) as writer:
        for i in range(writer.resume_at, number):
            writer.append(text(i), upto=i + 1)
    return folder


# --- what is written comes back


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_roundtrip(tmp_path: Path, dtype: str) -> None:
    columns = {"acts": Column(dtype, 6), "score": Column(dtype), "token": Column("int64"), "pair": Column("int64", 2)}
    rows = {
        "acts": torch.randn(300, 6),
        "score": torch.randn(300, dtype=torch.float64),
        "token": torch.arange(300),
        "pair": torch.arange(600).reshape(2, 300).T,  # not contiguous
    }
    with StoreWriter(tmp_path, columns, META, shard_rows=128) as writer:
        for i in range(3):
            writer.append({name: column[100 * i : 100 * i + 100] for name, column in rows.items()}, upto=i + 1)
    found = open_store(tmp_path)
    assert found.columns == columns and found.dtype == dtype and found.meta == META and len(found) == 300
    assert same(everything(found), {name: column.to(columns[name].torch_dtype) for name, column in rows.items()})
    assert same(joined(list(found.blocks(7))), everything(found))
    assert "300 rows of 3 texts in 3 shards" in repr(found) and f"acts {dtype} x 6" in repr(found)


def test_a_block_is_copied(tmp_path: Path) -> None:
    block = text(0)
    with StoreWriter(tmp_path, COLUMNS) as writer:
        writer.append(block, upto=1)
        block[SITE].zero_()
    assert same(everything(open_store(tmp_path)), text(0))


def test_shards_are_plain_safetensors(tmp_path: Path) -> None:
    files = sorted(filled(tmp_path, shard_rows=30).glob("*.safetensors"))
    assert len(files) > 1 and same(joined([load_file(file) for file in files]), texts(0, 40))
    assert all(int.from_bytes(file.read_bytes()[:8], "little") % 8 == 0 for file in files)


@pytest.mark.parametrize("shard_rows", [1, 7, 1000])
def test_odd_blocks_are_one_big_concatenation(tmp_path: Path, shard_rows: int) -> None:
    done, sizes = 0, random.Random(0)
    with StoreWriter(tmp_path, COLUMNS, shard_rows=shard_rows) as writer:
        while done < 60:
            stop = min(60, done + sizes.randint(1, 9))
            writer.append(texts(done, stop), upto=stop)
            done = stop
    found = open_store(tmp_path)
    assert same(everything(found), texts(0, 60)) and found.manifest.upto == 60
    assert (len(found.manifest.shards) == 1) == (shard_rows == 1000)
    for start, stop in ((0, 0), (3, 4), (5, 57), (len(found), len(found))):
        assert same(found.read(start, stop), {name: rows[start:stop] for name, rows in texts(0, 60).items()})


def test_shards_hold_whole_blocks(tmp_path: Path) -> None:
    found = open_store(filled(tmp_path, shard_rows=9))
    begin = 0
    for shard in found.manifest.shards:
        assert shard.rows == len(texts(begin, shard.upto)["text_index"]) <= 9
        begin = shard.upto
    assert begin == found.manifest.upto == 40


def test_columns_can_be_chosen(tmp_path: Path) -> None:
    found = open_store(filled(tmp_path))
    assert list(found.read(0, 3, ["position"])) == ["position"]
    assert list(next(found.blocks(columns=[SITE]))) == [SITE]
    assert list(next(found.shuffled(0, columns=["position", SITE]))) == ["position", SITE]
    with pytest.raises(ValueError, match="no column 'positon': did you mean 'position'"):
        found.blocks(columns=["positon"])
    with pytest.raises(ValueError, match=f"rows 3 to {len(found) + 1} of {len(found)}"):
        found.read(3, len(found) + 1)


def test_texts_without_rows_and_empty_stores(tmp_path: Path) -> None:
    columns = columns_like(text(0), "float16")
    assert columns == {**COLUMNS, SITE: Column("float16", WIDTH)}
    with StoreWriter(tmp_path, COLUMNS) as writer:
        assert writer.resume_at == 0
    assert len(open_store(tmp_path)) == 0 and not list(open_store(tmp_path).shuffled(0))
    with StoreWriter(tmp_path, COLUMNS) as writer:
        writer.append({name: rows[:0] for name, rows in text(0).items()}, upto=3)
    with StoreWriter(tmp_path, COLUMNS) as writer:
        assert writer.resume_at == 3


@pytest.mark.parametrize("block_rows", [1, 4, 1000])
def test_runs_of_rows(tmp_path: Path, block_rows: int) -> None:
    found, runs = open_store(filled(tmp_path, shard_rows=9)), [(0, 3), (5, 6), (6, 6), (11, 40), (70, 73)]
    whole = everything(found)
    expected = joined([{name: rows[a:b] for name, rows in whole.items()} for a, b in runs])
    assert same(joined(list(found.blocks(block_rows, rows=runs))), expected)
    batches = list(found.shuffled(1, batch_size=4, buffer_rows=12, block_rows=block_rows, rows=runs))
    assert sorted(keys(batches)) == sorted(keys([expected])) and all(len(batch[SITE]) == 4 for batch in batches[:-1])
    assert list(found.blocks(rows=[])) == list(found.shuffled(0, rows=[])) == []
    with pytest.raises(ValueError, match=f"rows 70 to 999 of {len(found)}"):
        found.blocks(rows=[(70, 999)])


@pytest.mark.parametrize("block_rows", [4, 7, 1000])
def test_rows_change_places(tmp_path: Path, block_rows: int) -> None:
    found = open_store(filled(tmp_path, shard_rows=9))
    plain = everything(found)
    mixed = replace(found, exchange=Exchange(frozenset([SITE, "position"]), 3, block_rows))
    whole = everything(mixed)
    assert list(whole) == list(plain) and torch.equal(whole["text_index"], plain["text_index"])
    order = [int((plain[SITE] == row).all(dim=1).nonzero()[0, 0]) for row in whole[SITE]]
    assert sorted(order) == list(range(len(found))) != order, "every row once"
    assert torch.equal(whole["position"], plain["position"][torch.tensor(order)]), "all columns in the same way"
    for read in (mixed.read(13, 29), joined(list(mixed.blocks(5, rows=[(13, 29)])))):
        assert same(read, {name: rows[13:29] for name, rows in whole.items()}), "however it is read"
    drawn = joined(list(mixed.shuffled(0, batch_size=8, buffer_rows=16, block_rows=4)))
    assert sorted(map(str, zip(*(drawn[name].tolist() for name in drawn), strict=True))) == sorted(
        map(str, zip(*(whole[name].tolist() for name in whole), strict=True))
    )
    assert same(everything(replace(found, exchange=Exchange(frozenset([SITE, "position"]), 3, block_rows))), whole)
    if block_rows == 4:
        moved = (torch.tensor(order) // 4 != torch.arange(len(found)) // 4).float().mean()
        assert moved > 0.8, "from elsewhere"
    assert found.exchanged([SITE], 5).exchange == Exchange(frozenset([SITE]), 5)


def test_a_state_is_written_with_its_rows(tmp_path: Path) -> None:
    with StoreWriter(tmp_path, COLUMNS, META, shard_rows=10) as writer:
        assert writer.state == {}
        for i in range(20):
            writer.append(text(i), upto=i + 1, state={"seen": i + 1})
            assert writer.state.get("seen", 0) == writer.resume_at == read_manifest(tmp_path).state.get("seen", 0)
        assert writer.resume_at < 20
        with pytest.raises(ValueError, match="state cannot be written as JSON"):
            writer.append(text(20), upto=21, state={"seen": {1}})
    with StoreWriter(tmp_path, COLUMNS, META) as writer:
        assert writer.state == {"seen": 20}
        writer.append(text(20), upto=21)
    assert read_manifest(tmp_path).state == {"seen": 20}, "it stays as it is"


# --- shuffling


def keys(batches: list[dict[str, Tensor]]) -> list[tuple[int, int]]:
    """Which rows these are; the activations must belong to them."""
    rows = joined(batches)
    assert torch.equal(rows[SITE][:, 0], rows["text_index"] + rows["position"] / 64)
    return list(zip(rows["text_index"].tolist(), rows["position"].tolist(), strict=True))


@pytest.mark.parametrize(
    ("batch_size", "buffer_rows", "block_rows"),
    [(16, 64, 8), (7, 50, 9), (1, 1, 1), (5, 5, 100), (1000, 1000, 3), (3, 10**6, 4)],
)
def test_shuffled_is_every_row_once(tmp_path: Path, batch_size: int, buffer_rows: int, block_rows: int) -> None:
    found = open_store(filled(tmp_path, 100, shard_rows=20))
    sizes: dict[str, Any] = {"batch_size": batch_size, "buffer_rows": buffer_rows, "block_rows": block_rows}
    batches = list(found.shuffled(3, **sizes))
    order = keys(list(found.blocks()))
    assert sorted(keys(batches)) == order
    assert all(keys([batch]) == sorted(keys([batch])) for batch in batches), "in the order of the store"
    assert all(len(batch[SITE]) == batch_size for batch in batches[:-1])
    assert keys(list(found.shuffled(3, **sizes))) == keys(batches)
    if len(batches) > 1:
        assert order != keys(batches) != keys(list(found.shuffled(4, **sizes)))


def test_a_buffer_is_a_batch_at_least(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="batch_size=8, buffer_rows=7"):
        open_store(filled(tmp_path)).shuffled(0, batch_size=8, buffer_rows=7)


def test_shuffling_mixes_shards(tmp_path: Path) -> None:
    found = open_store(filled(tmp_path, 400, shard_rows=20))
    upto = torch.tensor([shard.upto for shard in found.manifest.shards])
    for batch in list(found.shuffled(0, batch_size=64, buffer_rows=256, block_rows=8))[:-1]:
        shards = torch.searchsorted(upto, batch["text_index"], right=True)
        assert len(shards.unique()) >= 12, "a batch of 64 rows from a buffer of 32 blocks"
        assert len(batch["text_index"].unique()) > 40, "the rows of a text come apart; of 64 rows in a row, texts are about 25"
    positions = {key: i for i, key in enumerate(keys(list(found.shuffled(0, batch_size=64, buffer_rows=256, block_rows=8))))}
    where = torch.tensor([positions[key] for key in keys(list(found.blocks()))]).float()
    drift = torch.corrcoef(torch.stack([where, torch.arange(len(found)).float()]))[0, 1]
    assert abs(drift) < 0.3, "blocks come in random order, from all over the store"


def test_shuffling_holds_no_more_than_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = open_store(filled(tmp_path, 400, shard_rows=100))
    batch_size, buffer_rows, block_rows = 16, 128, 32
    mapped_at: set[int] = set()

    def alive() -> int:
        """Rows of this store's activations in memory of their own, not in mapped files."""
        held = [x for x in gc.get_objects() if issubclass(type(x), Tensor) and x.shape[1:] == (WIDTH,)]
        return sum(len(x) for x in held if x.untyped_storage().data_ptr() not in mapped_at)

    gc.freeze()  # what is there already is not looked at
    most = 0
    read = Store._mapped

    def watched(self: Store, *args: Any) -> dict[str, Tensor]:
        rows = read(self, *args)
        mapped_at.add(rows[SITE].untyped_storage().data_ptr())
        return rows

    monkeypatch.setattr(Store, "_mapped", watched)
    seen = 0
    try:
        for batch in found.shuffled(0, batch_size=batch_size, buffer_rows=buffer_rows, block_rows=block_rows):
            seen += len(batch[SITE])
            most = max(most, alive())
    finally:
        gc.unfreeze()
    assert mapped_at
    assert seen == len(found) > 4 * buffer_rows
    assert batch_size <= most <= 2 * batch_size  # the batch before may still be referred to


# --- going on


def test_another_writer_goes_on(tmp_path: Path) -> None:
    for number in (3, 11, 11, 40):
        filled(tmp_path, number)
        assert same(everything(open_store(tmp_path)), texts(0, number))


def test_what_was_appended_before_an_exception_is_kept(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), StoreWriter(tmp_path, COLUMNS, META) as writer:
        writer.append(texts(0, 5), upto=5)
        raise KeyboardInterrupt
    assert same(everything(open_store(tmp_path)), texts(0, 5))
    with pytest.raises(ValueError, match="not open"):
        writer.append(text(5), upto=6)


def test_an_interrupt_during_a_write_doubles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = store.write_manifest

    def interrupted(folder: Path, manifest: Any) -> None:
        write(folder, manifest)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), StoreWriter(tmp_path, COLUMNS, META) as writer:
        writer.append(texts(0, 5), upto=5)
        monkeypatch.setattr(store, "write_manifest", interrupted)
        writer.flush()
    monkeypatch.undo()
    assert same(everything(open_store(filled(tmp_path))), texts(0, 40))


def test_an_interrupt_during_an_append_doubles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> Any:
        monkeypatch.undo()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), StoreWriter(tmp_path, COLUMNS, META) as writer:
        writer.append(texts(0, 5), upto=5)
        monkeypatch.setattr(store, "replace", interrupted)  # the rows are buffered, and how many texts they are is not said
        writer.append(texts(5, 8), upto=8)
    assert same(everything(open_store(filled(tmp_path))), texts(0, 40))


def test_upto_must_go_on(tmp_path: Path) -> None:
    filled(tmp_path, 4)
    with StoreWriter(tmp_path, COLUMNS, META) as writer, pytest.raises(ValueError, match="but the store holds 4 texts already"):
        writer.append(text(3), upto=4)


@pytest.mark.parametrize(
    ("meta", "match"),
    [
        ({**META, "sites": ["a"]}, r"meta\['sites'\] is \['a', 'b'\] in the store, and \['a'\] is asked for"),
        ({**META, "source": {"name": "s", "fingerprint": "xyz"}}, r"meta\['source'\]\['fingerprint'\] is 'abc' in .* 'xyz'"),
        ({**META, "strategy": "x"}, r"meta\['strategy'\] is not in the store, and 'x' is asked for"),
        ({"sites": ["a", "b"]}, r"meta\['source'\] is .*, and not given"),
    ],
)
def test_foreign_meta_is_refused(tmp_path: Path, meta: Any, match: str) -> None:
    filled(tmp_path)
    with pytest.raises(ValueError, match=match), StoreWriter(tmp_path, COLUMNS, meta):
        pass
    with StoreWriter(tmp_path, COLUMNS, {**META, "sites": ("a", "b")}):
        pass  # a tuple is a list once it is written; and the lock was let go of
    with (
        pytest.raises(ValueError, match=r"columns\['position'\]\['dtype'\] is 'int64'"),
        StoreWriter(tmp_path, {**COLUMNS, "position": Column("float32")}, META),
    ):
        pass


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with StoreWriter(tmp_path, COLUMNS, META) as writer:
        with (
            pytest.raises(ValueError, match=f"another writer is at work in '{tmp_path}'"),
            StoreWriter(tmp_path, COLUMNS, META),
        ):
            pass
        writer.append(text(0), upto=1)
    assert same(everything(open_store(filled(tmp_path, 3))), texts(0, 3))


def test_reading_while_a_writer_is_at_work(tmp_path: Path) -> None:
    filled(tmp_path, 10)
    with StoreWriter(tmp_path, COLUMNS, META, shard_rows=1) as writer:
        found = open_store(tmp_path)
        writer.append(texts(10, 20), upto=20)
        assert same(everything(found), texts(0, 10)) and len(open_store(tmp_path)) > len(found)


# --- kills and full disks


def write_until_killed(folder: str, go: Any) -> None:
    torch.set_num_threads(1)
    with StoreWriter(folder, COLUMNS, META, shard_rows=6) as writer:
        for i in range(writer.resume_at, 10**6):
            go.send_bytes(b"go")
            writer.append(text(i), upto=i + 1)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs fork and SIGKILL")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_kills_lose_and_double_nothing(tmp_path: Path) -> None:
    # Forked, since importing torch twenty times over would take most of the time.
    context, moments = multiprocessing.get_context("fork"), random.Random(0)
    reached, halfway = [0], 0
    for _ in range(20):
        here, there = context.Pipe()
        child = context.Process(target=write_until_killed, args=(str(tmp_path), there))
        child.start()
        try:
            for _ in range(moments.randint(1, 15)):  # counted, not timed: a busy machine gets on as well
                assert here.poll(30), "the child stands still"
                here.recv_bytes()
            time.sleep(moments.uniform(0, 0.02))
            assert child.is_alive()
        finally:
            child.kill()
            child.join()
            here.close()
            there.close()
        halfway += bool(leftovers(tmp_path))
        found = open_store(tmp_path)
        upto = found.manifest.upto
        assert not upto or same(everything(found), texts(0, upto)), "what is in is what belongs there"
        reached.append(upto)
    assert reached == sorted(reached) and len(set(reached)) > 10, "most of them got on before they were killed"
    assert halfway > 0, "some were killed while they wrote"
    filled(tmp_path, reached[-1] + 17)
    found = open_store(tmp_path)
    assert same(everything(found), texts(0, reached[-1] + 17))
    assert leftovers(tmp_path) == []


def leftovers(folder: Path) -> list[str]:
    known = {MANIFEST, ".lock", *(shard.file for shard in read_manifest(folder).shards)}
    return sorted(file.name for file in folder.iterdir() if file.name not in known)


def test_a_kill_between_shard_and_manifest(tmp_path: Path) -> None:
    before = (filled(tmp_path, 10) / MANIFEST).read_bytes()
    filled(tmp_path, 40)
    (tmp_path / MANIFEST).write_bytes(before)  # the shards after the tenth text are orphans now
    (tmp_path / ".shard-00099.safetensors.part").write_bytes(b"half")
    assert len(leftovers(tmp_path)) > 2
    assert same(everything(open_store(tmp_path)), texts(0, 10)), "a reader never looks at them"
    with StoreWriter(tmp_path, COLUMNS, META) as writer:
        assert writer.resume_at == 10 and leftovers(tmp_path) == []
    assert same(everything(open_store(filled(tmp_path, 25))), texts(0, 25))


@pytest.mark.parametrize("room", range(0, 9))
def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    """Whatever piece of whatever file is the first that does not fit."""
    filled(tmp_path, 10)
    write, left = store_manifest._write_piece, room

    def full(out: Any, piece: memoryview) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            write(out, piece[: piece.nbytes // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        write(out, piece)

    monkeypatch.setattr(store_manifest, "_write_piece", full)
    with StoreWriter(tmp_path, COLUMNS, META, shard_rows=4) as writer:
        with pytest.raises(OSError) as caught:
            for i in range(10, 40):
                writer.append(text(i), upto=i + 1)
        with pytest.raises(ValueError, match="stopped when a write failed"):
            writer.append(text(39), upto=40)
    assert caught.value.errno == errno.ENOSPC
    found = open_store(tmp_path)
    assert f"{len(found)} rows of the first {writer.resume_at} texts are safe" in str(caught.value)
    assert not list(tmp_path.glob(".*.part"))
    assert same(everything(found), texts(0, writer.resume_at))
    monkeypatch.undo()
    assert same(everything(open_store(filled(tmp_path, 30))), texts(0, 30)) and leftovers(tmp_path) == []


# --- rows that cannot be stored


def spoiled() -> Iterator[dict[str, Tensor]]:
    for i in range(3, 13, 3):
        block = texts(i - 3, i)
        if i == 9:  # texts 6 to 8
            block[SITE][1, 2], block[SITE][4, 0] = float("nan"), float("-inf")
        yield block


def test_bad_rows_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError) as caught, StoreWriter(tmp_path, COLUMNS, META) as writer:
        for i, block in enumerate(spoiled()):
            writer.append(block, upto=3 * i + 3)
    first = int(texts(6, 9)["text_index"][1])
    rows = len(texts(6, 9)[SITE])
    assert f"column '{SITE}': 2 of {rows} rows, the first in text {first}, hold NaN or infinity" in str(caught.value)
    assert same(everything(open_store(tmp_path)), texts(0, 6)), "the blocks before it are in"


def test_bad_rows_are_dropped_and_counted(tmp_path: Path) -> None:
    for seen, upto in ((3, 9), (4, 12)):  # the count goes on with the store
        with StoreWriter(tmp_path, COLUMNS, META, drop_bad=True) as writer:
            for i, block in list(enumerate(spoiled()))[writer.resume_at // 3 : seen]:
                writer.append(block, upto=3 * i + 3)
        found = open_store(tmp_path)
        assert found.manifest.dropped == 2 and found.manifest.upto == upto and "2 rows dropped" in repr(found)
    whole = joined(list(spoiled()))
    keep = torch.isfinite(whole[SITE]).all(dim=1)
    assert same(everything(found), {name: rows[keep] for name, rows in whole.items()})


@pytest.mark.parametrize("drop_bad", [True, False])
def test_overflow_is_refused(tmp_path: Path, drop_bad: bool) -> None:
    columns = {**COLUMNS, SITE: Column("float16", WIDTH)}
    block = texts(0, 5)
    block[SITE][3, 1] = 70000.0
    match = (
        f"column '{SITE}': 1 of {len(block[SITE])} rows, the first in text .* beyond 65504, .* float16 .* bfloat16 or float32"
    )
    with StoreWriter(tmp_path / "half", columns, drop_bad=drop_bad) as writer, pytest.raises(ValueError, match=match):
        writer.append(block, upto=5)
    with StoreWriter(tmp_path / "wide", {**columns, SITE: Column("bfloat16", WIDTH)}) as writer:
        writer.append(block, upto=5)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"position": None}, r"lacks the columns \['position'\]"),
        ({"extra": torch.zeros(2)}, r"has \['extra'\] too many"),
        ({SITE: torch.zeros(2, 6)}, r"has shape \(2, 6\), and \(2, 5\) is expected"),
        ({"position": torch.zeros(3).long()}, r"has shape \(3,\)"),
        ({"position": torch.zeros(2)}, "stored as int64, and the block has torch.float32"),
        ({"position": torch.zeros(2).bool()}, "torch.bool"),
        ({SITE: torch.zeros(2, 5).long()}, "stored as float32, and the block has torch.int64"),
    ],
)
def test_blocks_that_do_not_fit(tmp_path: Path, change: dict[str, Any], match: str) -> None:
    block = {name: rows for name, rows in ({**text(0), **change}).items() if rows is not None}
    assert len(text(0)[SITE]) == 2
    with StoreWriter(tmp_path, COLUMNS) as writer, pytest.raises(ValueError, match=match):
        writer.append(block, upto=1)
    assert len(open_store(tmp_path)) == 0


def test_what_makes_no_store(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="dtype 'float64'"):
        Column("float64", 3)
    with pytest.raises(ValueError, match="width 0"):
        Column("float32", 0)
    with pytest.raises(ValueError, match="meta cannot be written as JSON"):
        StoreWriter(tmp_path, COLUMNS, {"x": torch.zeros(1)})
    with pytest.raises(ValueError, match="at least one"):
        StoreWriter(tmp_path, {})
    with pytest.raises(ValueError, match="shard_rows=0"):
        StoreWriter(tmp_path, COLUMNS, shard_rows=0)


# --- damage


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-3])


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-20] ^= 4
    file.write_bytes(data)


@pytest.mark.parametrize(
    ("harm", "match"), [(truncate, "shard-00002.safetensors is truncated"), (Path.unlink, "shard-00002.safetensors is missing")]
)
def test_missing_and_truncated_shards_are_named(tmp_path: Path, harm: Any, match: str) -> None:
    found = open_store(filled(tmp_path))
    harm(tmp_path / "shard-00002.safetensors")
    for refuses in (
        lambda: open_store(tmp_path),
        lambda: open_store(tmp_path, check=False),
        lambda: everything(found),
        lambda: list(found.shuffled(0)),
        lambda: filled(tmp_path, 50),
    ):
        with pytest.raises(ValueError, match=match):
            refuses()


def test_a_flipped_bit_is_named(tmp_path: Path) -> None:
    damaged = filled(tmp_path) / "shard-00002.safetensors"
    flip(damaged)
    found = open_store(tmp_path)
    for refuses in (lambda: everything(found), lambda: list(found.blocks()), lambda: list(found.shuffled(0))):
        with pytest.raises(ValueError, match=r"shard-00002.safetensors has changed .* Restore these files from a copy"):
            refuses()
    rows = [shard.rows for shard in found.manifest.shards]
    assert len(found.read(0, rows[0] + rows[1])[SITE]) == rows[0] + rows[1], "what lies before it is readable"
    assert not same(everything(open_store(tmp_path, check=False)), texts(0, 40)), "whoever does not look gets the flipped bit"
    damaged.write_bytes(b"\xff" * damaged.stat().st_size)
    with pytest.raises(ValueError, match="shard-00002.safetensors cannot be read"):
        everything(open_store(tmp_path, check=False))


def test_every_damaged_shard_is_named(tmp_path: Path) -> None:
    truncate(filled(tmp_path) / "shard-00001.safetensors")
    (tmp_path / "shard-00003.safetensors").unlink()
    with pytest.raises(ValueError, match=r"shard-00001.* shard-00003"):
        open_store(tmp_path)


def test_each_shard_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []
    checksum = store_reading.file_hash
    monkeypatch.setattr(store_reading, "file_hash", lambda file: (hashed.append(file.name), checksum(file))[1])
    filled(tmp_path)
    for check in (False, True, True):
        found = open_store(tmp_path, check=check)
        assert same(everything(found), joined(list(found.blocks(3))))
        assert sorted(hashed) == ([shard.file for shard in found.manifest.shards] if check else [])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda said: json.dumps(said)[:-40], "damaged or foreign"),
        (lambda said: "[]", "damaged or foreign"),
        (lambda said: json.dumps({**said, "format": "interp_transfer.store/9"}), "its format is 'interp_transfer.store/9'"),
        (lambda said: json.dumps({**said, "upto": "four"}), "upto.* is not an instance of int"),
        (lambda said: json.dumps({**said, "colour": 1}), "colour"),
        (lambda said: json.dumps({k: v for k, v in said.items() if k != "dropped"}), "dropped"),
        (lambda said: json.dumps({**said, "shards": [*said["shards"][:-1], {"file": "x"}]}), "rows"),
        (lambda said: json.dumps({**said, "shards": said["shards"][1:]}), "not numbered from 0"),
        (lambda said: json.dumps({**said, "columns": {"x": {"dtype": "int8", "width": 3}}}), "dtype 'int8'"),
        (lambda said: json.dumps({**said, "columns": {"x": {"dtype": "int64", "width": 10**12}}}), "too small for its rows"),
        (lambda said: json.dumps({**said, "dropped": 7}), "does not fit its digest"),
        (lambda said: json.dumps({**said, "upto": 2**70}), "beyond 64 bits"),
        (lambda said: json.dumps({**said, "shards": [{**said["shards"][0], "sha256": "\x1b[2J"}]}), "a shard of .* sha256"),
        (lambda said: json.dumps({**said, "shards": [{**said["shards"][0], "rows": -1}]}), "a shard of -1 rows"),
        (lambda said: json.dumps({**said, "x" * 10_000: 7}), "x{100}"),
    ],
)
def test_damaged_manifests_are_named(tmp_path: Path, change: Any, match: str) -> None:
    path = filled(tmp_path) / MANIFEST
    files = sorted(tmp_path.glob("shard-*"))
    path.write_text(change(json.loads(path.read_text())))
    for refuses in (lambda: open_store(tmp_path), lambda: filled(tmp_path, 50)):
        with pytest.raises(ValueError, match=match) as caught:
            refuses()
        assert MANIFEST in str(caught.value) and len(str(caught.value)) < 800 and str(caught.value).isprintable()
    assert sorted(tmp_path.glob("shard-*")) == files


def test_a_store_without_its_manifest_is_not_overwritten(tmp_path: Path) -> None:
    (filled(tmp_path) / MANIFEST).unlink()
    with pytest.raises(ValueError, match=f"holds shard-00000.safetensors, but no {MANIFEST}"):
        filled(tmp_path)
    with pytest.raises(ValueError, match="holds no store"):
        open_store(tmp_path)
    with pytest.raises(ValueError, match="holds no store"):
        open_store(tmp_path / "nowhere")


def test_a_manifest_without_a_digest_is_read(tmp_path: Path) -> None:
    path = filled(tmp_path) / MANIFEST
    plain = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in plain.items() if key != "digest"}))
    assert len(open_store(tmp_path)) == sum(shard["rows"] for shard in plain["shards"])


def test_a_shard_that_is_a_link_to_itself_is_named(tmp_path: Path) -> None:
    shard = filled(tmp_path) / "shard-00000.safetensors"
    shard.unlink()
    shard.symlink_to(shard.name)
    with pytest.raises(ValueError, match="shard-00000.safetensors cannot be read"):
        open_store(tmp_path)
