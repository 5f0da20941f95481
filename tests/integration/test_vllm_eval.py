"""`reasonrl eval` with the engine ``vllm``: greedy completions are those of ``hf``; top-p and top-k cut."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from reference.truncation import kept_tokens
from support.small_recipes import write
from support.tiny_policies import context_of, load_tiny
from support.tiny_runs import REPOSITORY
from typer.testing import CliRunner

from reasonrl import Problem, RolloutRequest, SamplingParams
from reasonrl.cli.app import app
from reasonrl.model.export import iter_hf_weights
from reasonrl.model.policy import PolicyModule
from reasonrl_vllm.backend import VLLMBackend
from reasonrl_vllm.config import VLLMConfig

pytestmark = pytest.mark.vllm
BASE = REPOSITORY / "plugins" / "reasonrl_countdown" / "models" / "countdown-base"
PROMPTS = [f"numbers: {a} {a + 3} 7 target: {2 * a + 1}\n" for a in range(2, 26)]
ROUNDING = 1e-3
"""Of the mass of a nucleus: the engine computes in float32."""


def outside(model: Any, request: RolloutRequest, tokens: tuple[int, ...], cut: SamplingParams) -> int:
    """How many tokens lie outside of what ``cut`` keeps of the model's own distribution."""
    ids = torch.tensor([[*request.prompt_ids, *tokens]])
    with torch.no_grad():
        logits = model(ids).logits[0, len(request.prompt_ids) - 1 : -1].double()
    kept = [kept_tokens(row, cut.temperature, cut.top_k, min(1.0, cut.top_p + ROUNDING)) for row in logits.tolist()]
    return sum(token not in allowed for token, allowed in zip(tokens, kept, strict=True))


def test_the_engine_samples_only_what_top_p_and_top_k_keep() -> None:
    loaded = load_tiny(BASE)
    whole = SamplingParams(temperature=1.5, max_completion_tokens=12)
    cuts = [
        SamplingParams(temperature=1.5, max_completion_tokens=12, **more)
        for more in ({"top_k": 3}, {"top_p": 0.6}, {"top_k": 4, "top_p": 0.5})
    ]
    with VLLMBackend(VLLMConfig(), context_of(loaded, whole, BASE)) as engine:
        engine.sync_weights(iter_hf_weights(PolicyModule(loaded.model)), policy_version=0)
        for cut in cuts:
            counts = {}
            for name, sampling in (("cut", cut), ("whole", whole)):
                requests = [
                    RolloutRequest(
                        problem=Problem(id=str(i), prompt=prompt),
                        prompt_ids=tuple(loaded.tokenizer.encode(prompt)),
                        group_size=4,
                        sampling=sampling,
                        seed=i,
                    )
                    for i, prompt in enumerate(PROMPTS)
                ]
                groups = engine.generate(requests)
                counts[name] = sum(
                    outside(loaded.model, g.request, c.token_ids, cut) for g in groups for c in g.completions
                )
                if name == "cut":
                    assert any(len({c.token_ids for c in group.completions}) > 1 for group in groups)
            assert counts["cut"] == 0, cut
            assert counts["whole"] > 20, "the cut must matter"


def completions(folder: Path, suite: str) -> dict[str, str]:
    lines = (folder / f"{suite}.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["problem_id"]: row["completion"] for row in map(json.loads, lines)}


def test_eval_with_vllm_finds_what_hf_finds(tmp_path: Path) -> None:
    suites = {
        "greedy": {"problems": 12, "temperature": 0.0},
        "first": {"problems": 12, "temperature": 1.0, "top_k": 1},
        "nucleus": {"problems": 12, "temperature": 1.0, "top_p": 1e-6},
    }
    recipe = write(
        tmp_path,
        {
            "name": "asked",
            "model": {"name": "countdown-base"},
            "task": {"name": "countdown", "template": "compact"},
            "algorithm": {"name": "grpo"},
            "sampling": {"group_size": 4, "max_prompt_tokens": 64, "max_completion_tokens": 24},
            "trainer": {"steps": 1, "prompts_per_step": 4},
            "evaluation": {"suites": suites},
        },
    )
    for backend in ("hf", "vllm"):
        words = ["eval", str(BASE), "--recipe", str(recipe), f"rollout_backend.name={backend}"]
        done = CliRunner().invoke(app, [*words, "--output", str(tmp_path / backend)])
        assert done.exit_code == 0, done.output
    hf, vllm = completions(tmp_path / "hf", "greedy"), completions(tmp_path / "vllm", "greedy")
    assert hf.keys() == vllm.keys()
    assert sum(hf[problem] == vllm[problem] for problem in hf) >= 11  # a rounding may tip a token
    for suite in ("first", "nucleus"):
        found = completions(tmp_path / "vllm", suite)
        assert sum(found[problem] == vllm[problem] for problem in vllm) >= 11
    saved = json.loads((tmp_path / "vllm" / "results.json").read_text(encoding="utf-8"))
    assert saved["configs"]["nucleus"]["generation_kwargs"]["top_p"] == 1e-6
