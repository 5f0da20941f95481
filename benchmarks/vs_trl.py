"""A GRPO step against TRL's on the same work: model, prompts, group size, optimizer, one update a batch.

    python benchmarks/vs_trl.py [--model FOLDER --prompts 4 --group 4 --tokens 32] [--equal] [--own-rewards]
                                [--threads 1] [--repeats 5] [--microbatch 48 | --find-microbatch 24 48 96]

Needs an environment with trl 1.16. Each side is a process of its own; they take turns, and the order changes from round
to round. Without `--equal` completions end where the model ends them; with it all have `--tokens` tokens. Rewards
alternate, so that both sides train every row; with `--own-rewards` our side has the task's, and leaves out groups that
have no gradient, which TRL does not do. `--find-microbatch` times TRL alone with each size and names the best.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

from measure import Channel, Worker, in_turns, peak_of_process, ratio, record, show, summary, table, workers
from subjects import Subject, figures, from_json, open_subject, use_threads

OURS, TRL = "reasonrl", "TRL"
NEVER = 1_000_000


def main() -> None:
    arguments = parse()
    subject = Subject(
        model=arguments.model,
        prompts=arguments.prompts,
        group=arguments.group,
        tokens=arguments.tokens,
        fixed=arguments.equal,
        every_row=not arguments.own_rewards,
    )
    settings = {"subject": subject.to_json(), "threads": arguments.threads}
    ours = Worker("vs_trl.py", {**settings, "side": OURS}, threads=arguments.threads)
    # The same prompts in the same order, as text; ours has rendered them.
    settings["prompts"] = ours.hello["prompts"]
    settings["model"] = ours.hello["model"]
    sizes = arguments.find_microbatch or [arguments.microbatch or min(48, subject.prompts * subject.group)]
    if arguments.find_microbatch:
        ours.close()
        find_microbatch(subject, settings, sizes, arguments)
        return

    def start_trl() -> Worker:
        return Worker("vs_trl.py", {**settings, "side": TRL, "microbatch": sizes[0]}, threads=arguments.threads)

    show(f"{subject.name}, {arguments.threads} threads; TRL {sizes[0]} rows at a time")
    with workers({OURS: lambda: ours, TRL: start_trl}) as sides:
        found = in_turns(sides, arguments.repeats)
    report(subject, arguments, sizes[0], found)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="countdown-base", help="name or folder")
    parser.add_argument("--prompts", type=int, default=48)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=220, help="longest completion")
    parser.add_argument("--equal", action="store_true", help="all completions have --tokens tokens")
    parser.add_argument("--own-rewards", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--microbatch", type=int, help="rows of TRL's forward passes in training")
    parser.add_argument("--find-microbatch", type=int, nargs="+", metavar="ROWS")
    return parser.parse_args()


def find_microbatch(
    subject: Subject, settings: dict[str, Any], sizes: Sequence[int], arguments: argparse.Namespace
) -> None:
    """TRL's seconds with each size."""
    seconds = {}
    for size in sizes:
        start = {
            TRL: lambda size=size: Worker(
                "vs_trl.py", {**settings, "side": TRL, "microbatch": size}, threads=arguments.threads
            )
        }
        with workers(start) as sides:
            seconds[size] = median(step["seconds"] for step in in_turns(sides, arguments.repeats)[TRL])
        show(f"{size} rows at a time: {seconds[size]:.2f} s")
    best = min(seconds, key=lambda size: seconds[size])
    show(f"best: --microbatch {best}")
    record("trl_microbatch", subject=subject.name, threads=arguments.threads, seconds=seconds, best=best)


def report(subject: Subject, arguments: argparse.Namespace, size: int, found: dict[str, list[dict[str, Any]]]) -> None:
    """Check that both did the same work, print the table, append the result."""
    same = same_work(subject, found)
    speeds = {side: [step["tokens"] / step["seconds"] for step in steps] for side, steps in found.items()}
    times = ratio([step["seconds"] for step in found[TRL]], [step["seconds"] for step in found[OURS]])
    tokens = ratio(speeds[OURS], speeds[TRL])
    rows = [
        [
            side,
            f"{median(step['seconds'] for step in steps):.2f}",
            f"{median(speeds[side]):.0f}",
            f"{steps[-1]['trained_rows']}",
            f"{sum(step['tokens'] for step in steps)}",
            f"{steps[-1]['peak_gib']:.2f}",
        ]
        for side, steps in found.items()
    ]
    show(table(("", "s a step", "completion tokens/s", "rows trained", "completion tokens", "peak GiB"), rows))
    for name, value in (("tokens/s", tokens), ("seconds", times)):
        low, high = value["low"], value["high"]
        span = f" ({low:.2f} to {high:.2f})" if low and high else ""
        show(f"{name}: {value['ratio']:.2f} times{span}")
    record(
        "vs_trl",
        subject=subject.name,
        threads=arguments.threads,
        microbatch=size,
        repeats=arguments.repeats,
        tokens_per_s={side: summary(values) for side, values in speeds.items()},
        seconds={side: summary([step["seconds"] for step in steps]) for side, steps in found.items()},
        peak_gib={side: max(step["peak_gib"] for step in steps) for side, steps in found.items()},
        trained_rows={side: steps[-1]["trained_rows"] for side, steps in found.items()},
        mean_tokens={
            side: sum(s["tokens"] for s in steps) / sum(s["rows"] for s in steps) for side, steps in found.items()
        },
        times_faster=times,
        tokens_ratio=tokens,
        same_work=same,
    )


