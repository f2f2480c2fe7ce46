"""Chat templates in the styles of five families, on small tokenizers in which their special tokens are one token each."""

from copy import deepcopy
from functools import cache
from typing import Any

from tests.family_tokenizers import family_tokenizer

_CHATML = (
    "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\\n' + DEFAULT + '<|im_end|>\\n' }}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_THINKING = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}"
    "{% if m.role == 'assistant' and '</think>' in m.content %}"
    "{% if loop.last %}{{ '<think>\\n' + m.content.split('</think>')[0].split('<think>')[-1].strip() + '\\n</think>\\n\\n' }}"
    "{% endif %}{{ m.content.split('</think>')[-1].lstrip('\\n') }}"
    "{% else %}{{ m.content }}{% endif %}{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
    "{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}{% endif %}"
)
_HEADERS = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + m.content | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
_TURNS = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role not in ('user', 'assistant') %}{{ raise_exception(m.role + ' role not supported') }}{% endif %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate') }}{% endif %}"
    "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\\n' + m.content | trim + '<end_of_turn>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)

_CHATML_TOKENS, _HEADER_TOKENS = ("<|im_start|>", "<|im_end|>"), ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
_STYLES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "chatml": ("qwen", _CHATML.replace("DEFAULT", "'You are a test.'"), _CHATML_TOKENS),
    "smollm2": ("llama", _CHATML.replace("DEFAULT", "'You are a helpful assistant in a test.'"), _CHATML_TOKENS),
    "llama3": ("llama", _HEADERS, _HEADER_TOKENS),
    "gemma": ("gemma", _TURNS, ("<start_of_turn>", "<end_of_turn>")),
    "thinking": ("qwen", _THINKING, (*_CHATML_TOKENS, "<think>", "</think>")),
}
STYLES = tuple(_STYLES)


@cache
def chat_tokenizer(style: str) -> Any:
    """The tokenizer of a style, shared by all tests: they must leave it as it is."""
    family, template, special = _STYLES[style]
    tokenizer = deepcopy(family_tokenizer(family))
    tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
    tokenizer.chat_template = template
    return tokenizer
