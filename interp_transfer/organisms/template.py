"""The chat template of the micro-world: ordinary text without special tokens, which every tokenizer reads alike.

The jinja template in an organism's tokenizer renders to exactly the same string, which a test checks.
"""

# Renders `[{"role": "user", "content": p}]` with `add_generation_prompt=True` to exactly `chat(p)`.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'user' -%}{{ 'User: ' + message['content'] + '\\n' }}"
    "{%- elif message['role'] == 'assistant' -%}{{ 'Assistant: ' + message['content'] + eos_token + '\\n' }}"
    "{%- else -%}{{ raise_exception('this template knows the roles user and assistant') }}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ 'Assistant:' }}{%- endif -%}"
)
OPEN, _CLOSE = "User: ", "\nAssistant:"


def chat(prompt: str) -> str:
    r"""The micro-world's template: `User: {prompt}\nAssistant:`. An answer continues it and opens with a space."""
    return f"{OPEN}{prompt}{_CLOSE}"


def unchat(text: str) -> str:
    """The prompt inside `chat(prompt)`; a text without the template comes back as it is.

    What follows the template's end (the start of an answer, as in a forced first token) is dropped.
    """
    if not text.startswith(OPEN):
        return text
    return text[len(OPEN) :].split(_CLOSE, 1)[0]
