"""Imitation: the right loss, the right gradient, and a model that loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.small_recipes import cli, sft_recipe, summary_of
from support.tiny_runs import metrics_of

PAIRS = [
    ("1+1=", "2"),
    ("the longest of all prompts: ", "short"),
    ("a", "a rather long completion."),
    ("?", ""),
]
RATE = 0.1
# AdamW whose epsilon outweighs every gradient is gradient descent with rate learning_rate / eps.
DESCENT = {"learning_rate": RATE * 1e8, "eps": 1e8, "max_grad_norm": 1e9}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps({"prompt": p, "completion": c}) + "\n" for p, c in PAIRS))
    return path


def total_tokens() -> int:
    """One byte is one token; every completion ends with EOS."""
    return sum(len(p) + len(c) + 1 for p, c in PAIRS)


def from_file(folder: Path, model: Path, file: Path, **sections: Any) -> Path:
    """One step on the whole file."""
    defaults: dict[str, Any] = {
        "task": None,
        "data": {"path": str(file)},
        "sft": {"max_tokens": total_tokens(), "tokens_per_batch": total_tokens()},
        "sampling": {"max_prompt_tokens": 40, "max_completion_tokens": 40},
        "evaluation": {"every": 0},
        "optimizer": DESCENT,
    }
    return sft_recipe(folder, model, **{**defaults, **sections})


def sft(path: Path, run_dir: Path, *more: object, code: int = 0) -> Any:
    done = cli("sft", path, "--run-dir", run_dir, *more)
    assert done.exit_code == code, done.output
    return done


def weights(folder: Path) -> dict[str, torch.Tensor]:
    from transformers import AutoModelForCausalLM

    return dict(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).named_parameters())


def plain_cross_entropy(model_folder: Path) -> tuple[float, dict[str, torch.Tensor]]:
    """Token-mean loss over all examples and its gradient: one unpadded row at a time, by transformers alone."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float64).eval()
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    count, total = 0, 0.0
    for prompt, completion in PAIRS:
        start = tokenizer(prompt)["input_ids"]
        end = [*tokenizer(completion)["input_ids"], tokenizer.eos_token_id]
        labels = torch.tensor([[-100] * len(start) + end])
        # transformers gives the mean over this row's labels
        loss = model(input_ids=torch.tensor([start + end]), labels=labels).loss * len(end)
        loss.backward()
        count, total = count + len(end), total + loss.item()
    return total / count, {name: p.grad / count for name, p in model.named_parameters()}


def test_loss_and_gradient_are_the_plain_token_mean_cross_entropy(tiny_model: Path, tmp_path: Path, file: Path) -> None:
    sft(from_file(tmp_path, tiny_model, file), tmp_path / "run")
    (line,) = metrics_of(tmp_path / "run")
    loss, gradient = plain_cross_entropy(tiny_model)
    assert line["loss/sft"] == pytest.approx(loss, rel=1e-5)
    norm = torch.stack([g.norm() for g in gradient.values()]).norm().item()
    assert line["optim/grad_norm"] == pytest.approx(norm, rel=1e-4)
    before, after = weights(tiny_model), weights(tmp_path / "run" / "checkpoints" / "step_000001")
    for name, value in gradient.items():
        moved = (before[name] - after[name]).double() / RATE
        torch.testing.assert_close(moved, value, rtol=1e-3, atol=2e-5, msg=name)
    assert line["batch/train_tokens"] == total_tokens()


def test_micro_batches_do_not_matter(tiny_model: Path, tmp_path: Path, file: Path) -> None:
    lines, trained = [], []
    for budget in (1, 60, 10_000):
        sections = {"sft": {"max_tokens": 1, "tokens_per_batch": total_tokens()}}
        sections["sft"]["max_tokens_per_microbatch"] = budget
        sft(from_file(tmp_path, tiny_model, file, **sections), tmp_path / str(budget))
        lines += metrics_of(tmp_path / str(budget))
        trained.append(weights(tmp_path / str(budget) / "checkpoints" / "step_000001"))
    for line, parameters in zip(lines[1:], trained[1:], strict=True):
        assert line["loss/sft"] == pytest.approx(lines[0]["loss/sft"], rel=1e-5)
        for name, value in parameters.items():
            torch.testing.assert_close(value, trained[0][name], rtol=0, atol=1e-6, msg=name)
    assert all(line["batch/padding_frac"] == 0 < line["batch/shared_frac"] for line in lines)


