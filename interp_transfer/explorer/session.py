"""The explorer without its page: receives settings, and emits events that a page shows.

A page talks to a session by messages that JSON can hold, whichever way they travel (`widget`, `local`):

- ``{"type": "hello"}`` is answered by one event ``hello``: the models, what can be added, the examples, the settings.
- ``{"type": "run", "run": name, "state": {...}}`` is answered by ``status`` (a line on what takes long), ``start`` (the panels,
  and the code that does the same), ``text`` (what a panel's text goes on with), ``end`` of each panel, ``tokens`` (a panel's
  tokens with their numbers) and ``finished``. ``error`` is of the run or of one panel; ``stopped`` ends a run that was
  replaced.

Texts in events are what a page may show: nothing in them is hidden (`escape.visible`), and a page shows them as text.
"""

import logging
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from threading import RLock
from typing import Any

from interp_transfer.activations.positions import KEYWORDS
from interp_transfer.escape import one_line, visible, without_surrogates
from interp_transfer.explorer import colours
from interp_transfer.explorer.items import Item, random_like
from interp_transfer.explorer.kept import KeptCompletions
from interp_transfer.explorer.made import Made, program
from interp_transfer.explorer.panels import Generation, Panel, panels
from interp_transfer.explorer.state import State
from interp_transfer.features.probes import Probe, fit_probe
from interp_transfer.interventions.intervention import Intervention
from interp_transfer.interventions.prompt_cache import PromptCache
from interp_transfer.models.identity import identity
from interp_transfer.models.sites import BLOCK, layer_of
from interp_transfer.models.tokens import tokenize
from interp_transfer.names import cut, find, first_line
from interp_transfer.prompts.chats import Chat, Prompt, as_user_message, request_of

