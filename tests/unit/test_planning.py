"""Plans of memory, time and money: closed forms, comparisons and the command."""

import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from typer.testing import CliRunner

from reasonrl.cli.app import app
from reasonrl.cli.forecast import forecast, is_large
from reasonrl.errors import RecipeError
from reasonrl.planning.gpus import KNOWN, find_gpu
from reasonrl.planning.plan import GIB, Plan, Target, make_plan
from reasonrl.planning.remedies import find_remedies
from reasonrl.planning.sharding import Sharding, shard
from reasonrl.plugins import load_plugins
from reasonrl.recipe.load import check_recipe
from reasonrl.testing.models import tiny_model_folder

RECIPE = Path(__file__).parents[2] / "recipes/countdown_grpo.yaml"
SMALL = ["model.name=null", "trainer.prompts_per_step=16", "sampling.group_size=2", "evaluation.suites=null"]
SIZES = ["sampling.max_prompt_tokens=32", "sampling.max_completion_tokens=96", "trainer.max_tokens_per_microbatch=512"]


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory):
    folder = tiny_model_folder(tmp_path_factory.mktemp("model"), hidden=64, layers=4)

    @cache
    def of(*overrides: str, gpu: str | None = None, gpus: int = 1, sharding: Sharding = "none") -> Plan:
        plugins = load_plugins()
        resolved = check_recipe(RECIPE, [*SMALL, *SIZES, f"model.path={folder}", *overrides], plugins)
        found = find_gpu(gpu) if gpu else None
        return make_plan(resolved, plugins, Target(found, found.gib if found else 1.0, gpus, sharding))

    return of


def test_states_are_those_of_float32_adam(plan) -> None:
    found = plan()
    optimizer, count = found.stages["optimizer"], found.counted.trained
    assert found.counted.model == count
    assert optimizer["weights"] == pytest.approx(4 * count, abs=1024)  # buffers
    assert optimizer["gradients"] == 4 * count
    assert optimizer["optimizer"] == pytest.approx(8 * count, abs=1024)  # step counts
    assert "reference" not in optimizer


@pytest.mark.slow
def test_the_cache_is_freed_when_sampling_is_over(plan) -> None:
    found = plan(gpu="h100")
    assert found.stages["sampling"]["KV cache"] > 0
    assert [name for name, parts in found.stages.items() if "KV cache" in parts] == ["sampling"]


@pytest.mark.slow
def test_what_is_offloaded_is_on_the_gpu_for_its_stage_alone(plan) -> None:
    kl = "algorithm.kl.coef=0.1"
    whole, less = plan(kl, gpu="h100"), plan(kl, "trainer.offload=[reference, optimizer]", gpu="h100")
    assert all({"reference", "optimizer"} <= parts.keys() for parts in whole.stages.values())
    assert [name for name, parts in less.stages.items() if "reference" in parts] == ["evaluation"]
    assert [name for name, parts in less.stages.items() if "optimizer" in parts] == ["update", "optimizer"]
    assert less.stages["optimizer"]["optimizer"] == whole.stages["optimizer"]["optimizer"]


@pytest.mark.parametrize(("setting", "is_needed"), [("minibatches=1", False), ("minibatches=2", True)])
def test_a_pass_for_old_logprobs_is_planned_where_a_run_needs_one(plan, setting: str, is_needed: bool) -> None:
    found = plan(f"trainer.{setting}").counted.stages
    assert (found["evaluation"].flops > 0.1 * found["update"].flops) == is_needed


def test_lora_has_gradients_and_states_of_its_adapters_alone(plan) -> None:
    found = plan("model.lora.rank=4")
    assert found.counted.trained < found.counted.model / 5
    assert found.stages["optimizer"]["gradients"] == 4 * found.counted.trained


@pytest.mark.slow
def test_a_separate_critic_and_a_reference_cost_a_model_each(plan) -> None:
    alone = plan()
    both = plan("algorithm.name=ppo", "critic.kind=separate", "algorithm.kl.coef=0.1", "algorithm.kl.placement=reward")
    model = 4 * alone.counted.model
    assert both.stages["update"]["reference"] == pytest.approx(model, rel=0.02)
    assert both.stages["update"]["critic"] == pytest.approx(model, rel=0.02)
    assert both.counted.trained == pytest.approx(2 * alone.counted.trained, rel=0.02)


@pytest.mark.slow
def test_activations_grow_with_the_rows_and_shrink_with_checkpointing(plan) -> None:
    one, two = plan(), plan("trainer.max_tokens_per_microbatch=1024")
    assert (one.workload.rows, two.workload.rows) == (4, 8)
    assert two.stages["update"]["activations"] == pytest.approx(2 * one.stages["update"]["activations"], rel=0.02)
    recomputed = plan("model.gradient_checkpointing=true")
    assert recomputed.stages["update"]["activations"] < 0.5 * one.stages["update"]["activations"]
    assert recomputed.counted.stages["update"].flops > 1.2 * one.counted.stages["update"].flops


