"""Figures per token: where a token lies in its text, and what the update knows of it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.builders import completion, group, output
from support.scripted import CASES, run_update, scripted_groups, tiny_policy
from support.tiny_runs import RECIPES, metrics_of, tiny
from typer.testing import CliRunner

from reasonrl import ScoredGroup
from reasonrl.cli.app import app
from reasonrl.contracts.batch import AdvantageOutput, PolicyEval
from reasonrl.data.collate import collate
from reasonrl.testing.models import EOS_TOKEN, byte_tokenizer
from reasonrl.trainer import token_figures
from reasonrl.trainer.token_figures import Boundaries, TokenFigures

BYTES = byte_tokenizer()


def ids_of(raw: bytes) -> list[int]:
    """The byte-level tokens of any bytes, valid UTF-8 or not."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    names = bytes_to_unicode()
    return BYTES.convert_tokens_to_ids([names[byte] for byte in raw])


def spell(tokenizer: Any, ids: list[int], text: str | None = None) -> list[str] | None:
    """The text of each token."""
    shown = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    text = shown if text is None else text
    lengths = Boundaries(tokenizer).lengths((7,), completion(ids, text=text))
    if lengths is None:
        return None
    ends = [sum(lengths[: i + 1]) for i in range(len(lengths))]
    return [text[end - length : end] for length, end in zip(lengths, ends, strict=True)]


@pytest.mark.parametrize(
    ("raw", "texts"),
    [
        (b"12-5", ["1", "2", "-", "5"]),
        ("é€😀".encode(), ["é", "", "€", "", "", "😀", "", "", ""]),
        ("a€".encode()[:-1], ["a", "\ufffd", ""]),  # cut off inside a character
        (b"\xe2\x82A", ["\ufffd", "", "A"]),
        (b"\x80\xc0\xe2B", ["\ufffd", "\ufffd", "\ufffd", "B"]),
        ("\ufffd1".encode(), ["\ufffd", "", "", "1"]),
        (b"", []),
    ],
)
def test_tokens_are_found_in_the_text(raw: bytes, texts: list[str]) -> None:
    assert spell(BYTES, ids_of(raw)) == texts


def test_the_final_eos_has_no_text_and_wrong_tokens_have_none() -> None:
    assert spell(BYTES, [*ids_of(b"12"), 256], "12") == ["1", "2", ""]
    assert spell(BYTES, [*ids_of("€".encode()[:1]), 256], "\ufffd") == ["\ufffd", ""]
    assert spell(BYTES, [256, *ids_of(b"1")]) == [EOS_TOKEN, "1"]
    assert spell(BYTES, ids_of(b"12"), "13") is None
    assert spell(BYTES, ids_of(b"1"), "12") is None
    assert spell(BYTES, ids_of(b"\x80" * 200)) is None  # noise: not worth its time


def test_a_tokenizer_that_drops_the_first_space_of_a_text() -> None:
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    names = ["▁say", "▁so", "▁a", "b"]
    backend = Tokenizer(models.WordLevel({name: place for place, name in enumerate(names)}, unk_token="b"))
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    assert tokenizer.decode([1, 2, 3, 2]) == "so ab a"
    lengths = Boundaries(tokenizer).lengths((0,), completion([1, 2, 3, 2], text="so ab a"))
    assert lengths == [2, 2, 1, 2]


def test_figures_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_figures, "MAX_TOKENS", 2)
    texts, logprobs = (b"123", b"4", b"5", b"6"), ((-1.0, -2.0, -3.0), (-1.0,), (-1.0,), (-1.0,))
    rows = ScoredGroup(
        group=group(
            [
                completion(ids_of(text), text=text.decode(), logprobs=numbers, version=int(text == b"5"))
                for text, numbers in zip(texts, logprobs, strict=True)
            ]
        ),
        rewards=(output(1.0), output(None), output(0.0), output(0.0)),
    )
    batch = collate([rows], pad_id=0, device=torch.device("cpu"))
    keeper = TokenFigures(BYTES, 3)
    old = torch.tensor([[9.0, -1.25, -2.0, 0.0]])
    keeper.see([2, 0], torch.cat([old - 1, old]), torch.tensor([[0.0, 1.0, 0.5, 9.0], [0.0, 2.0, 0.5, 9.0]]))
    keeper.see([3], old, None)
    advantages = torch.tensor([[0.0, 0.5, 0.5, 0.5], [0.0] * 4, [0.0, -1.0, 0.0, 0.0], [0.0] * 4])
    evals = PolicyEval(old_logprobs=None, ref_logprobs=None, values=None)
    found = keeper.take([rows], batch, evals, AdvantageOutput(advantages=advantages), 0)
    first = {"lengths": [1, 1], "logprob_gap": [-0.25, 0.0], "advantage": 0.5, "entropy": [2.0, 0.5]}
    stale = {"lengths": [1], "logprob_gap": None, "advantage": -1.0, "entropy": [1.0]}
    assert found == [first, None, stale], "the second is unscored, the third of another policy, the fourth too many"
    found = keeper.take([rows], batch, evals, AdvantageOutput(advantages=advantages), 0)
    assert found[0] == {"lengths": [1, 1], "logprob_gap": None, "advantage": 0.5, "entropy": None}, "left out"


def test_only_the_first_epoch_is_seen_and_every_row_of_it_once() -> None:
    case = CASES["ppo"]
    groups = scripted_groups(4, 2)
    seen: dict[int, dict[int, list[float]]] = {}
    for epochs in (1, 3):
        seen[epochs] = {}

        def see(rows: Any, old: Any, entropy: Any, kept: dict[int, list[float]] = seen[epochs]) -> None:
            assert not kept.keys() & {*rows}
            kept.update({row: entropy[place, :2].tolist() for place, row in enumerate(rows)})

        run_update(case, tiny_policy(case), groups, group_size=2, max_tokens=30, update_epochs=epochs, see=see)
    assert seen[1] == seen[3]
    assert len(seen[1]) == 7  # of 8 completions one is unscored


def train(run: Path, model: Path, *more: str) -> list[dict[str, Any]]:
    overrides = tiny(model, "trainer.minibatches=2", "logging.transcripts_per_step=4", *more)
    result = CliRunner().invoke(app, ["train", str(RECIPES / "countdown_ppo.yaml"), *overrides, "--run-dir", str(run)])
    assert result.exit_code == 0, result.output
    lines = (run / "transcripts" / "step_000001.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_a_run_writes_figures_and_is_not_changed_by_them(tiny_model: Path, tmp_path: Path) -> None:
    records = train(tmp_path / "with", tiny_model)
    tokens = [record["tokens"] for record in records]
    for record, figures in zip(records, tokens, strict=True):
        assert sum(figures["lengths"]) == len(record["completion"])
        assert {len(figures[name]) for name in ("logprob_gap", "entropy")} == {record["completion_tokens"]}
    entropies = [value for figures in tokens for value in figures["entropy"]]
    known = metrics_of(tmp_path / "with")
    assert sum(entropies) / len(entropies) == pytest.approx(known[0]["policy/entropy"], abs=1e-4)
    assert not any(
        "tokens" in record for record in train(tmp_path / "out", tiny_model, "logging.token_figures_per_step=0")
    )
    steps = [
        [{k: v for k, v in line.items() if k[:4] in ("trai", "poli", "loss")} for line in lines]
        for lines in (known, metrics_of(tmp_path / "out"))
    ]
    assert steps[0] == steps[1]
