"""Chat templates in the shapes that models ship, small, and model folders that have them."""

from __future__ import annotations

import json
from pathlib import Path

from reasonrl.testing.models import tiny_model_folder

_NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
_IN_TURN = (
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/...') }}{% endif %}{% endfor %}"
)
_CHATML_TURNS = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
)
_ASKS = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"

CHATML = _CHATML_TURNS + _ASKS + "{% endif %}"
LLAMA3 = (
    "{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n' + m['content'] | trim "
    "+ '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
GEMMA = (
    f"{_NO_SYSTEM}{_IN_TURN}{{% for m in messages %}}"
    "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\\n' + m['content'] | trim "
    "+ '<end_of_turn>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)
QWEN3 = (
    _CHATML_TURNS
    + _ASKS
    + "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}"
    + "{% endif %}{% endif %}"
)
QWEN3_THINKING = _CHATML_TURNS + _ASKS + "{{ '<think>\\n' }}{% endif %}"
R1 = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ m['content'] }}{% elif m['role'] == 'user' %}"
    "{{ '<｜User｜>' + m['content'] }}{% else %}{{ '<｜Assistant｜>' + m['content'].split('</think>')[-1] }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\\n' }}{% endif %}"
)
MISTRAL = (
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] + '\\n\\n' %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
    f"{_IN_TURN}{{% for m in messages %}}{{% if m['role'] == 'user' %}}{{{{ '[INST] ' + (system if loop.last else '')"
    " + m['content'] + '[/INST]' }}{% else %}{{ ' ' + m['content'] + '</s>' }}{% endif %}{% endfor %}"
)
DROPS_SYSTEM = (
    "{% for m in messages %}{% if m['role'] != 'system' %}{{ '<' + m['role'] + '>' + m['content'] }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)

SHAPES = {
    "chatml": CHATML,
    "llama3": LLAMA3,
    "gemma": GEMMA,
    "qwen3": QWEN3,
    "qwen3-thinking": QWEN3_THINKING,
    "r1": R1,
    "mistral": MISTRAL,
    "drops-system": DROPS_SYSTEM,
}
OPENS_THINKING = ("qwen3-thinking", "r1")
FOLDS_SYSTEM = ("gemma", "drops-system")


def chat_model(folder: Path, template: str | None) -> Path:
    """A tiny model whose tokenizer has this chat template."""
    tiny_model_folder(folder)
    file = folder / "chat_template.jinja"
    if template is None:
        file.unlink()
    else:
        file.write_text(template, encoding="utf-8")
    config = folder / "tokenizer_config.json"
    assert "chat_template" not in json.loads(config.read_text(encoding="utf-8"))
    return folder
