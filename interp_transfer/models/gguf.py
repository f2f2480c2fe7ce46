"""GGUF files, the format of llama.cpp: de-quantized once, and kept as an ordinary checkpoint in the user's cache folder.

transformers de-quantizes a file in a minute and more, and converts its tokenizer in seconds. The result is stored in bfloat16,
whose rounding (2^-9 of a value) is far below the error of the quantization, under the SHA-256 of the file. Later calls read
that folder. Only the original can be exact: files in float16 or float32 lose bits here, too.
"""

from pathlib import Path
from typing import Any

from interp_transfer.extras import MissingExtra, require
from interp_transfer.io import atomic_folder, cache_folder, file_hash
from interp_transfer.names import first_line, quoted

SUFFIX = ".gguf"
_SIZES = ("feed_forward_length", "expert_feed_forward_length", "expert_count")
_SIZES += tuple(f"attention.{name}" for name in ("head_count", "head_count_kv", "key_length", "value_length"))
_TOKENIZER_BYTES = 100_000_000  # more than any tokenizer has
# What gguf raises for damaged files.
_BAD_FILE = (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, MemoryError)


def read_gguf(file: Path) -> Any:
    """Return a ``GGUFReader`` of a file that ends nowhere inside its header.

    Past the end, gguf's own reader takes empty values, so a count of 10^12 would keep it busy, and its memory growing.

    Raises:
        Exception: of many kinds, for a damaged file.
    """
    reader: Any = require("gguf", "gguf", f"{str(file)!r}")

    class Whole(reader.GGUFReader):
        def _get(self, offset: int, dtype: Any, count: Any = 1, *rest: Any, **options: Any) -> Any:
            values = super()._get(offset, dtype, count, *rest, **options)
            if len(values) < int(count):
                raise ValueError("it ends inside its header")
            return values

    return Whole(file)


def dequantized(file: Path) -> tuple[Path, str]:
    """Return the folder in the cache that holds a GGUF file's weights in bfloat16, and the file's SHA-256.

    The first call for a file makes the folder. Processes that need the same file wait for each other.

    Raises:
        ValueError: for a file that is cut or no GGUF file, an architecture that transformers does not convert or that cannot be
            wrapped, no space in the cache folder, or if the package gguf is missing.
    """
    from filelock import FileLock

    digest = file_hash(file)
    folder = cache_folder("gguf", digest)
    if not folder.is_dir():
        parameters = _check(file)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if not folder.is_dir():
                with atomic_folder(folder, 2 * parameters + _TOKENIZER_BYTES) as part:
                    _convert(file, part)
    return folder, digest


def _check(file: Path) -> int:
    """Read the header of a GGUF file, which must describe a complete file; return the number of weights."""
    try:
        content = read_gguf(file)
        _check_size(content)
    except MissingExtra:
        raise
    except _BAD_FILE as error:
        raise ValueError(f"{str(file)!r} is cut or no GGUF file ({first_line(error)}): fetch it again") from error
    return sum(int(tensor.n_elements) for tensor in content.tensors)


def _check_size(content: Any) -> None:
    """Refuse a header whose sizes are not those of the weights: transformers would make a model of the header's sizes.

    Raises:
        ValueError: with both sizes.
    """

    def number(name: str) -> Any:
        field = None if architecture is None else content.get_field(f"{architecture.contents()}.{name}")
        return None if field is None else field.contents()

    architecture = content.get_field("general.architecture")
    width, blocks, tensors = number("embedding_length"), number("block_count"), content.tensors
    for tensor in tensors:
        if tensor.name == "token_embd.weight" and width != int(tensor.shape[0]):
            raise ValueError(f"its embedding_length is {quoted(width)}, and its embeddings are {int(tensor.shape[0])} wide")
    if not isinstance(blocks, int) or blocks > len(tensors):
        raise ValueError(f"its block_count is {quoted(blocks)}, and it has {len(tensors)} tensors")
    largest = max(int(size) for tensor in tensors for size in tensor.shape)
    for name in _SIZES:
        values = number(name)
        for value in values if isinstance(values, list) else [values]:
            if isinstance(value, int) and value > largest:
                raise ValueError(f"its {name} is {quoted(value)}, and no axis of its tensors is longer than {largest}")


def _convert(file: Path, out: Path) -> None:
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from interp_transfer.models.supported import check_supported

    source: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True}
    # Where a machine has kernels for packed weights, transformers keeps them unless told otherwise; older ones cannot be told.
    packing = getattr(transformers, "GgufConfig", None)
    unpacked = {} if packing is None else {"quantization_config": packing(dequantize=True)}
    try:
        hf: Any = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.bfloat16, **unpacked, **source)
        check_supported(str(file), hf.config)
        tokenizer = AutoTokenizer.from_pretrained(file.parent, **source)
    except Exception as error:  # noqa: BLE001 - tokenizers raises nothing more special
        raise ValueError(
            f"transformers cannot convert {str(file)!r} ({first_line(error)}): load the checkpoint that it was made from"
        ) from error
    # The weights are ordinary by now; transformers refuses to save a model that is marked as quantized.
    hf.hf_quantizer, hf.is_quantized = None, False
    vars(hf.config).pop("quantization_config", None)
    hf.save_pretrained(out)
    tokenizer.save_pretrained(out)
