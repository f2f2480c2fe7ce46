"""Damage the files of an artifact: seeded, so that a kind and a seed always give the same bytes.

An artifact is a dictionary of names and contents. In a damaged one a content may also be ``FOLDER`` (a folder is in the file's
place) or a ``Link``; a name that lacks is a missing file. Bytes are damaged anywhere. JSON, TOML, the header of a safetensors
file and the texts of a GGUF file are also read, changed as a tree and written again, so that the damage is well-formed.
"""

import copy
import json
import random
import struct
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Link:
    """A symbolic link to a name in the same folder, or to itself."""

    target: str


FOLDER = Link("")
"""Marks a folder in the place of a file."""

Files = Mapping[str, bytes]
Damaged = dict[str, bytes | Link]

_RAW = {  # what json.dumps cannot write, by the text that stands for it
    "\x01deep list": "[" * 20_000 + "]" * 20_000,
    "\x01deep object": '{"a":' * 5_000 + "1" + "}" * 5_000,
    "\x01digits": "9" * 5_000,
    "\x01exponent": "1e999",
    "\x01minus": "-0.0",
    "\x01nan": "NaN",
    "\x01infinity": "-Infinity",
}
_TWICE = "\x01twice"
NUMBERS = (0, 1, -1, 2, 255, 2**31, 2**63, -(2**63), 10**12, 10**400, 1e308, 5e-324, 0.5, "\x01digits", "\x01exponent")
NUMBERS += ("\x01minus", "\x01nan", "\x01infinity")
LONG = ("x" * 100_000, "é" * 30_000, "a\n" * 20_000, "[" * 50_000)
SURROGATES = ("\ud800", "a\udfffb", "\ud83d\ude00", "\x00", "a\nb\rc\u2028d", "\x1b[2J", "\ufeff")
PATHS = ("../../x", "/etc/passwd", "~/x", "C:\\x", "file:///etc/passwd", "a/../../b", "/dev/zero", "..")
MODULES = (
    "os:system",
    "antigravity",
    "planted_module",
    "planted_module:run",
    "interp_transfer.io",
    "builtins:exec",
    "__main__",
)
TYPES = (None, True, False, 0, 1.5, "", "text", [], {}, [1], {"a": 1}, [[]], [None], {"": {}})
SPECIAL = (0, 1, 2**16, 2**31 - 1, 2**32 - 1, 2**40, 2**53, 2**63 - 1, 2**63, 2**64 - 1, 10**12)


def mutate(files: Files, other: Files, targets: list[str], rng: random.Random) -> tuple[str, Damaged]:
    """Return the names of the mutations, one or two, and the damaged artifact.

    Args:
        files: the artifact.
        other: another one of the same kind.
        targets: the files that may be damaged.
        rng: draws everything.
    """
    damaged: Damaged = dict(files)
    names = []
    for _ in range(1 if rng.random() < 0.85 else 2):
        name = rng.choice(list(MUTATIONS))
        file = rng.choice(targets)
        content = damaged.get(file)
        if isinstance(content, bytes):
            damaged.pop(file)
            if (made := MUTATIONS[name](file, content, other, rng)) is not None:
                damaged[file] = made
            names.append(name)
    return "+".join(names), damaged


def _bit(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 8)) if out else 0):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def _byte(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 4, 32)) if out else 0):
        out[rng.randrange(len(out))] = rng.randrange(256)
    return bytes(out)


def _block(data: bytes, rng: random.Random) -> tuple[int, int]:
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + rng.choice((1, 4, 8, 16, 64, 256)))


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _removed(data: bytes, rng: random.Random) -> bytes:
    start, stop = _block(data, rng)
    return data[:start] + data[stop:]


def _doubled(data: bytes, rng: random.Random) -> bytes:
    start, stop = _block(data, rng)
    return data[:stop] + data[start:stop] * rng.choice((1, 1, 50)) + data[stop:]


def _swapped(data: bytes, rng: random.Random) -> bytes:
    a, b, c, d = sorted((*_block(data, rng), *_block(data, rng)))
    return data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


