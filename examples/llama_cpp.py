"""The same vector in llama.cpp and here: how often each model shows a behaviour, without the vector and with it.

``python examples/llama_cpp.py MODEL VECTOR STRENGTH PAIRS JUDGE [N]`` takes a GGUF file or the name of a model that is kept as
one, a vector of ``interp-transfer extract`` or ``run``, and pairs whose negative sides of the test split are the prompts::

    python examples/refusal_pairs.py dataset/splits pairs.jsonl
    interp-transfer extract --model qwen2.5-coder-0.5b-instruct --pairs pairs.jsonl --judge no_refusal --chat --site 16 \\
        --out v.safetensors
    python examples/llama_cpp.py qwen2.5-coder-0.5b-instruct v.safetensors 1.0 pairs.jsonl no_refusal 100

The vector is written as a GGUF control vector. llama.cpp runs in this process (``pip install xllamacpp``) with the quantized
weights of the file, and this toolkit with the same weights de-quantized; both answer greedily.
"""

import ctypes
import json
import sys
import tempfile
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import interp_transfer as it
from interp_transfer.deployment.llama_cpp import write_control_vector
from interp_transfer.interventions.generation import generate_tokens
from interp_transfer.models.chat_templates import render_chat
from interp_transfer.models.locate import locate
from interp_transfer.models.tokens import tokenize, tokenizer_of
from interp_transfer.stats import paired_difference, rate

TOKENS, CONTEXT = 32, 1024
COMMON = 2
"""llama.cpp's number for the options that all of its programs share."""


class Server:
    """llama.cpp's HTTP server in this process, on a free port of localhost."""

    def __init__(self, model: Path, *arguments: str, **settings: Any) -> None:
        """Start it.

        Args:
            model: a GGUF file.
            arguments: of llama.cpp's command line, such as ``--control-vector-scaled FILE:SCALE``.
            settings: attributes of ``xllamacpp.CommonParams``.
        """
        import xllamacpp

        parameters = xllamacpp.CommonParams()
        _parse(parameters, ["llama-server", "--model", str(model), *arguments])
        common = {"port": 0, "hostnames": ["127.0.0.1"], "n_parallel": 1, "n_ctx": CONTEXT, "fit_params": False, "verbosity": 0}
        for name, value in {**common, **settings}.items():
            setattr(parameters, name, value)
        for threads in (parameters.cpuparams, parameters.cpuparams_batch):
            threads.n_threads = torch.get_num_threads()
        self._server = xllamacpp.Server(parameters)

    def post(self, path: str, **body: Any) -> Any:
        """The answer to a request."""
        address, headers = self._server.listening_address + path, {"Content-Type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(address, json.dumps(body).encode(), headers)) as answer:  # noqa: S310
            return json.load(answer)

    def tokens(self, text: str) -> list[int]:
        """The tokens that llama.cpp makes of a prompt."""
        return self.post("/tokenize", content=text, add_special=True, parse_special=True)["tokens"]

    def generate(self, text: str, new: int, **options: Any) -> list[int]:
        """The tokens of its greedy answer."""
        greedy = {"temperature": 0, "cache_prompt": False, "return_tokens": True}
        return self.post("/completion", prompt=text, n_predict=new, **greedy, **options)["tokens"]


def _parse(parameters: Any, arguments: Sequence[str]) -> None:
    """Read a command line into parameters with llama.cpp's own parser.

    xllamacpp gives no attribute to control vectors, but its library has the parser, and its object holds llama.cpp's structure
    after the header of every Python object.
    """
    from xllamacpp import xllamacpp

    parse = ctypes.CDLL(xllamacpp.__file__)["_Z19common_params_parseiPPcR13common_params13llama_examplePFviS0_E"]
    parse.restype = ctypes.c_bool
    words = (ctypes.c_char_p * len(arguments))(*(word.encode() for word in arguments))
    if not parse(len(words), words, ctypes.c_void_p(id(parameters) + object.__basicsize__), COMMON, None):
        raise ValueError(f"llama.cpp refuses {' '.join(arguments)!r}: its message is above")


def llama_cpp(model: Path, texts: Sequence[str], ids: Sequence[Sequence[int]], *arguments: str) -> list[list[int]]:
    """Greedy answers of llama.cpp to rendered prompts, which it must read as the same tokens."""
    server = Server(model, *arguments)
    for text, own in zip(texts, ids, strict=True):
        if server.tokens(text) != list(own):
            raise ValueError(f"llama.cpp reads other tokens than this toolkit: {server.tokens(text)}, {list(own)} of {text!r}")
    return [server.generate(text, TOKENS) for text in texts]


def main(name: str, vector_file: str, strength: str, pairs: str, judge: str, n: str = "100") -> None:
    file = locate(name)
    if file is None or file.suffix != ".gguf":
        raise SystemExit(f"{name!r} is no GGUF file, and llama.cpp runs no other: give one")
    model: Any = it.load_model(name)
    steer = it.SteeringVector.load(vector_file).add(float(strength))
    prompts = it.Task.from_jsonl(pairs, judge, chat=True).prompts("test")[: int(n)]
    tokenizer, ids = tokenizer_of(model), tokenize(model, prompts)
    texts = [render_chat(tokenizer, prompt) for prompt in prompts]
    judged: dict[tuple[str, str], list[bool]] = {}
    for condition, interventions in {"unsteered": [], "steered": [steer]}.items():
        with tempfile.TemporaryDirectory() as folder:
            written = [str(write_control_vector(one, f"{folder}/vector.gguf", model)) for one in interventions]
            theirs = llama_cpp(file, texts, ids, *(["--control-vector", *written] if written else []))
        ours = generate_tokens(model, prompts, *interventions, max_new_tokens=TOKENS)
        for program, answers in {"llama.cpp": theirs, "here": ours}.items():
            verdicts = it.judges.load(judge)(prompts, tokenizer.batch_decode(answers, skip_special_tokens=True))
            judged[program, condition] = [verdict.success for verdict in verdicts]
            print(f"{condition}, {program}: success {rate(judged[program, condition]):.2f}", flush=True)
        difference = paired_difference(judged["llama.cpp", condition], judged["here", condition])
        first = rate([a[:1] == b[:1] for a, b in zip(theirs, ours, strict=True)])
        whole = rate([a == b for a, b in zip(theirs, ours, strict=True)])
        print(f"{condition}: difference {difference}; same first token {first:.2f}; same answer {whole:.2f}", flush=True)


if __name__ == "__main__":
    if len(sys.argv) not in (6, 7):
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
