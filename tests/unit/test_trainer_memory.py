"""Times and peak memory of stages, on a CPU and on a GPU that records what it is asked."""

import types
from typing import Any

import pytest
import torch

from reasonrl.errors import stage_of
from reasonrl.trainer import memory
from reasonrl.trainer.memory import GIB, free_gib, gpu_name, peak_gib, restart_peak, used_gib
from reasonrl.trainer.timing import Timer

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


class Recorder(types.SimpleNamespace):
    """``torch.cuda`` of a GPU of 80 GiB, and the order of its calls."""

    def __init__(self) -> None:
        super().__init__(calls=[], peak=0.0)

    def synchronize(self) -> None:
        self.calls.append("synchronize")

    def reset_peak_memory_stats(self, device: Any) -> None:
        self.calls.append("reset")
        self.peak = 0.0

    def max_memory_allocated(self, device: Any) -> int:
        self.calls.append("peak")
        return int(self.peak * GIB)

    def mem_get_info(self, device: Any) -> tuple[int, int]:
        return 20 * GIB, 80 * GIB

    def get_device_name(self, device: Any) -> str:
        return "NVIDIA H100"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setattr(torch, "cuda", recorder)
    return recorder


def test_a_stage_ends_when_the_gpu_has_done_its_work(gpu: Recorder) -> None:
    timer = Timer(CUDA)
    with timer("update_s"):
        gpu.calls.append("work")
        gpu.peak = 3.0
    assert gpu.calls == ["reset", "work", "synchronize", "peak"]
    assert timer.peaks == {"update_s": 3.0}


def test_peaks_are_those_of_their_stage(gpu: Recorder) -> None:
    timer = Timer(CUDA)
    with timer("step_s"):
        for stage, peak in (("rollout_s", 5.0), ("update_s", 9.0), ("rollout_s", 7.0)):
            with timer(stage):
                gpu.peak = peak
    found = {key: metric.value for key, metric in timer.memory().items()}
    assert found == {
        "memory/rollout_gib": 7.0,
        "memory/update_gib": 9.0,
        "memory/peak_gib": 9.0,
        "memory/used_gib": 60.0,
    }
    assert {metric.reduction for metric in timer.memory().values()} == {"max"}


def test_what_a_gpu_says(gpu: Recorder) -> None:
    assert (used_gib(CUDA), free_gib(CUDA), gpu_name(CUDA)) == (60.0, 20.0, "NVIDIA H100")


def test_what_a_cpu_says() -> None:
    assert (used_gib(CPU), gpu_name(CPU)) == (None, None)
    assert free_gib(CPU) > 0
    restart_peak(CPU)
    before = peak_gib(CPU)
    block = torch.ones(64 << 18)  # 64 MiB
    del block
    assert before + 0.06 < peak_gib(CPU) < before + 0.2
    restart_peak(CPU)
    assert peak_gib(CPU) < before + 0.03


def test_where_no_peak_can_be_read_it_is_what_is_in_use(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    expected = peak_gib(CPU)
    monkeypatch.setattr(memory, "_OF_LINUX", tmp_path / "nowhere")
    restart_peak(CPU)
    assert peak_gib(CPU) == pytest.approx(expected, rel=0.3)


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), KeyError("x")])
def test_an_error_of_memory_is_marked_with_its_innermost_stage(error: Exception) -> None:
    timer = Timer()
    with pytest.raises(type(error)), timer("step_s"), timer("update_s"):
        raise error
    assert stage_of(error) == (None if isinstance(error, KeyError) else "update_s")