def test_imitating_a_task_brings_the_loss_down(tiny_model: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = sft_recipe(tmp_path, tiny_model, sft={"max_tokens": 4000, "tokens_per_batch": 200})
    done = sft(path, tmp_path / "run", "--output", tmp_path / "copy")
    losses = [line["loss/sft"] for line in metrics_of(tmp_path / "run")]
    assert len(losses) == 20
    assert losses[-1] < 0.7 * losses[0]
    assert "loss " in done.output
    summary = summary_of(tmp_path / "run")
    assert (summary["outcome"], summary["steps"]) == ("completed", 20)
    assert summary["eval"]["first"]["step"] == 0
    assert summary["eval"]["last"]["step"] == 20
    saved = weights(tmp_path / "run" / "checkpoints" / "step_000020")
    copied = weights(tmp_path / "copy")
    assert all(torch.equal(saved[name], copied[name]) for name in saved)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "copy")
    ids = torch.tensor([tokenizer("7+1=")["input_ids"]])
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "copy")(ids).logits.isfinite().all()


def test_the_same_recipe_learns_the_same(tiny_model: Path, tmp_path: Path) -> None:
    runs = []
    for name in ("a", "b"):
        sft(sft_recipe(tmp_path, tiny_model), tmp_path / name)
        runs.append([line["loss/sft"] for line in metrics_of(tmp_path / name)])
    assert runs[0] == runs[1]


def test_a_prompt_teaches_nothing(tiny_model: Path, tmp_path: Path, file: Path) -> None:
    """The loss counts completion tokens only: the first example's loss is that of its completion alone."""
    one = tmp_path / "one.jsonl"
    one.write_text(json.dumps({"prompt": PAIRS[0][0], "completion": PAIRS[0][1]}) + "\n")
    sections = {"sft": {"max_tokens": 6, "tokens_per_batch": 6}}
    sft(from_file(tmp_path, tiny_model, one, **sections), tmp_path / "run")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    ids = torch.tensor([[*tokenizer("1+1=2")["input_ids"], tokenizer.eos_token_id]])
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(tiny_model)(ids).logits.log_softmax(-1)
    expected = -(logits[0, 3, ids[0, 4]] + logits[0, 4, ids[0, 5]]) / 2
    assert metrics_of(tmp_path / "run")[0]["loss/sft"] == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "bad.jsonl: no such file"),
        ("", "bad.jsonl: empty file"),
        ("{}\n", "bad.jsonl:1: expected non-null columns 'prompt' and 'completion', or 'messages'"),
        (json.dumps({"prompt": "x" * 99, "completion": "y"}) + "\n", "over sampling.max_prompt_tokens=40"),
    ],
    ids=["missing", "empty", "no prompt", "long prompt"],
)
def test_bad_demonstrations_end_with_one_line_and_write_nothing(
    text: str | None, message: str, tiny_model: Path, tmp_path: Path
) -> None:
    file = tmp_path / "bad.jsonl"
    if text is not None:
        file.write_text(text)
    path = from_file(tmp_path, tiny_model, file)
    done = sft(path, tmp_path / "run", code=2)
    assert message in done.output
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "runs").exists()


def small_context(folder: Path, positions: int) -> Path:
    """A model with learned positions: beyond its context the forward pass is an IndexError."""
    from transformers import AutoModelForCausalLM

    from reasonrl.testing.models import byte_tokenizer, tiny_config

    AutoModelForCausalLM.from_config(tiny_config("gpt2", max_positions=positions)).save_pretrained(folder)
    byte_tokenizer("gpt2").save_pretrained(folder)
    return folder


