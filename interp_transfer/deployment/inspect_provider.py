"""A steered model in Inspect: a provider by name for its command line, and a loaded model with any interventions.

    inspect eval task.py --model interp_transfer/MODEL -M vector=FILE -M strength=1.0

The entry point of the group ``inspect_ai`` makes the name known. Decoding is greedy unless a task or the command line sets a
temperature. Concurrent samples are generated as the server does it (`batching`). Settings that would change the answer and are
not known here are refused, and so are tools and media.
"""

import math
from dataclasses import dataclass
from typing import Any

from inspect_ai.model import (
    ChatMessage,
    ContentReasoning,
    ContentText,
    GenerateConfig,
    Model,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    modelapi,
)
from inspect_ai.tool import ToolChoice, ToolInfo

from interp_transfer.activations.positions import Positions
from interp_transfer.deployment.batching import BATCH_SIZE, NEW_TOKENS, Batcher, Request, same_for_all
from interp_transfer.evaluation.reasoning import prompt_texts
from interp_transfer.interventions.generation import generate
from interp_transfer.interventions.intervention import Intervention
from interp_transfer.models.hooked_model import HookedModel, context_length
from interp_transfer.models.identity import identity
from interp_transfer.models.tokens import TextTooLong
from interp_transfer.names import quoted
from interp_transfer.prompts.chats import Chat, as_prompt
from interp_transfer.prompts.reasoning import CLOSE, OPEN, opens_reasoning
from interp_transfer.studies.answers import model_and_vectors, stored_strength

PROVIDER = "interp_transfer"

_UNKNOWN = (
    "num_choices",
    "best_of",
    "top_k",
    "frequency_penalty",
    "presence_penalty",
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "prompt_logprobs",
    "response_schema",
)
"""Settings of Inspect that change an answer, or what is reported of it, and that are not known here."""


@dataclass(frozen=True)
class Loaded:
    """A loaded model and its interventions."""

    model: HookedModel
    interventions: tuple[Intervention, ...]

    def __str__(self) -> str:
        return "; ".join([str(identity(self.model)), *map(str, self.interventions)])

    __repr__ = __str__


class SteeredModel(ModelAPI):
    """Inspect's interface to a model under interventions.

    Args:
        model_name: known name, hub name or folder of the model.
        base_url: not used.
        api_key: not used.
        config: Inspect's settings of generation.
        vector: file of the vector that is added, or None.
        strength: its strength; default: the one that is stored with it, or 1.
        positions: the tokens at which it is added.
        batch_size: maximum number of samples that are computed together, see `Batcher`.
        dtype: dtype of the model.
        device: its device; default: a GPU if there is one.
        loaded: a model in place of one that is loaded by name.
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008 - Inspect's own signature
        *,
        vector: str | None = None,
        strength: Any = None,
        positions: Positions = "all",
        batch_size: int | None = None,
        dtype: str = "auto",
        device: str | None = None,
        loaded: Loaded | None = None,
    ) -> None:
        super().__init__(model_name, base_url, api_key, [], config)
        if vector is None and strength is not None:
            raise ValueError(f"strength={strength!r} without a vector: give its file, -M vector=FILE")
        if loaded is None:
            files = [] if vector is None else [vector]
            number = [_strength(file, strength) for file in files]
            hooked, vectors = model_and_vectors(files, model_name, dtype=dtype, device=device)
            loaded = Loaded(hooked, tuple(vectors[file].add(s, positions) for file, s in zip(files, number, strict=True)))
        generate(loaded.model, [], *loaded.interventions, max_new_tokens=1)  # refuses what does not fit before any work
        self.hooked = loaded.model
        self.batcher = Batcher(loaded.model, same_for_all(loaded.interventions), batch_size)

    async def generate(
        self, input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput:
        """Answer a chat, see Inspect's ``ModelAPI``."""
        del tool_choice
        if tools:
            raise ValueError(f"{len(tools)} tools were given: a steered model answers by text alone")
        for name in _UNKNOWN:
            value = getattr(config, name)
            if value and (name, value) != ("num_choices", 1):
                raise ValueError(f"{name}={quoted(value)}: a steered model does not know it, leave it out")
        chat = as_prompt([{"role": message.role, "content": _text(message)} for message in input])
        assert isinstance(chat, Chat)
        try:
            ids = self.batcher.read(chat)
        except TextTooLong as error:
            return ModelOutput.from_content(self.model_name, "", "model_length", error=str(error))
        wanted, room = config.max_tokens or NEW_TOKENS, context_length(self.hooked) - len(ids)
        request = Request(
            ids,
            self.batcher.room(ids, min(wanted, max(room, 1))),
            stop=tuple(config.stop_seqs or ()),
            temperature=config.temperature or 0.0,
            top_p=1.0 if config.top_p is None else config.top_p,
            seed=config.seed or 0,
        )
        pieces = [piece async for piece in self.batcher.answer(request)]
        text, last = "".join(piece.text for piece in pieces), pieces[-1]
        cut = "max_tokens" if request.max_new_tokens == wanted else "model_length"
        opened = opens_reasoning(prompt_texts(self.hooked, [chat])[0])
        output = ModelOutput.from_content(self.model_name, _content(text, opened), "stop" if last.finish == "stop" else cut)
        output.usage = ModelUsage(input_tokens=len(ids), output_tokens=last.tokens, total_tokens=len(ids) + last.tokens)
        return output

    def max_connections(self) -> int:
        """Samples in flight."""
        return BATCH_SIZE

    def close(self) -> None:
        """End the thread that uses the model."""
        self.batcher.close()