def _appended(data: bytes, rng: random.Random) -> bytes:
    return data + rng.choice((b"\x00", b"\n", b"}", b"\xff\xfe", rng.randbytes(200), data))


def _zeros(data: bytes, rng: random.Random) -> bytes:
    start, stop = _block(data, rng)
    return data[:start] + bytes(stop - start) + data[stop:]


def _huge_length(data: bytes, rng: random.Random) -> bytes:
    """A length, an offset or a count, most of which are in the first bytes, is replaced by a special one."""
    wide = rng.choice((4, 8))
    place = rng.choice((0, 4, 8, 16, 24, 32, rng.randrange(200), rng.randrange(len(data) + 1)))
    number = rng.choice(SPECIAL) % 256**wide
    return data[:place] + number.to_bytes(wide, "little") + data[place + wide :]


_BYTES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "bit flip": _bit,
    "byte replaced": _byte,
    "cut": _cut,
    "block removed": _removed,
    "block doubled": _doubled,
    "blocks swapped": _swapped,
    "rubbish appended": _appended,
    "zeros": _zeros,
    "huge length": _huge_length,
}


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every container of a tree with a key or an index in it."""
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
        yield tree, key
        if isinstance(tree[key], dict | list):
            yield from _places(tree[key])


def _set(tree: Any, value: Any, rng: random.Random) -> Any:
    places = list(_places(tree)) if isinstance(tree, dict | list) else []
    if not places or rng.random() < 0.03:
        return value
    container, key = rng.choice(places)
    container[key] = value
    return tree


def _key(tree: Any, change: Callable[[dict, str], None], rng: random.Random) -> Any:
    places = [(c, k) for c, k in (_places(tree) if isinstance(tree, dict | list) else ()) if isinstance(c, dict)]
    if places:
        change(*rng.choice(places))
    return tree


def _rename(container: dict, key: str, rng: random.Random) -> None:
    value = container.pop(key)
    container[rng.choice((key + "x", key.upper(), "", key[:-1], "x" * 10_000, "\ud800", "__class__", "a\nb"))] = value


def _double(container: dict, key: str, rng: random.Random) -> None:
    container[key + _TWICE] = rng.choice((container[key], *TYPES))


_TREES: dict[str, Callable[[Any, random.Random], Any]] = {
    "other type": lambda tree, rng: _set(tree, copy.deepcopy(rng.choice(TYPES)), rng),
    "key removed": lambda tree, rng: _key(tree, lambda container, key: container.pop(key), rng),
    "key doubled": lambda tree, rng: _key(tree, lambda container, key: _double(container, key, rng), rng),
    "key renamed": lambda tree, rng: _key(tree, lambda container, key: _rename(container, key, rng), rng),
    "odd number": lambda tree, rng: _set(tree, rng.choice(NUMBERS), rng),
    "deep nesting": lambda tree, rng: _set(tree, rng.choice(("\x01deep list", "\x01deep object")), rng),
    "long text": lambda tree, rng: _set(tree, rng.choice(LONG), rng),
    "surrogate": lambda tree, rng: _set(tree, rng.choice(SURROGATES), rng),
    "path": lambda tree, rng: _set(tree, rng.choice(PATHS), rng),
    "module": lambda tree, rng: _set(tree, rng.choice(MODULES), rng),
}


def _dumped(tree: Any, rng: random.Random) -> str:
    text = json.dumps(tree, ensure_ascii=rng.random() < 0.5).replace(json.dumps(_TWICE)[1:-1], "")
    for name, raw in _RAW.items():
        text = text.replace(json.dumps(name), raw)
    return text


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


def _toml_text(tree: Any) -> str:
    lines = [f"{json.dumps(key)} = {_toml(value)}" for key, value in tree.items()] if isinstance(tree, dict) else [_toml(tree)]
    text = "\n".join(lines).replace(json.dumps(_TWICE)[1:-1], "")
    for name, raw in _RAW.items():
        text = text.replace(json.dumps(name), raw.replace(":", "=").replace("NaN", "nan").replace("Infinity", "inf"))
    return text + "\n"


_NO_TREE = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError, struct.error)


def _in_tree(file: str, data: bytes, change: Callable[[Any, random.Random], Any], rng: random.Random) -> bytes:
    """The file with its tree changed; a file without a readable tree as it is."""
    try:
        suffix = file.rpartition(".")[2]
        if suffix == "json":
            return _encoded(_dumped(change(json.loads(data), rng), rng))
        if suffix == "jsonl":
            lines = data.decode().splitlines()
            index = rng.randrange(len(lines))
            lines[index] = _dumped(change(json.loads(lines[index]), rng), rng)
            return _encoded("\n".join(lines))
        if suffix == "toml":
            return _encoded(_toml_text(change(tomllib.loads(data.decode()), rng)))
        if suffix == "safetensors":
            size = int.from_bytes(data[:8], "little")
            tree = _with_inner(json.loads(data[8 : 8 + size]), change, rng)
            header = _encoded(_dumped(tree, rng))
            return len(header).to_bytes(8, "little") + header + data[8 + size :]
        if suffix == "gguf":
            return _gguf(data, change, rng)
    except _NO_TREE:  # two mutations: the first one left no tree
        pass
    return data


def _with_inner(header: dict, change: Callable[[Any, random.Random], Any], rng: random.Random) -> Any:
    """The header of a safetensors file changed, or the JSON in one text of its metadata."""
    texts = [key for key, text in header.get("__metadata__", {}).items() if text[:1] in "[{"]
    if not texts or rng.random() < 0.6:
        return change(header, rng)
    key = rng.choice(texts)
    header["__metadata__"][key] = _dumped(change(json.loads(header["__metadata__"][key]), rng), rng)
    return header


_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
ALIGNMENT = 32


def gguf_texts(data: bytes) -> list[tuple[int, int]]:
    """Offset and length of each text among the values of a GGUF file."""
    (count,) = struct.unpack_from("<Q", data, 16)
    place, texts = 24, []
    for _ in range(count):
        place += 8 + struct.unpack_from("<Q", data, place)[0]
        (kind,) = struct.unpack_from("<I", data, place)
        place += 4
        if kind == 8:
            (size,) = struct.unpack_from("<Q", data, place)
            texts.append((place + 8, size))
            place += 8 + size
        elif kind == 9:
            inner, length = struct.unpack_from("<IQ", data, place)
            place += 12
            for _ in range(length):
                place += _SIZES[inner] if inner in _SIZES else 8 + struct.unpack_from("<Q", data, place)[0]
        else:
            place += _SIZES[kind]
    return texts


def _gguf(data: bytes, change: Callable[[Any, random.Random], Any], rng: random.Random) -> bytes:
    """The file with one of its texts changed; JSON as a tree. Spaces keep the alignment of the tensors."""
    start, size = rng.choice(gguf_texts(data))
    old = data[start : start + size].decode()
    tree = json.loads(old) if old[:1] == "{" and old[1:2] != "%" else [old]
    changed = change(tree, rng)
    new = _encoded(_dumped(changed, rng) if isinstance(tree, dict) else str(changed[0] if changed else ""))
    new += b" " * ((size - len(new)) % ALIGNMENT)
    return data[: start - 8] + len(new).to_bytes(8, "little") + new + data[start + size :]


def _of_bytes(change: Callable[[bytes, random.Random], bytes]) -> Any:
    return lambda _file, data, _other, rng: change(data, rng)


def _of_tree(change: Callable[[Any, random.Random], Any]) -> Any:
    return lambda file, data, _other, rng: _in_tree(file, data, change, rng)


MUTATIONS: dict[str, Callable[[str, bytes, Files, random.Random], bytes | Link | None]] = {
    **{name: _of_bytes(change) for name, change in _BYTES.items()},
    **{name: _of_tree(change) for name, change in _TREES.items()},
    "exchanged": lambda file, _data, other, _rng: other.get(file),
    "folder": lambda _file, _data, _other, _rng: FOLDER,
    "link": lambda file, _data, other, rng: Link(rng.choice((file, "absent", *other))),
    "empty": lambda _file, _data, _other, _rng: b"",
    "missing": lambda _file, _data, _other, _rng: None,
}
"""By name; None removes the file."""