def same_work(subject: Subject, found: dict[str, list[dict[str, Any]]]) -> bool:
    """Rows and prompt tokens must be equal in every round, and completion tokens if lengths are."""
    keys = ["rows", "prompt_tokens"]
    keys += ["trained_rows"] * subject.every_row + ["tokens"] * subject.fixed
    differing = [
        f"{key}: {a[key]} and {b[key]}"
        for a, b in zip(*found.values(), strict=True)
        for key in keys
        if a[key] != b[key]
    ]
    show("not the same work: " + "; ".join(differing) if differing else f"the same work: {', '.join(keys)}")
    return not differing


def work() -> None:
    """A side's process."""
    channel = Channel()
    settings = channel.receive()
    use_threads(settings["threads"])
    subject = from_json(settings["subject"])
    if settings["side"] == OURS:
        take_our_steps(channel, subject)
    else:
        take_trl_steps(channel, subject, settings)


def take_our_steps(channel: Channel, subject: Subject) -> None:
    bench = open_subject(subject)
    peak = peak_of_process()
    drawn = [bench.trainer._rounds._prompts.draw(position) for position in range(64 * subject.prompts)]
    texts = [prompt.prompt.text for prompt in drawn]
    channel.send(prompts=texts, model=bench.bundle.model_path)
    while True:
        channel.receive()
        seconds, metrics = bench.step()
        peak = max(peak, metrics["memory/peak_gib"])
        channel.send(**figures(bench, seconds, metrics), peak_gib=peak)


def trl_config(subject: Subject, size: int, folder: str) -> Any:
    """TRL's settings for the same work, with micro-batches of ``size`` rows, and nothing that costs it time."""
    from trl import GRPOConfig

    return GRPOConfig(
        output_dir=folder,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        disable_dropout=True,
        learning_rate=1e-12,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        max_grad_norm=1.0,
        beta=0.0,
        temperature=1.0,
        num_generations=subject.group,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=subject.prompts * subject.group // size,
        num_iterations=1,
        max_completion_length=subject.tokens,
        shuffle_dataset=False,
        max_steps=NEVER,
        save_strategy="no",
        logging_steps=NEVER,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        seed=0,
    )


def take_trl_steps(channel: Channel, subject: Subject, settings: dict[str, Any]) -> None:
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOTrainer

    seen: dict[str, Any] = {}

    def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
        """Every other completion of a group is right; and how much was sampled."""
        seen.update(rows=len(completion_ids), tokens=sum(map(len, completion_ids)))
        return [float(i % 2) for i in range(len(completion_ids))]

    class Turns(TrainerCallback):
        """Wait before each step until it is asked for."""

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            channel.receive()
            self.started = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            channel.send(
                seconds=time.perf_counter() - self.started,
                trained_rows=seen["rows"],
                prompt_tokens=seen["prompt_tokens"],
                rows=seen["rows"],
                tokens=seen["tokens"],
                peak_gib=peak_of_process(),
            )

    tokenizer = AutoTokenizer.from_pretrained(settings["model"])
    folder = tempfile.TemporaryDirectory()
    trainer = GRPOTrainer(
        AutoModelForCausalLM.from_pretrained(settings["model"], dtype=torch.float32),
        reward_funcs=reward,
        args=trl_config(subject, settings["microbatch"], folder.name),
        train_dataset=Dataset.from_dict({"prompt": settings["prompts"]}),
        processing_class=tokenizer,
        callbacks=[Turns()],
    )
    plain = trainer._generate_single_turn

    def generate(prompt_ids: list[list[int]], *args: Any, **kwargs: Any) -> Any:
        seen["prompt_tokens"] = sum(map(len, prompt_ids))
        return plain(prompt_ids, *args, **kwargs)

    trainer._generate_single_turn = generate
    if subject.fixed:  # no token ends a completion
        trainer.eos_token_ids = [-1]
        trainer.generation_kwargs["eos_token_id"] = trainer.generation_config.eos_token_id = [-1]
    channel.send(microbatch=settings["microbatch"])
    trainer.train()


if __name__ == "__main__":
    import sys

    work() if "--worker" in sys.argv else main()