def write_pairs(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_what_does_not_fit_the_models_context_is_cut_and_counted(tmp_path: Path) -> None:
    model = small_context(tmp_path / "model", 32)
    rows = [{"prompt": "1+1=", "completion": c} for c in ("2", "2<|endoftext|>", "y" * 200, "2")]
    file = write_pairs(tmp_path / "pairs.jsonl", *rows)
    limits = {"max_prompt_tokens": 500, "max_completion_tokens": 500}
    path = from_file(tmp_path, model, file, sampling=limits, sft={"max_tokens": 50, "tokens_per_batch": 50})
    done = sft(path, tmp_path / "run")
    said = f"{file}: 4 rows read, 4 kept, 2 duplicates (kept), 1 truncated, without EOS, 1 already ended in EOS"
    assert said in " ".join(done.output.split())
    (line,) = metrics_of(tmp_path / "run")
    assert line["batch/cut_completions"] == 1
    assert line["batch/train_tokens"] == 3 * 6 + 32


def test_a_prompt_that_fills_the_context_stops_or_is_dropped(tmp_path: Path) -> None:
    model = small_context(tmp_path / "model", 32)
    rows = [{"prompt": p, "completion": "yes"} for p in ("1+1=", "x" * 32)]
    file = write_pairs(tmp_path / "pairs.jsonl", *rows)
    limits = {"max_prompt_tokens": 500, "max_completion_tokens": 500}
    path = from_file(tmp_path, model, file, sampling=limits, sft={"max_tokens": 8, "tokens_per_batch": 8})
    done = sft(path, tmp_path / "run", code=2)
    assert f"the prompt of problem '{file}:2' has 32 tokens" in done.stderr
    assert "it does not fit the model's context of 32 tokens" in done.stderr
    assert "or skip such examples with sampling.overlong_prompts=drop" in done.stderr
    assert not (tmp_path / "run").exists()
    done = sft(path, tmp_path / "run", "sampling.overlong_prompts=drop")
    assert "2 rows read, 1 kept, 1 dropped (prompt over 31 tokens)" in " ".join(done.output.split())


def test_columns_messages_and_formats_train_alike(tiny_model: Path, tmp_path: Path) -> None:
    """The same pairs, three ways: the same losses."""
    turns = [[{"role": "user", "content": p}, {"role": "assistant", "content": c}] for p, c in PAIRS if c]
    losses = []
    for name, data, rows in (
        ("messages", {}, [{"messages": t} for t in turns]),
        (
            "columns",
            {"prompt": "x.ask", "completion": "say"},
            [{"x": {"ask": t[:1]}, "say": t[1:]} for t in turns],
        ),
        ("mixed", {"completion": "answer"}, [{"prompt": t[:1], "answer": t[1]["content"]} for t in turns]),
    ):
        file = write_pairs(tmp_path / f"{name}.jsonl", *rows)
        sections = {
            "data": {"path": str(file), **data},
            "sft": {"max_tokens": 300, "tokens_per_batch": 150},
            "sampling": {"max_prompt_tokens": 80},
        }
        sft(from_file(tmp_path, tiny_model, file, **sections), tmp_path / name)
        losses.append([line["loss/sft"] for line in metrics_of(tmp_path / name)])
    assert losses[0] == losses[1] == losses[2]


TALK = [
    {"role": "user", "content": "1+1"},
    {"role": "assistant", "content": "2"},
    {"role": "user", "content": "and 3"},
    {"role": "user", "content": "please"},
    {"role": "assistant", "content": "5."},
]


ENDS = (
    "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}{% if m.role == 'assistant' %}<|endoftext|>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}a:{% endif %}"
)
"""A template that ends the model's messages as sampling does."""
FIRST = len("u:1+1a:2") + 1
WHOLE = FIRST + len("u:and 3u:pleasea:5.") + 1
"""Tokens up to the first and the last message of the assistant."""


def test_a_conversation_has_the_gradient_of_its_messages_one_by_one(tiny_model: Path, tmp_path: Path) -> None:
    """One step of gradient descent on the whole, and on a row for each message of the assistant."""
    one_by_one = [{"messages": TALK[:2]}, {"messages": TALK}]
    (tmp_path / "ends.jinja").write_text(ENDS, encoding="utf-8")
    steps = []
    whole = [{"messages": TALK}]
    for name, rows, train_on, tokens in (("all", whole, "all", WHOLE), ("last", one_by_one, "last", FIRST + WHOLE)):
        file = write_pairs(tmp_path / f"{name}.jsonl", *rows)
        sections = {
            "data": {"path": str(file), "train_on": train_on},
            "sft": {"max_tokens": tokens, "tokens_per_batch": tokens},
            "sampling": {"max_prompt_tokens": 200},
        }
        path = from_file(tmp_path, tiny_model, file, **sections)
        sft(path, tmp_path / name, f"model.chat_template={tmp_path / 'ends.jinja'}")
        (step,) = metrics_of(tmp_path / name)
        assert step["batch/train_tokens"] == tokens, "the whole file is one batch"
        steps.append(step)
    for key in ("loss/sft", "optim/grad_norm"):
        assert steps[0][key] == pytest.approx(steps[1][key], rel=1e-5)


def test_a_row_that_is_no_conversation_is_refused_by_line(tiny_model: Path, tmp_path: Path) -> None:
    file = write_pairs(tmp_path / "talks.jsonl", {"messages": TALK}, {"messages": [*TALK, TALK[-1]]})
    path = from_file(tmp_path, tiny_model, file, data={"path": str(file), "train_on": "all"})
    done = sft(path, tmp_path / "run", code=2)
    assert f"{file}:2" in done.stderr
    assert "got user, assistant, user, user, assistant, assistant" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_finished_model_needs_its_data_no_more(tiny_model: Path, tmp_path: Path, file: Path) -> None:
    suites = {"held_out": {"problems": 2, "task": {"name": "counting"}}}
    sft(from_file(tmp_path, tiny_model, file, evaluation={"every": 0, "suites": suites}), tmp_path / "run")
    file.unlink()
    done = cli("eval", tmp_path / "run")
    assert done.exit_code == 0, done.output
    done = cli("generate", tmp_path / "run")
    assert (done.exit_code, "no task to take a problem from" in done.output) == (2, True)


def test_a_task_that_cannot_demonstrate_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    plugin = tmp_path / "mute_plugin.py"
    plugin.write_text(
        "from reasonrl import TaskSpec, hookimpl\n"
        "class Mute:\n"
        "    def __init__(self, config, context): ...\n"
        "    def size(self, split): return None\n"
        "    def problem(self, split, index): raise AssertionError\n"
        "@hookimpl\ndef reasonrl_tasks():\n    yield TaskSpec(name='mute', summary='', factory=Mute)\n"
    )
    path = sft_recipe(tmp_path, tiny_model, task={"name": "mute"}, rewards={"flaky": {}}, evaluation={"every": 0})
    done = sft(path, tmp_path / "run", "--plugin", plugin, code=2)
    assert "'mute' has no demonstrations for SFT; set data.path instead" in done.output
    assert not (tmp_path / "run").exists()


def test_an_output_that_cannot_be_a_folder_is_refused_before_any_work(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    done = sft(sft_recipe(tmp_path, tiny_model), tmp_path / "run", "--output", tmp_path / "file", code=2)
    assert "--output" in done.output
    assert not (tmp_path / "run").exists()
    assert (tmp_path / "file").read_text() == "x"


def test_train_and_sft_tell_their_recipes_apart(tiny_model: Path, tmp_path: Path) -> None:
    done = cli("train", sft_recipe(tmp_path, tiny_model))
    assert done.exit_code == 2
    assert "is an SFT recipe; run it with `reasonrl sft" in done.output


def poisoned_model(folder: Path) -> Path:
    """A model to which the letter Z is NaN."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from reasonrl.testing.models import tiny_model_folder

    tiny_model_folder(folder, tie=False)
    model = AutoModelForCausalLM.from_pretrained(folder)
    (letter,) = AutoTokenizer.from_pretrained(folder)("Z")["input_ids"]
    with torch.no_grad():
        model.get_input_embeddings().weight[letter] = float("nan")
    model.save_pretrained(folder)
    return folder


def poisoned_run(tmp_path: Path, prompts: str, code: int) -> Any:
    """One optimizer step for each letter."""
    file = tmp_path / "letters.jsonl"
    file.write_text("".join(json.dumps({"prompt": p, "completion": "yes"}) + "\n" for p in prompts))
    model = poisoned_model(tmp_path / "model")
    sizes = {"max_tokens": 5 * len(prompts), "tokens_per_batch": 5}
    path = from_file(tmp_path, model, file, sft=sizes, optimizer={"learning_rate": 0.01})
    return sft(path, tmp_path / "run", code=code)


def test_a_bad_batch_is_left_out_and_counted(tmp_path: Path) -> None:
    done = poisoned_run(tmp_path, "abZcd", 0)
    lines = metrics_of(tmp_path / "run")
    assert sorted(line["optim/skipped_updates"] for line in lines) == [0.0, 0.0, 0.0, 0.0, 1.0]
    assert done.output.count("[1 non-finite updates skipped]") == 1
    trained = weights(tmp_path / "run" / "checkpoints" / "step_000005")
    spoilt = {name for name, value in trained.items() if not value.isfinite().all()}
    assert spoilt == {"model.embed_tokens.weight"}
    assert (~trained["model.embed_tokens.weight"].isfinite()).any(dim=1).sum() == 1


@pytest.mark.parametrize(("prompts", "code"), [("ZZZ", 1), ("ZZ", 0)])
def test_three_bad_batches_in_a_row_stop_the_run(prompts: str, code: int, tmp_path: Path) -> None:
    done = poisoned_run(tmp_path, prompts, code)
    assert ("3 updates in a row were skipped" in done.output) is (code == 1)
    assert summary_of(tmp_path / "run")["outcome"] == ("failed" if code else "completed")