Emit = Callable[[dict[str, Any]], Any]
PROJECTION, CHANGE, PROBE = "projection", "change", "probe: "
"""Readings by which tokens are coloured; each probe is one, by its name."""
FITTED = f"{PROBE}fitted on the contrast"
"""The probe of a task, fitted at the site of what is added when it is first asked for."""
TASKS = "the task's"
"""Positions of a task that have no name."""
COMPLETIONS = 64
"""Completions that are kept, so that going back shows them at once."""
LABEL = 90
"""Characters of an example in the list."""

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Session:
    """A model or two, and what can be added to them.

    Attributes:
        models: by side: "source", and "target" if there are two.
        items: what can be added, by name.
        prompts: examples.
        state: the settings at the beginning, then those of the last run.
        probes: probes by name, with the side that each reads.
        positions: the task's own positions, which need not be a keyword.
        task: the task, if there is one.
        kept: completions of a run that was made before.
        slow: why the models cannot be explored live; empty if they can.
    """

    models: dict[str, Made]
    items: dict[str, Item]
    prompts: Sequence[Prompt]
    state: State
    probes: Mapping[str, tuple[str, Probe]] = field(default_factory=dict)
    positions: Any = "all"
    task: Made | None = None
    kept: KeptCompletions | None = None
    slow: str = ""
    last: dict[str, Any] = field(default_factory=dict)
    _lock: Any = field(default_factory=RLock, repr=False)
    _random: dict[int, Made] = field(default_factory=dict, repr=False)
    _completions: "OrderedDict[Any, tuple[str, list[int]]]" = field(default_factory=OrderedDict, repr=False)
    _fitted: dict[tuple[str, str], Probe] = field(default_factory=dict, repr=False)
    _caches: dict[str, PromptCache] = field(default_factory=dict, repr=False)

    def handle(self, message: Any, emit: Emit, stopped: Callable[[], bool] = lambda: False) -> None:
        """Answer one message; whatever goes wrong is an event as well."""
        plain = message if isinstance(message, Mapping) else {}
        kind, run = plain.get("type"), plain.get("run")
        named = {"run": run[:64]} if isinstance(run, str) else {}

        def tell(event: dict[str, Any]) -> None:
            emit({**event, **named})

        try:
            if kind == "hello":
                tell({"type": "hello", "about": self.about()})
            elif kind == "run":
                self.run(State.read(plain.get("state")), tell, stopped)
            else:
                raise ValueError("the page sent a message that is none")
        except Exception as error:  # noqa: BLE001 - the page shows it, and stays usable
            tell({"type": "error", "text": _told(error)})

    def about(self) -> dict[str, Any]:
        """What a page needs to know, as JSON holds it."""
        sides = {
            side: {"name": visible(identity(made.value).name), "blocks": int(made.value.cfg.n_layers)}
            for side, made in self.models.items()
        }
        fitted = [FITTED] if self.task is not None else []
        readings = [PROJECTION, CHANGE, *fitted, *(f"{PROBE}{name}" for name in self.probes)]
        positions = list(KEYWORDS[:4]) if self.positions in KEYWORDS[:4] else [TASKS, *KEYWORDS[:4]]
        return {
            "models": sides,
            "items": [self._about_item(item) for item in self.items.values()],
            "readings": [visible(reading) for reading in readings],
            "positions": positions,
            "prompts": [_about_prompt(prompt) for prompt in self._examples()],
            "state": self.state.to_dict(),
            "slow": self.slow and f"{self.slow}. {self._instead()}",
            "last": self.last or None,
        }

    def run(self, state: State, emit: Emit, stopped: Callable[[], bool]) -> None:
        """Generate what a state asks for. Texts that are known already, of the same settings, are shown at once."""
        began = time.perf_counter()
        if self.slow:
            self._show_kept(state, emit)
            return
        with self._lock:
            prompt = self._prompt(state)
            item = find(state.item, self.items, "vector", cutoff=0.3)
            positions = self.positions if state.positions == TASKS else find(state.positions, _KEYWORDS, "positions")
            vectors = item.vectors(self._sites(item, state), lambda text: emit({"type": "status", "text": visible(text)}))
            shown = panels(state, self.models, vectors, self._random_like)
        event = {
            "type": "start",
            "panels": [{"key": p.key, "side": p.side, "what": p.what, "at": _at(p)} for p in shown],
            "code": self._code(shown, state, prompt),
            "state": state.to_dict(),
        }
        emit(event)
        ids = {side: tokenize(made.value, [prompt])[0] for side, made in self.models.items()}
        texts: dict[str, tuple[str, list[int]]] = {}
        timed = self._generate(shown, ids, state, positions, texts, emit, stopped)
        if stopped():
            emit({"type": "stopped"})
            return
        read = self._colour(shown, ids, state, positions, texts, emit, stopped) if state.colour else {}
        if stopped():
            emit({"type": "stopped"})
            return
        with self._lock:
            completions = {key: visible(text) for key, (text, _) in texts.items()}
            asked = _about_prompt(prompt)
            self.state, self.last = state, {**event, "texts": completions, "read": read, "prompt": asked["text"]}
        emit({"type": "finished", "seconds": round(time.perf_counter() - began, 3), "first": timed and round(timed - began, 3)})

    def _generate(
        self,
        shown: Sequence[Panel],
        ids: Mapping[str, list[int]],
        state: State,
        positions: Any,
        texts: dict[str, tuple[str, list[int]]],
        emit: Emit,
        stopped: Callable[[], bool],
    ) -> float | None:
        """Generate the panels' texts in turns; returns when the first piece was there."""
        first: float | None = None
        going: dict[str, Generation] = {}
        try:
            for panel in shown:
                key = self._key(panel, ids[panel.side], state)
                if key in self._completions:
                    texts[panel.key] = self._completions[key]
                    emit({"type": "text", "panel": panel.key, "text": visible(texts[panel.key][0])})
                    emit({"type": "end", "panel": panel.key})
            waiting = [panel for panel in shown if panel.key not in texts]
            while waiting and not stopped():
                for panel in list(waiting):
                    if stopped():
                        break
                    try:
                        if panel.key not in going:
                            going[panel.key] = self._begin(panel, ids[panel.side], state, positions)
                        piece = going[panel.key].step()
                    except Exception as error:  # noqa: BLE001 - such as NaN at a great strength; the other panels go on
                        waiting.remove(panel)
                        emit({"type": "error", "panel": panel.key, "text": _told(error)})
                        continue
                    first = first or time.perf_counter()
                    if piece:
                        emit({"type": "text", "panel": panel.key, "text": visible(piece)})
                    if going[panel.key].ended:
                        waiting.remove(panel)
                        texts[panel.key] = going[panel.key].text, going[panel.key].ids
                        self._keep(self._key(panel, ids[panel.side], state), texts[panel.key])
                        emit({"type": "end", "panel": panel.key})
        finally:
            for one in going.values():
                one.close()
        return first

    def _begin(self, panel: Panel, ids: list[int], state: State, positions: Any) -> Generation:
        model = panel.model.value
        cache = self._caches.setdefault(panel.side, PromptCache(model))
        return Generation(model, ids, panel.steer(state, positions), state.max_new_tokens, cache)

    def _colour(
        self,
        shown: Sequence[Panel],
        ids: Mapping[str, list[int]],
        state: State,
        positions: Any,
        texts: Mapping[str, tuple[str, list[int]]],
        emit: Emit,
        stopped: Callable[[], bool],
    ) -> dict[str, Any]:
        """Read the texts of the panels, and emit their tokens with their numbers."""
        read: dict[str, Any] = {}
        for panel in shown:
            if stopped() or panel.key not in texts:
                continue
            model, prompt = panel.model.value, ids[panel.side]
            whole = [*prompt, *texts[panel.key][1]]
            reading = self._reading(panel, whole, len(prompt), state, positions)
            if reading is not None:
                read[panel.key] = reading.tokens(model, whole, len(prompt))
                emit({"type": "tokens", "panel": panel.key, **read[panel.key]})
        return read

    def _reading(self, panel: Panel, ids: list[int], prompt: int, state: State, positions: Any) -> colours.Reading | None:
        model = panel.model.value
        if state.colour == FITTED and self.task is not None and panel.reads is not None:
            return colours.log_odds(model, ids, self._fitted_probe(panel.side, model, panel.reads.value.site))
        if state.colour.startswith(PROBE):
            name = next((one for one in self.probes if visible(f"{PROBE}{one}") == state.colour), None)
            side, probe = find(name or state.colour, self.probes, "probe")
            return colours.log_odds(model, ids, probe) if side == panel.side else None
        find(state.colour, {PROJECTION: 0, CHANGE: 0}, "colour")
        if panel.reads is None:
            return None
        if state.colour == PROJECTION:
            return colours.projection(model, ids, panel.reads.value)
        steer: list[Intervention] = replace(panel, vector=panel.reads).steer(state, positions)
        return colours.change(model, ids, prompt, steer)

    def _fitted_probe(self, side: str, model: Any, site: str) -> Probe:
        assert self.task is not None
        if (side, site) not in self._fitted:
            contrast = self.task.value.contrast("train")
            self._fitted[side, site] = fit_probe(model, contrast, site, self.task.value.read)
        return self._fitted[side, site]

    def _key(self, panel: Panel, ids: list[int], state: State) -> Any:
        steered = None if panel.vector is None else (panel.vector.value, float(state.strength), state.positions)
        return panel.side, tuple(ids), state.max_new_tokens, steered

    def _keep(self, key: Any, completion: tuple[str, list[int]]) -> None:
        with self._lock:
            self._completions[key] = completion
            while len(self._completions) > COMPLETIONS:
                self._completions.popitem(last=False)

    def _random_like(self, vector: Made) -> Made:
        return self._random.setdefault(id(vector), random_like(vector))

    def _sites(self, item: Item, state: State) -> dict[str, str]:
        """Where an item is extracted: at the blocks that were chosen, or else where it is."""
        sites = {}
        for side, made in self.models.items():
            usual, block = item.site(side), getattr(state, f"{side}_block")
            if usual is None:
                continue
            if block is not None and not 0 <= block < int(made.value.cfg.n_layers):
                raise ValueError(f"block {block} of the {side}: it has {made.value.cfg.n_layers}, from 0")
            moves = block is not None and not item.fixed(side) and layer_of(usual) is not None
            sites[side] = BLOCK.sub(f"blocks.{block}.", usual) if moves else usual
        return sites

    def _examples(self) -> Sequence[Prompt]:
        return self.kept.prompts if self.slow and self.kept is not None else self.prompts

    def _prompt(self, state: State) -> Prompt:
        if state.example is not None:
            if not 0 <= state.example < len(self.prompts):
                raise ValueError(f"there is no example {state.example}: there are {len(self.prompts)}")
            return self.prompts[state.example]
        if not state.prompt.strip():
            raise ValueError("the prompt is empty: write one, or choose an example")
        return as_user_message(state.prompt) if state.chat else state.prompt

    def _about_item(self, item: Item) -> dict[str, Any]:
        sites = {}
        for side in self.models:
            site = item.site(side)
            fixed = item.fixed(side)
            if site is not None and layer_of(site) is None:
                fixed = f"{site} is in no block"
            sites[side] = {"block": None if site is None else layer_of(site), "fixed": visible(fixed)}
        return {"name": item.name, "label": one_line(item.name), "sites": sites}

    def _instead(self) -> str:
        if self.kept is None:
            return "A run folder has completions that were made before: give its path"
        return f"These are completions of the run {visible(self.kept.name)}, made before"

    def _show_kept(self, state: State, emit: Emit) -> None:
        """Show completions that were made before, in place of new ones."""
        if self.kept is None:
            raise ValueError(f"{self.slow}. {self._instead()}")
        texts = self.kept.texts(state.example or 0)
        event = {
            "type": "start",
            "panels": [{"key": name, "side": "target", "what": name, "at": "made before"} for name in texts],
            "code": "",
            "state": state.to_dict(),
        }
        emit(event)
        for name, text in texts.items():
            emit({"type": "text", "panel": name, "text": text})
            emit({"type": "end", "panel": name})
        asked = _about_prompt(self.kept.prompts[state.example or 0])
        self.state, self.last = state, {**event, "texts": texts, "read": {}, "prompt": asked["text"]}
        emit({"type": "finished", "seconds": 0.0, "first": 0.0})

    def _code(self, shown: Sequence[Panel], state: State, prompt: Prompt) -> str:
        """Python that generates the texts of the panels."""
        plain = prompt.to_list() if isinstance(prompt, Chat) else prompt
        needed = [made for panel in shown for made in (panel.model, panel.vector) if made is not None]
        needed += [self.task] if state.positions == TASKS and self.task is not None else []

        def lines(*names: str) -> list[str]:
            variable, out = iter(names), ["", f"prompt = {plain!r}", "completions = {"]
            where = f", {names[-1]}.positions" if state.positions == TASKS else f", {state.positions!r}"
            for panel in shown:
                model = next(variable)
                steer = "" if panel.vector is None else f", it.add({next(variable)}, {state.strength!r}{where})"
                call = f"it.generate({model}, [prompt]{steer}, max_new_tokens={state.max_new_tokens})[0]"
                out.append(f"    {panel.key!r}: {call},")
            return [*out, "}", "for name, completion in completions.items():", '    print(f"{name}:{completion}\\n")']

        return program(needed, lines)


_KEYWORDS = {word: word for word in KEYWORDS}


def _at(panel: Panel) -> str:
    site = "" if panel.vector is None else f"{panel.vector.value.site}, norm {panel.vector.value.norm:.3g}"
    return visible(f"{identity(panel.model.value).name} {site}".strip())


def _about_prompt(prompt: Prompt) -> dict[str, Any]:
    text = without_surrogates(request_of(prompt))
    return {"label": cut(one_line(text), LABEL), "text": text, "chat": isinstance(prompt, Chat)}


def _told(error: Exception) -> str:
    """What a page shows of an error; the log has the rest of one that the toolkit does not raise itself."""
    if not isinstance(error, ValueError | RuntimeError | MemoryError | OSError):
        _log.error("%s", "".join(traceback.format_exception(error)))
    return visible(first_line(error, 500))
