"""Find a model by its name, before anything is read: torch is not imported, and the hub is asked once."""

from pathlib import Path

from interp_transfer.models.adapters import is_adapter
from interp_transfer.models.gguf import SUFFIX
from interp_transfer.names import did_you_mean, first_line
from interp_transfer.plugins import known_model, known_models

HUB_SECONDS = 5


def locate(name: str, *, gguf_file: str | None = None, revision: str | None = None) -> Path | None:
    """Return the folder or the GGUF file that a model is in; None for a name of the hub, which has it.

    Args:
        name: known name, folder, GGUF file or hub name.
        gguf_file: name of a GGUF file in the folder or the repository.
        revision: branch, tag or commit on the hub.

    Raises:
        ValueError: if there is no such model, with the closest name.
    """
    known = known_model(name)
    path = Path(name).expanduser() if known is None else known.path
    if known is not None and not (path.is_file() or (path / "config.json").is_file() or is_adapter(path)):
        raise ValueError(f"the model {name!r} is not in {str(path)!r}: {known.remedy}")
    file = path if gguf_file is None else path / gguf_file
    if file.is_file() and file.suffix == SUFFIX:
        return file
    if path.is_dir() and gguf_file is not None:
        files = [found.name for found in path.glob(f"*{SUFFIX}")]
        raise ValueError(
            f"{name!r} holds no {gguf_file!r}: {did_you_mean(gguf_file, files)}its GGUF files are {', '.join(files) or 'none'}"
        )
    if path.is_dir():
        if not (path / "config.json").exists() and not is_adapter(path):
            raise ValueError(
                f"{name!r} holds no config.json: it is not the folder of a Hugging Face model; name a GGUF file with gguf_file="
            )
        return path
    if path.exists():
        raise ValueError(f"{name!r} is no folder and no {SUFFIX} file: give the folder of a Hugging Face model, or a GGUF file")
    if name.startswith((".", "/", "~")) or name.endswith(SUFFIX):
        raise ValueError(
            f"there is no folder {name!r}: {_similar_folder(path)}give the folder of a Hugging Face model, a hub name or a "
            "known model"
        )
    hint = did_you_mean(name, known_models(), n=3)
    if hint and "/" not in name:
        raise ValueError(f"unknown model {name!r}: {hint.strip()}")
    _ask_hub(name, gguf_file or "config.json", revision)
    return None


def _ask_hub(name: str, file: str, revision: str | None) -> None:
    """Ask the hub for a file that its cache lacks, once: transformers would repeat the question for a minute."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

    try:
        if not isinstance(try_to_load_from_cache(name, file, revision=revision), str):
            get_hf_file_metadata(hf_hub_url(name, file, revision=revision), timeout=HUB_SECONDS)
    except Exception as error:  # noqa: BLE001 - each version of huggingface-hub has other classes for a missing network
        raise ValueError(
            f"cannot load {name!r}: it is no known model and no local folder, and the hub did not provide it "
            f"({first_line(error)}): {_similar_folder(Path(name))}if there is no network, give the path of a downloaded copy, "
            f"or set HF_HUB_OFFLINE=1 for one in the hub's cache ({constants.HF_HUB_CACHE})"
        ) from error


def _similar_folder(path: Path) -> str:
    """A question about a sibling folder with a similar name, for an error; empty if there is none."""
    try:
        return did_you_mean(path.name, [folder.name for folder in path.parent.iterdir() if folder.is_dir()])
    except OSError:
        return ""
