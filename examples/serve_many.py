"""Many requests at once against each alone: a server with OpenAI's API, 32 requests with different strengths, in this process.

    python examples/serve_many.py smollm2-135m-instruct float32 32

Arguments: model, dtype, and the number of answers that are computed together.
"""

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from openai import OpenAI

import interp_transfer as it
from interp_transfer.deployment.server import Served, application, listen, listening_at, serve

PROMPTS = ("How was your day?", "Name three birds.", "What is a good breakfast?", "Tell me about the sea.")
N, NEW_TOKENS = 32, 40


def main(name: str, dtype: str, batch_size: int) -> None:
    """Print how many answers are those that the request gets alone, and how long both ways take."""
    model = it.load_model(name, dtype=dtype)
    block = int(model.cfg.n_layers) // 2
    vector = it.extract(model, it.trait_pairs("cheerful", "gloomy")[:20], block, progress=False)
    served = Served(name, model, {"cheerful": vector}, {"cheerful": 1.0})
    listening = listen("127.0.0.1", 0)
    server = threading.Thread(target=serve, args=(application(served, batch_size=batch_size), listening), daemon=True)
    server.start()
    client = OpenAI(base_url=listening_at(listening), api_key="none", timeout=3600)

    def answer(k: int) -> str:
        said = client.chat.completions.create(
            model=name,
            messages=[{"role": "user", "content": PROMPTS[k % len(PROMPTS)]}],
            max_tokens=NEW_TOKENS,
            extra_body={"vectors": {"cheerful": 3 * k / N}},
        )
        return str(said.choices[0].message.content)

    answer(0)  # the first one waits for libraries
    began = time.perf_counter()
    alone = [answer(k) for k in range(N)]
    then = time.perf_counter()
    with ThreadPoolExecutor(N) as pool:
        together = list(pool.map(answer, range(N)))
    equal = sum(a == b for a, b in zip(alone, together, strict=True))
    print(f"{dtype}, {batch_size} together: {equal} of {N} answers are those alone; {len(set(alone))} different ones")
    print(f"one after the other {then - began:.0f} s, at once {time.perf_counter() - then:.0f} s")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