steered_model = modelapi(name=PROVIDER)(SteeredModel)
"""The provider as Inspect registers it."""


def inspect_model(model: HookedModel, *interventions: Intervention, batch_size: int | None = None) -> Model:
    """Make a model for ``inspect_ai.eval(task, model=...)`` that answers under any number of interventions.

    Args:
        model: a bridge, as ``load_model`` makes it.
        interventions: applied in the order of the arguments; the log names them.
        batch_size: maximum number of samples that are computed together, see `Batcher`.

    Raises:
        ValueError: for an intervention of another model or at an unknown site, and a ``HookedTransformer``.
    """
    known = identity(model)
    make: Any = steered_model  # Inspect's type of it hides the class
    api = make(model_name=known.name, batch_size=batch_size, loaded=Loaded(model, interventions))
    about = {"fingerprint": known.fingerprint, "interventions": list(map(_described, interventions))}
    return Model(api, GenerateConfig(), about)


def _strength(file: str, strength: Any) -> float:
    if strength is None:
        strength = stored_strength(file)
    if isinstance(strength, bool) or not isinstance(strength, float | int) or not math.isfinite(strength):
        raise ValueError(f"strength={strength!r}: give a finite number, -M strength=1.0")
    return float(strength)


def _described(intervention: Intervention) -> str:
    strength = getattr(intervention.transform, "strength", None)
    return str(intervention) if strength is None else f"{intervention}, strength {strength}"


def _text(message: ChatMessage) -> str:
    """The text of a message; reasoning of earlier answers is left out.

    Raises:
        ValueError: for results of tools, and media.
    """
    other = [content.type for content in message.content_list if content.type not in ("text", "reasoning")]
    if message.role == "tool" or other:
        raise ValueError(f"a message holds {', '.join(other) or 'the result of a tool'}: a steered model reads text alone")
    return message.text


def _content(text: str, opened: bool) -> str | list[Any]:
    """The answer, and before it the reasoning if there is any. A block that does not end has no answer."""
    begun = opened or text.lstrip().startswith(OPEN)
    if not begun:
        return text
    reasoning, _, answer = text.partition(CLOSE)
    reasoning = reasoning.strip().removeprefix(OPEN).strip()
    return [*([ContentReasoning(reasoning=reasoning)] if reasoning else []), ContentText(text=answer.lstrip())]