def test_flops_are_two_and_six_per_weight_and_token(plan) -> None:
    found = plan()
    rows, length = found.workload.rows, found.workload.length
    blocks, head = found.counted.model - 258 * 64, 258 * 64
    attention = 14 * length**2 * 64 * 4  # two products forward, five backward, over layers
    wanted = rows * (6 * length * blocks + 6 * found.workload.completion * head + attention)
    assert found.counted.stages["update"].flops == pytest.approx(wanted, rel=0.02)


@pytest.mark.slow
def test_the_cache_holds_all_rows_at_their_limits(plan) -> None:
    found = plan()
    per_token = 2 * 4 * 2 * 16 * 4  # keys and values, layers, heads, size, float32
    assert found.workload.decoded_rows == 32
    assert found.stages["sampling"]["KV cache"] == pytest.approx(32 * 128 * per_token, rel=0.2)
    low = plan("algorithm.kl.coef=0.1", gpu="h100")
    assert low.stages["sampling"]["KV cache"] == pytest.approx(32 * 128 * per_token / 2, rel=0.2)


@pytest.mark.slow
def test_ddp_adds_buckets_and_fsdp_divides_states(plan) -> None:
    one, ddp = plan(), plan(gpu="H100", gpus=4)
    seen, trained = one.counted, one.counted.trained
    assert ddp.stages["update"]["DDP buckets"] == 4 * trained
    assert ddp.workload.rows_per_step == one.workload.rows_per_step // 4
    parts = {"weights": 400, "optimizer": 800, "reference": 100, "activations": 50, "cast weights": 7}
    sharded = shard(parts, seen, gpus=4, sharding="fsdp")
    assert {name: sharded[name] for name in ("weights", "optimizer", "reference", "activations")} == {
        "weights": 100,
        "optimizer": 200,
        "reference": 25,
        "activations": 50,
    }
    assert sharded["gathered layers"] == 4 * seen.largest_layer + seen.outside_layers
    assert shard(parts, seen, gpus=1, sharding="fsdp") == parts


@pytest.mark.slow
def test_a_backend_that_samples_with_the_policy_gathers_all_of_it(plan) -> None:
    one, sharded = plan(), plan(gpu="H100", gpus=2, sharding="fsdp")
    assert sharded.precision == "bfloat16"
    assert sharded.stages["sampling"]["gathered layers"] == 2 * one.counted.model
    seen = one.counted
    assert sharded.stages["update"]["gathered layers"] == 4 * seen.largest_layer + seen.outside_layers


def test_time_and_money_are_ranges_for_a_named_gpu_alone(plan) -> None:
    fast, slow = plan(gpu="H100", gpus=4).durations
    assert 0 < fast.hours < slow.hours
    assert fast.flops < slow.flops
    assert not plan().durations
    assert replace(plan(gpu="H100", gpus=4), price=2.0).money == [2.0 * 4 * d.hours for d in (fast, slow)]


def test_a_gpu_keeps_a_reserve(plan) -> None:
    on_cpu = plan()
    assert on_cpu.fits
    assert not on_cpu.reserve
    for gib, fits in ((1.05 * on_cpu.peak / GIB + 1.001, True), (1.05 * on_cpu.peak / GIB + 0.999, False)):
        assert replace(on_cpu, target=Target(find_gpu(str(gib)), gib)).fits is fits


@pytest.mark.parametrize("text", ["H100", "h100", "NVIDIA H100", "rtx4090", "4090", "RTX 4090", "a100-80"])
def test_gpus_are_found_in_any_spelling(text: str) -> None:
    assert find_gpu(text) in KNOWN


@pytest.mark.parametrize("text", ["24", "24GiB", "24 gb", "22.5"])
def test_a_memory_is_a_gpu_of_unknown_speed(text: str) -> None:
    assert find_gpu(text).gib in (24.0, 22.5)
    assert not find_gpu(text).tflops("bfloat16")


@pytest.mark.parametrize("text", ["H1000", "", "-3", "0", "nan", "1e9", "24 TB", "..", "4091", "5080"])
def test_an_unknown_gpu_names_the_known_ones(text: str) -> None:
    with pytest.raises(RecipeError, match=r"RTX 4090, .*B200; got"):
        find_gpu(text)


