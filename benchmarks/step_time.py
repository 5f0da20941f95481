"""Tokens per second of the three costly stages of a step: sampling, policy evaluation, update.

    python benchmarks/step_time.py [--recipe countdown_ppo] [--threads 1] [--repeats 5] [--mean-tokens 54]

Lengths are scripted: the head's output is replaced by a distribution that ends a completion with probability
1 / mean-tokens, so the figures do not depend on what the weights have learned, and two versions of the code
sample the same tokens. Every stage is repeated and the quickest time counts, because other
work on the machine can only make it slower; the CPU seconds suffer less from it. The first line is the machine's
own speed in a float32 matrix product; compare runs by the ratio to it. Nothing is asserted and nothing is written.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable

import torch

from reasonrl import ScoredGroup
from reasonrl.contracts.batch import StepContext, TrainBatch
from reasonrl.contracts.data import RewardOutput, RolloutGroup, RolloutRequest
from reasonrl.data.collate import collate
from reasonrl.data.stream import ProblemStream
from reasonrl.plugins import load_plugins
from reasonrl.recipe.load import load_recipe
from reasonrl.runs.assemble import build_algorithm, build_update_settings
from reasonrl.runs.build import (
    Builder,
    build_optimizer,
    load_bundle,
    quiet_libraries,
)
from reasonrl.trainer.loop import sampling_params
from reasonrl.trainer.microbatch import count_padded_tokens, plan_microbatches
from reasonrl.trainer.policy_eval import evaluate_policy
from reasonrl.trainer.update import Updater


class Bench:
    """The parts of a run, without its folder."""

    def __init__(self, recipe_name: str) -> None:
        quiet_libraries()
        plugins = load_plugins()
        self.resolved = resolved = load_recipe(recipe_name, [], plugins)
        self.recipe = recipe = resolved.recipe
        self.bench = bench = load_bundle(resolved)
        builder = Builder(resolved, plugins)
        self.sampling = sampling_params(recipe.sampling)
        task = builder.tasks.get(resolved.task)
        self.stream = ProblemStream(task, resolved.task.spec.name, "train", seed=recipe.seed)
        self.backend = builder.build_backend(bench)
        self.algorithm = build_algorithm(resolved, plugins)
        # A rate of zero: the weights, and with them the work, stay what they are.
        optimizer = build_optimizer(bench.policy, recipe.optimizer, recipe.critic)
        for group in optimizer.param_groups:
            group["lr"] = 0.0
        self.policy, optimizer = bench.accelerator.prepare(bench.policy, optimizer)
        self.policy.eval()
        self.updater = Updater(
            policy=self.policy,
            optimizer=optimizer,
            algorithm=self.algorithm,
            needs=resolved.needs,
            settings=build_update_settings(resolved),
            accelerator=bench.accelerator,
            ranks=bench.ranks,
        )

    def rollout(self, mean_tokens: float) -> list[RolloutGroup]:
        """One step's completions, of geometric lengths with mean ``mean_tokens``."""
        size = self.recipe.sampling
        requests = []
        for position in range(self.recipe.trainer.prompts_per_step):
            problem = self.stream.problem(position)
            prompt = self.bench.renderer.render(problem)
            requests.append(
                RolloutRequest(
                    problem=problem,
                    prompt_ids=prompt.ids,
                    group_size=size.group_size,
                    sampling=self.sampling,
                    seed=position,
                )
            )
        head = self.bench.policy.model.get_output_embeddings()
        scripted = torch.zeros(head.weight.shape[0])
        others = len(scripted) - 1
        scripted[self.bench.tokenizer.eos_token_id] = math.log(others / (mean_tokens - 1))
        handle = head.register_forward_hook(lambda _module, _args, logits: logits * 0.0 + scripted)
        try:
            return self.backend.generate(requests)
        finally:
            handle.remove()

    def batch(self, groups: list[RolloutGroup]) -> TrainBatch:
        """Every other completion is right, so that no row is without a gradient."""
        scored = [
            ScoredGroup(
                group=g,
                rewards=tuple(RewardOutput(total=float((i + j) % 2), components={}) for j in range(len(g.completions))),
            )
            for i, g in enumerate(groups)
        ]
        return collate(scored, pad_id=self.bench.tokenizer.pad_token_id, device=self.bench.accelerator.device)

    def stages(self, batch: TrainBatch, mean_tokens: float) -> dict[str, Callable[[], object]]:
        """The three stages as functions that can be repeated."""
        trainer = self.recipe.trainer
        ctx = StepContext(step=1, total_steps=1, policy_version=0, reduce=self.bench.ranks.reduce)

        def evaluate() -> object:
            return evaluate_policy(
                self.policy,
                None,
                batch,
                needs=self.resolved.needs,
                used_once=trainer.minibatches * trainer.update_epochs == 1,
                temperature=self.sampling.logprob_temperature,
                max_tokens=trainer.max_tokens_per_microbatch,
                ranks=self.bench.ranks,
            )

        evals = evaluate()
        advantages = self.algorithm.compute_advantages(batch, evals, ctx)
        return {
            "rollout": lambda: self.rollout(mean_tokens),
            "policy_eval": evaluate,
            "update": lambda: self.updater.update(batch, evals, advantages, ctx),
        }


def quickest(work: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Wall and CPU seconds (all threads), each the least of ``repeats`` calls."""
    wall, cpu = [], []
    for _ in range(repeats):
        started = time.perf_counter(), time.process_time()
        work()
        wall.append(time.perf_counter() - started[0])
        cpu.append(time.process_time() - started[1])
    return min(wall), min(cpu)


def sgemm_gflops() -> float:
    """GFLOP/s of a 1024 x 1024 float32 product, by the wall clock."""
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    return 2 * 1024**3 / quickest(lambda: a @ b, 10)[0] / 1e9


def show(line: str) -> None:
    sys.stdout.write(line + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="countdown_ppo", help="file or name of a recipe")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--mean-tokens", type=float, default=54.0, help="mean length of a completion")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    bench = Bench(args.recipe)
    groups = bench.rollout(args.mean_tokens)
    batch = bench.batch(groups)
    sampled, total = int(batch.response_mask.sum()), int(batch.attention_mask.sum())
    lengths = batch.attention_mask.sum(dim=1).tolist()
    budget = bench.recipe.trainer.max_tokens_per_microbatch
    computed = count_padded_tokens(lengths, plan_microbatches(lengths, range(batch.num_rows), budget))
    show(f"sgemm {sgemm_gflops():.1f} GFLOP/s, threads {args.threads}, torch {torch.__version__}")
    show(f"{batch.num_rows} rows, {sampled} sampled and {total} total tokens, {1 - total / computed:.1%} padding")
    for name, work in bench.stages(batch, args.mean_tokens).items():
        wall, cpu = quickest(work, args.repeats)
        tokens = sampled if name == "rollout" else total
        show(f"{name:12} {wall:6.2f} s {tokens / wall:8.0f} tokens/s {cpu:8.2f} CPU s")


if __name__ == "__main__":
    main()
