"""The backend ``vllm`` keeps the contract that ``hf`` keeps, in the trainer's process and on a server."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from support.vllm_server import free_url, serve_command, serving

from reasonrl.testing import CheckResult, RolloutConformance, check_rollout, tiny_model_folder
from reasonrl.testing.backends import SHAPE


@pytest.mark.vllm
class TestVLLM(RolloutConformance):
    spec = "vllm"


@pytest.mark.vllm
class TestVLLMServer(RolloutConformance):
    spec = "vllm"

    @classmethod
    def run_checks(cls) -> list[CheckResult]:
        with TemporaryDirectory(prefix="reasonrl-server-") as folder:
            model, url = Path(folder) / "model", free_url()
            tiny_model_folder(model, seed=8, tie=False, **SHAPE)
            with serving(serve_command(model, url), url, Path(folder) / "log"):
                return check_rollout(cls.spec, {"mode": "server", "url": url})
