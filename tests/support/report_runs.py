"""Transcripts for reports: plain ones, and what a model could write to do harm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HOSTILE = (
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "\x1b[31mred\x1b[0m",
    "\u202egnp.exe\u2066",
    "]]><!-- {{ 7*7 }} {% raw %}",
    "x" * 1_000_000,
    "\ud800 half a character",
    "\u2028line",
)


def record(completion: str, **more: Any) -> dict[str, Any]:
    plain = {"problem_id": "p/1", "sample": 0, "prompt_text": "Numbers: 3 5.", "completion": completion}
    plain |= {"completion_tokens": 7, "finish_reason": "eos", "reward": 1.0, "correct": True, "answer": "3*5"}
    return plain | {"components": {"countdown": 1.0}, "reasons": {"countdown": "ok"}, "info": {"target": 15}} | more


def transcribe(run: Path, step: int, *records: dict[str, Any]) -> None:
    path = run / "transcripts" / f"step_{step:06d}.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
