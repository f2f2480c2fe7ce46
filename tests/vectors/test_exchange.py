"""Steering vectors in files of other tools: the place that a number stands for, what is refused, and that nothing runs."""

import json
import os
import pickle
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from torch import Tensor

import interp_transfer as it
from interp_transfer.models.identity import ModelIdentity
from interp_transfer.vectors.exchange import from_gguf, from_pt, to_gguf
from interp_transfer.vectors.exchange.gguf import control_layer
from interp_transfer.vectors.vector import Contrast, Reference, SteeringVector
from tests.checkpoints import FAMILIES, LAYERS, WIDTH, blocks, first, raw_model

HERE, ELSEWHERE = ModelIdentity("one", "1" * 16), ModelIdentity("other", "2" * 16)
POST, PRE = "blocks.1.hook_resid_post", "blocks.3.hook_resid_pre"
TOKENS = torch.tensor([[5, 6, 7, 8, 9]])


def vector(site: str = POST, seed: int = 0, **changes: Any) -> SteeringVector:
    direction = torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed))
    plain = SteeringVector(direction, site, HERE, (), "difference_in_means", "last", ("found", "moved"))
    return replace(plain, **changes)


def foreign(path: Path, directions: dict[str, np.ndarray], architecture: str = "controlvector", **extra: str) -> Path:
    """A file as repeng writes it."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_string("controlvector.model_hint", "qwen2")
    writer.add_uint32("controlvector.layer_count", len(directions))
    for key, value in extra.items():
        writer.add_string(f"interp_transfer.{key}", value)
    for name, values in directions.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def as_llama_cpp_reads_it(path: Path) -> dict[int, np.ndarray]:
    """The checks of llama.cpp's common_control_vector_load_one, and what each block then adds to its output."""
    width, buffer = -1, np.zeros(0, np.float32)
    for tensor in gguf.GGUFReader(path).tensors:
        prefix, _, number = tensor.name.partition(".")
        assert prefix == "direction" and int(number) >= 1, "invalid direction tensor layer index"
        assert tensor.tensor_type == gguf.GGMLQuantizationType.F32, "invalid (non-F32) direction tensor type"
        assert len(tensor.shape) == 1, "invalid (non-1D) direction tensor shape"
        assert width in (-1, tensor.n_elements), "direction tensor does not match previous dimensions"
        width = int(tensor.n_elements)
        buffer = np.concatenate([buffer, np.zeros(max(0, width * int(number) - len(buffer)), np.float32)])
        buffer[width * (int(number) - 1) : width * int(number)] += tensor.data
    # llama_adapter_cvec::apply: block il (from 0) gets what lies at il - 1; block 0 gets nothing
    return {il: buffer[width * (il - 1) : width * il] for il in range(1, len(buffer) // width + 1)}


def as_repeng_reads_it(path: Path) -> tuple[str, dict[int, np.ndarray]]:
    """What ControlVector.import_gguf does."""
    reader = gguf.GGUFReader(path)
    kind, hint = (reader.get_field(key) for key in ("general.architecture", "controlvector.model_hint"))
    assert kind and str(bytes(kind.parts[-1]), "utf-8") == "controlvector"
    assert hint and len(hint.parts)
    found = {int(t.name.split(".")[1]): t.data for t in reader.tensors if t.name.startswith("direction.")}
    return str(bytes(hint.parts[-1]), "utf-8"), found


@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_does_in_plain_pytorch_what_its_vectors_do_here(
    family: str, wrapped: Callable[[str], Any], folder: Callable[[str], Path], tmp_path: Path
) -> None:
    model = wrapped(family)
    known = it.identity(model)
    written = [vector(site, i, model=known) for i, site in enumerate((POST, PRE, f"blocks.{LAYERS - 1}.hook_resid_post"))]
    path = to_gguf(written, tmp_path / "v.gguf", model)
    added = as_llama_cpp_reads_it(path)
    hint, same = as_repeng_reads_it(path)
    assert hint == {"gpt_neox": "gpt_neox"}.get(family, family) and set(added) == set(same) == {1, 2, 3}
    raw = raw_model(folder(family))

    def add(values: np.ndarray) -> Any:
        plus = torch.from_numpy(values.copy())

        def hook(_module: Any, _inputs: Any, output: Any) -> Any:
            return (first(output) + plus, *output[1:]) if isinstance(output, tuple) else output + plus

        return hook

    handles = [blocks(raw)[il].register_forward_hook(add(values)) for il, values in added.items()]
    with torch.no_grad(), it.applied(model, *[it.add(v) for v in from_gguf(path, model)]):
        torch.testing.assert_close(model(TOKENS), raw(TOKENS).logits, rtol=1e-4, atol=1e-4)
    for handle in handles:
        handle.remove()
    with torch.no_grad():
        assert not torch.allclose(model(TOKENS), raw(TOKENS).logits + 1)  # and the comparison can fail
        torch.testing.assert_close(model(TOKENS), raw(TOKENS).logits, rtol=1e-4, atol=1e-4)


def test_round_trip(tmp_path: Path) -> None:
    contrast = Contrast(torch.randn(3, WIDTH), torch.randn(4, WIDTH))
    written = [vector(PRE, 1, evidence=(contrast,)), vector(POST, 2)]
    read = from_gguf(to_gguf(written, str(tmp_path / "v.gguf")))
    assert [v.site for v in read] == [POST, PRE]  # by block
    for one, other in zip(read, reversed(written), strict=True):
        assert torch.equal(one.direction, other.direction) and one.evidence == ()
        assert (one.site, one.model, one.method) == (other.site, other.model, other.method)
        assert (one.positions, one.history) == (other.positions, other.history)
    assert [p.name for p in tmp_path.iterdir()] == ["v.gguf"]
    to_gguf(vector(seed=9), tmp_path / "v.gguf")  # over it
    assert torch.equal(from_gguf(tmp_path / "v.gguf", HERE)[0].direction, vector(seed=9).direction)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes_become_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    made = vector(direction=torch.randn(WIDTH, dtype=dtype))
    as_llama_cpp_reads_it(to_gguf(made, tmp_path / "v.gguf"))
    assert torch.equal(from_gguf(tmp_path / "v.gguf")[0].direction, made.direction.float())


@pytest.mark.parametrize(
    ("site", "layer"),
    [
        ("blocks.1.hook_resid_post", 1),
        ("blocks.2.hook_resid_pre", 1),
        ("blocks.2.hook_in", 1),
        ("blocks.1.hook_out", 1),
        ("blocks.11.hook_resid_post", 11),
    ],
)
def test_the_number_of_a_place(site: str, layer: int) -> None:
    assert control_layer(site) == layer


@pytest.mark.parametrize(
    ("site", "reason"),
    [
        ("blocks.0.hook_resid_pre", "adds none to the embeddings or to the output of block 0"),
        ("blocks.0.hook_resid_post", "blocks.1.hook_resid_post"),
        ("blocks.1.hook_resid_pre", "blocks.1.hook_resid_post"),
        ("blocks.2.hook_mlp_out", "added to the output of a block"),
        ("blocks.2.hook_resid_mid", r"vector.save\(path\)"),
        ("blocks.2.attn.hook_z", "hook_resid_post or hook_resid_pre"),
        ("hook_embed", "hook_resid_post or hook_resid_pre"),
    ],
)
def test_sites_that_the_format_lacks_are_refused_by_name(site: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        to_gguf(vector(site), tmp_path / "v.gguf")
    assert repr(site) in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_what_one_file_cannot_hold(tmp_path: Path, wrapped: Callable[[str], Any]) -> None:
    with pytest.raises(ValueError, match="one block, 'blocks.1.hook_resid_post' and 'blocks.2.hook_resid_pre'"):
        to_gguf([vector(POST), vector("blocks.2.hook_resid_pre")], tmp_path / "v.gguf")
    with pytest.raises(ValueError, match="of two models"):
        to_gguf([vector(POST), vector(PRE, model=ELSEWHERE)], tmp_path / "v.gguf")
    with pytest.raises(ValueError, match="of two models"):
        to_gguf(vector(POST), tmp_path / "v.gguf", wrapped("qwen2"))
    with pytest.raises(ValueError, match="no vector"):
        to_gguf([], tmp_path / "v.gguf")


def test_our_files_refuse_other_models(tmp_path: Path, wrapped: Callable[[str], Any]) -> None:
    path, model = to_gguf(vector(POST), tmp_path / "v.gguf"), wrapped("qwen2")
    for other in (ELSEWHERE, model):
        with pytest.raises(ValueError, match=r"vectors of one \[1+\], not of .*for_model"):
            from_gguf(path, other)
    rebound = [v.for_model(model) for v in from_gguf(path)]
    assert rebound[0].model == it.identity(model)


def test_files_of_others(tmp_path: Path, wrapped: Callable[[str], Any]) -> None:
    rows = np.random.default_rng(0).standard_normal((3, WIDTH)).astype(np.float32)
    path = foreign(tmp_path / "theirs.gguf", {"direction.3": rows[2], "direction.1": rows[0]})
    with pytest.raises(ValueError, match="does not name the model .*'qwen2'"):
        from_gguf(path)
    read = from_gguf(path, wrapped("qwen2"))
    assert [v.site for v in read] == ["blocks.1.hook_resid_post", "blocks.3.hook_resid_post"]
    assert [v.model for v in read] == [it.identity(wrapped("qwen2"))] * 2
    assert torch.equal(read[1].direction, torch.from_numpy(rows[2])) and "theirs.gguf" in read[0].history[0]
    assert [v.site for v in from_gguf(path, HERE, place="hook_resid_pre")] == [
        "blocks.2.hook_resid_pre",
        "blocks.4.hook_resid_pre",
    ]
    with pytest.raises(ValueError, match="4 blocks"):  # no block comes after the last
        from_gguf(path, wrapped("qwen2"), "hook_resid_pre")
    with pytest.raises(ValueError, match="choose 'hook_resid_post' or"):
        from_gguf(path, HERE, "hook_mlp_out")
    for name in ("direction.0", "direction.2"):  # repeng may write block 0
        assert from_gguf(foreign(tmp_path / "a.gguf", {name: rows[0]}), HERE)[0].site == f"blocks.{name[-1]}.hook_resid_post"


@pytest.mark.parametrize(
    ("directions", "options", "says"),
    [
        ({"direction.1": np.ones(WIDTH + 1, np.float32)}, {}, f"{WIDTH + 1} numbers, this model has d_model {WIDTH}"),
        ({"direction.9": np.ones(WIDTH, np.float32)}, {}, "4 blocks"),
        ({"direction.1": np.ones((2, WIDTH), np.float32)}, {}, "along one axis"),
        ({"direction.1": np.full(WIDTH, np.nan, np.float32)}, {}, "not finite"),
        ({"direction.x": np.ones(WIDTH, np.float32)}, {}, "'direction.x' is no direction"),
        ({"blk.0.attn_q.weight": np.ones(WIDTH, np.float32)}, {"architecture": "llama"}, "architecture is 'llama'"),
        ({}, {}, "holds no direction"),
        (
            {"direction.1": np.ones(WIDTH, np.float32)},
            {"format": "interp_transfer.control_vector/1", "vectors": "{"},
            "damaged",
        ),
    ],
)
def test_wrong_files_are_refused(
    directions: dict[str, np.ndarray], options: dict[str, str], says: str, tmp_path: Path, wrapped: Callable[[str], Any]
) -> None:
    known = it.identity(wrapped("qwen2")).fingerprint if "format" in options else None
    extra = {"fingerprint": known} if known else {}
    path = foreign(tmp_path / "v.gguf", directions, **options, **extra)
    with pytest.raises(ValueError, match=says) as caught:
        from_gguf(path, wrapped("qwen2"))
    assert "v.gguf" in str(caught.value) or "blocks" in str(caught.value)


def test_a_site_that_contradicts_its_number_is_damage(tmp_path: Path) -> None:
    about = {"1": {"site": "blocks.2.hook_resid_post", "method": "", "positions": "", "history": []}}
    path = foreign(
        tmp_path / "v.gguf",
        {"direction.1": np.ones(WIDTH, np.float32)},
        format="interp_transfer.control_vector/1",
        model="one",
        fingerprint="1" * 16,
        processing="none",
        vectors=json.dumps(about),
    )
    with pytest.raises(ValueError, match="not the output of block 1"):
        from_gguf(path)


def test_damaged_gguf_files_are_named(tmp_path: Path) -> None:
    whole = to_gguf([vector(POST), vector(PRE)], tmp_path / "v.gguf").read_bytes()
    path = tmp_path / "half.gguf"
    for length in range(0, len(whole) - WIDTH, 37):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="half.gguf"):
            from_gguf(path)
    with pytest.raises(ValueError, match="no file .*nowhere"):
        from_gguf(tmp_path / "nowhere.gguf")


def test_without_gguf_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = to_gguf(vector(), tmp_path / "v.gguf")
    monkeypatch.setitem(sys.modules, "gguf", None)
    for call in (lambda: to_gguf(vector(), path), lambda: from_gguf(path)):
        with pytest.raises(ValueError, match=r"pip install 'interp-transfer\[gguf\]'"):
            call()


def saved(path: Path, value: Any) -> Path:
    torch.save(value, path)
    return path


@pytest.mark.parametrize(
    ("held", "key"),
    [
        (lambda d: d, None),
        (lambda d: torch.nn.Parameter(d), None),
        (lambda d: d[None, None].double(), None),
        (lambda d: {"direction": d, "layer": 3, "note": "theirs"}, None),
        (lambda d: {12: d, 13: -d}, 12),
        (lambda d: {12: d, 13: -d}, "12"),
        (lambda d: {"12": d, "13": -d}, 12),
        (lambda d: torch.stack([-d, d, 2 * d]), 1),
    ],
)
def test_pt_files(held: Callable[[Tensor], Any], key: Any, tmp_path: Path, wrapped: Callable[[str], Any]) -> None:
    direction = torch.randn(WIDTH)
    found = from_pt(saved(tmp_path / "v.pt", held(direction)), PRE, wrapped("qwen2"), key)
    assert torch.equal(found.direction, direction) and not found.direction.requires_grad
    assert (found.site, found.model, found.evidence) == (PRE, it.identity(wrapped("qwen2")), ())
    assert "v.pt" in found.history[0]
    with torch.no_grad(), it.applied(wrapped("qwen2"), it.add(found)):
        wrapped("qwen2")(TOKENS)


def test_a_pt_direction_takes_reference_activations(tmp_path: Path) -> None:
    path, rows = saved(tmp_path / "v.pt", torch.ones(WIDTH)), torch.randn(6, WIDTH)
    found = from_pt(path, PRE, HERE, reference=rows)
    assert isinstance(found.evidence, Reference) and torch.equal(found.evidence.activations, rows)
    with pytest.raises(ValueError, match="width 3"):
        from_pt(path, PRE, HERE, reference=torch.randn(6, 3))


@pytest.mark.parametrize(
    ("held", "key", "says"),
    [
        ({3: torch.ones(WIDTH), 4: torch.ones(WIDTH)}, None, "several tensors: choose one by key=, of 3, 4"),
        ({3: torch.ones(WIDTH)}, 5, "no tensor 5: choose one by key=, of 3"),
        (torch.ones(3, WIDTH), None, "key= from 0 to 2"),
        (torch.ones(3, WIDTH), 3, "key= from 0 to 2"),
        (torch.ones(WIDTH), 0, "leave key out"),
        (torch.ones(2, 3, WIDTH), None, r"\(2, 3, 16\).*along one axis"),
        (torch.ones(WIDTH, dtype=torch.long), None, "int64.*floating-point"),
        (torch.full((WIDTH,), torch.inf), None, "not finite"),
        (torch.ones(WIDTH + 1), None, "17 numbers, this model has d_model 16"),
        ({"inside": {"deeper": torch.ones(WIDTH)}}, None, "holds no tensor but a dict"),
        ([torch.ones(WIDTH)], None, "holds no tensor but a list"),
    ],
)
def test_unclear_pt_files_are_refused(held: Any, key: Any, says: str, tmp_path: Path, wrapped: Callable[[str], Any]) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        from_pt(saved(tmp_path / "v.pt", held), PRE, wrapped("qwen2"), key)
    assert "v.pt" in str(caught.value)


class Runs:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return (os.mkdir, (os.environ["TRAP"],))


@pytest.mark.parametrize("write", [torch.save, lambda value, path: Path(path).write_bytes(pickle.dumps(value, 2))])
def test_a_pickle_that_wants_more_is_refused_and_does_not_run(
    write: Callable[[Any, Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trap, path = tmp_path / "trap", tmp_path / "v.pt"
    monkeypatch.setenv("TRAP", str(trap))
    write({"direction": torch.ones(WIDTH), "extra": Runs()}, path)
    with pytest.raises(ValueError, match="could run code on this machine, so it is not read.*torch.save"):
        from_pt(path, PRE, HERE)
    assert not trap.exists()
    pickle.loads(pickle.dumps(Runs()))
    assert trap.exists()  # and the trap works


def test_missing_damaged_and_misplaced_pt_files(tmp_path: Path, wrapped: Callable[[str], Any]) -> None:
    whole = saved(tmp_path / "v.pt", torch.ones(WIDTH)).read_bytes()
    for content in (b"", b"no pickle", whole[: len(whole) // 2]):
        (tmp_path / "half.pt").write_bytes(content)
        with pytest.raises(ValueError, match="half.pt' is damaged"):
            from_pt(tmp_path / "half.pt", PRE, HERE)
    for missing in (tmp_path / "nowhere.pt", tmp_path):
        with pytest.raises(ValueError, match="there is no file"):
            from_pt(missing, PRE, HERE)
    with pytest.raises(ValueError, match="did you mean"):
        from_pt(tmp_path / "v.pt", "blocks.3.resid_pre", wrapped("qwen2"))


def test_a_changed_bit_of_our_file_is_noticed(tmp_path: Path) -> None:
    path = to_gguf([vector(POST)], tmp_path / "v.gguf")
    whole = path.read_bytes()
    for place in (len(whole) - 1, whole.index(b"difference") + 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(ValueError, match="v.gguf' is damaged: it was changed"):
            from_gguf(path)
    path.write_bytes(whole.replace(b"interp_transfer.digest", b"interp_transfer.another"[:22]))
    assert len(from_gguf(path)) == 1, "older files have no digest"
    path.write_bytes(
        whole.replace(b"interp_transfer.digest", b"interp_transfer.another"[:22]).replace(b"processing", b"prozessing")
    )
    with pytest.raises(ValueError, match="is damaged: .*processing"):
        from_gguf(path)


def test_wrong_texts_of_a_gguf_file_give_one_short_error(tmp_path: Path) -> None:
    path = foreign(tmp_path / "v.gguf", {"direction.1": np.ones(4, np.float32)}, "x" * 100_000)
    with pytest.raises(ValueError, match="v.gguf' is no control vector") as error:
        from_gguf(path)
    assert len(str(error.value)) < 600


def test_a_changed_bit_of_a_pt_file_is_noticed(tmp_path: Path) -> None:
    path = saved(tmp_path / "v.pt", torch.full((WIDTH,), 1.5))
    whole = path.read_bytes()
    place = whole.index(torch.full((WIDTH,), 1.5).numpy().tobytes())
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    with pytest.raises(ValueError, match="v.pt' is damaged .*the checksum of its member"):
        from_pt(path, PRE, HERE)


def test_a_compressed_pt_file_is_not_unpacked(tmp_path: Path) -> None:
    path = saved(tmp_path / "v.pt", torch.zeros(1 << 16))
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "small.pt", "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(ValueError, match="small.pt' is damaged .*compressed"):
        from_pt(tmp_path / "small.pt", PRE, HERE)
