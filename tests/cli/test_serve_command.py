"""`interp-transfer serve`: what it refuses before it loads a model, and a server that ends at Ctrl-C."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import interp_transfer as it
from interp_transfer.deployment import server


@pytest.fixture
def vector_file(models: tuple[Any, Any], tmp_path: Path) -> Path:
    vector = it.SteeringVector(torch.arange(16).float(), "blocks.2.hook_resid_pre", it.identity(models[0]))
    return vector.save(tmp_path / "v.safetensors", strength=1.5)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def test_a_port_in_use(refuses: Callable[..., None], checkpoints: tuple[Path, Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refuses("Address already in use; choose another", "serve", checkpoints[0], "--port", taken.getsockname()[1])


def test_vectors_that_are_refused(refuses: Callable[..., None], checkpoints: tuple[Path, Path], vector_file: Path) -> None:
    def check(hint: str, *vectors: object) -> None:
        options = [part for one in vectors for part in ("--vector", one)]
        refuses(hint, "serve", checkpoints[0], "--port", free_port(), *options)

    check("give each name once as NAME=FILE", "v.safetensors")
    check("give each name once as NAME=FILE", f"a={vector_file}", f"a={vector_file}")
    check("a vector's name is '../a'", f"../a={vector_file}")
    check("a vector's name is 'a\\x1b'", f"a\x1b={vector_file}")
    check("nothing.safetensors", "a=nothing.safetensors")
    refuses("not for", "serve", checkpoints[1], "--port", free_port(), "--vector", f"a={vector_file}")


def test_an_unknown_model_and_a_wrong_batch(refuses: Callable[..., None], checkpoints: tuple[Path, Path]) -> None:
    refuses("no folder", "serve", "./nowhere")
    refuses("batch_size=0", "serve", checkpoints[0], "--port", free_port(), "--batch-size", 0)


def test_every_address_is_warned_of_but_those_of_this_machine(
    call: Callable[..., Any], checkpoints: tuple[Path, Path], vector_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "serve", lambda *_: None)
    options = ("serve", checkpoints[0], "--vector", f"a={vector_file}", "--port", "0")
    code, out, err = call(*options)
    assert (code, out) == (0, "") and "warning" not in err
    assert err.startswith("a at http://127.0.0.1:") and "vectors: a" in err
    assert "warning: anyone who can reach 0.0.0.0 can use the model, without a key" in call(*options, "--host", "0.0.0.0")[2]
    assert "with the key" in call(*options, "--host", "0.0.0.0", "--api-key", "sesame")[2]


@pytest.mark.slow
def test_a_server_is_started_and_ends_at_ctrl_c(checkpoints: tuple[Path, Path], vector_file: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "interp_transfer.cli.main", "serve", str(checkpoints[0]), "--name", "tiny"]
    process = subprocess.Popen(
        [*command, "--vector", f"a={vector_file}", "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # what is started in the background ignores it
    )
    answer: dict = {}
    try:
        body = json.dumps({"model": "tiny:a", "prompt": "the cat", "max_tokens": 5}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/completions", body, {"Content-Type": "application/json"})
        for _ in range(120):
            try:
                with urllib.request.urlopen(request, timeout=60) as response:
                    answer = json.load(response)
                break
            except OSError:
                time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert answer["usage"]["completion_tokens"] == 5
    assert process.returncode == 130 and out == "" and "Traceback" not in err