@pytest.mark.slow
def test_the_command_prints_a_table_or_json(plan) -> None:
    arguments = ["plan", str(RECIPE), *SMALL, *SIZES, f"model.path={plan().model}"]
    shown = CliRunner(env={"COLUMNS": "80"}).invoke(app, [*arguments, "--gpu", "H100", "--price", "2"])
    assert shown.exit_code == 0, shown.output
    for wanted in ("MiB", "sampling", "saving", "weights", "KV cache", "total", "peak", ": fits", "per GPU and hour"):
        assert wanted in shown.output
    rows = [line for line in shown.output.splitlines() if not line.startswith(" ") and "/" not in line]
    assert max(map(len, rows)) <= 80
    data = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).output)
    assert data["fits"] is True
    assert data["peak"]["bytes"] == max(stage["total"] for stage in data["stages"].values())


def test_the_command_refuses_in_one_line() -> None:
    for extra, wanted in (
        (["--gpu", "nope"], "expected a memory in GiB such as 24, or one of T4"),
        (["--gpu", "24", "model.name=null", "model.path=nobody/knows"], "config.json is not on this machine"),
        (["--gpus", "2"], "--gpus needs --gpu"),
    ):
        result = CliRunner(env={"HF_HUB_OFFLINE": "1"}).invoke(app, ["plan", str(RECIPE), *extra])
        assert result.exit_code == 2, result.output
        assert wanted in " ".join(result.output.split())
        assert "Traceback" not in result.output


@pytest.mark.slow
def test_remedies_fit_and_are_the_mildest(plan) -> None:
    """A GPU without room for all activations: smaller micro-batches fit, and nothing else is changed."""
    large = plan("rollout_backend.max_batch_rows=1", gpu="24")
    parts = large.stages["update"]
    room = 1 + 1.05 * (sum(parts.values()) - 0.6 * parts["activations"]) / GIB

    @cache
    def planner(further: tuple[str, ...]):
        resolved = check_recipe(RECIPE, [*SMALL, *SIZES, f"model.path={large.model}", *further], load_plugins())
        found = plan("rollout_backend.max_batch_rows=1", *further, gpu="24")
        return resolved, replace(found, target=Target(found.target.gpu, room))

    resolved, before = planner(())
    assert not before.fits
    (remedy,) = find_remedies(resolved, planner)
    assert remedy.overrides in {(f"trainer.max_tokens_per_microbatch={rows * 128}",) for rows in (1, 2)}
    assert remedy.plan.fits


@pytest.mark.slow
def test_checks_refuse_what_cannot_fit(plan) -> None:
    check = ["recipes", "check", str(RECIPE), *SMALL, *SIZES, f"model.path={plan().model}", "--gpu"]
    fits = CliRunner().invoke(app, [*check, "24"])
    assert fits.exit_code == 0, fits.output
    assert "of 24.0 GiB: fits" in " ".join(fits.output.split())
    refused = CliRunner().invoke(app, [*check, "1"])
    assert refused.exit_code == 2
    assert "does not fit on a GPU; `reasonrl plan" in refused.output
    assert "expected a memory in GiB" in CliRunner().invoke(app, [*check, "big"]).output


@pytest.mark.slow
def test_a_run_says_what_it_is_expected_to_need(plan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("reasonrl.cli.forecast.SMALL_BYTES", 1)
    arguments = [*SMALL, *SIZES, f"model.path={plan().model}", f"output_dir={tmp_path}", "trainer.steps=1"]
    arguments += ["sampling.max_prompt_tokens=48", "sampling.max_completion_tokens=8"]
    result = CliRunner().invoke(app, ["train", str(RECIPE), "--plain", *arguments])
    assert result.exit_code == 0, result.output
    assert re.search(r"expected +memory: peak 0\.\d+ GiB \(\w+\), of [\d.]+ GiB: fits", result.output)


def test_a_small_model_on_a_cpu_starts_without_a_plan() -> None:
    resolved = check_recipe(RECIPE, [], load_plugins())
    assert not is_large(resolved)
    assert forecast(resolved, load_plugins()) == ()


@pytest.mark.slow
def test_quantized_weights_and_small_states_have_their_sizes(plan) -> None:
    """Without bitsandbytes. NF4 is for linear layers; tensors of fewer than 4,096 values keep float32 moments."""
    lora, quantized = plan("model.lora.rank=4"), plan("model.lora.rank=4", "model.lora.quantization=nf4")
    linear = 4 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128)
    saved = lora.stages["optimizer"]["weights"] - quantized.stages["optimizer"]["weights"]
    assert saved == pytest.approx((4 - 0.5 - 1 / 64) * linear, rel=0.02)
    assert quantized.counted.model == lora.counted.model
    trained, large = plan().counted.trained, 258 * 64 + 4 * (2 * 64 * 64 + 3 * 64 * 128)
    in_8_bit = large * (2 + 8 / 256) + 8 * (trained - large)
    for name, states in (("adamw_bf16", 4 * trained), ("adamw_8bit", in_8_bit)):
        found = plan(f"optimizer.name={name}").stages["optimizer"]["optimizer"]
        assert found == pytest.approx(states, rel=0.01), name
