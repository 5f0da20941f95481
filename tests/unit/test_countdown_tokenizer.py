"""The tiny model's tokenizer, and that what is shipped is what the code builds."""

import json
import random
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

import reasonrl_countdown
from reasonrl_countdown.tokenizer import EOS, LATER_PIECES, PAD, PIECES, VOCAB_SIZE, build_tokenizer, write_model_folder

SHIPPED = Path(reasonrl_countdown.__file__).parent / "models" / "countdown-base"
TRACE = "Numbers: 8 5 12. Target: 15.\n<think>\n8*5=40, 40-12=28 no\n12-5=7, 7+8=15 yes\n</think>\n"
TRACE += "<answer>(12-5)+8</answer>"


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(SHIPPED)


def test_the_shipped_files_are_what_the_code_builds(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    write_model_folder(tmp_path)
    assert json.loads((SHIPPED / "tokenizer.json").read_text()) == json.loads((tmp_path / "tokenizer.json").read_text())
    shipped, built = AutoConfig.from_pretrained(SHIPPED), AutoConfig.from_pretrained(tmp_path)
    names = ("model_type", "vocab_size", "hidden_size", "num_hidden_layers", "eos_token_id", "pad_token_id")
    assert [getattr(shipped, n) for n in names] == [getattr(built, n) for n in names]
    assert tokenizer.chat_template == build_tokenizer().chat_template


def test_it_reloads_as_itself_beside_its_model(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """AutoTokenizer may rebuild a tokenizer by model type; saving and loading must change no id."""
    tokenizer.save_pretrained(tmp_path)
    AutoConfig.from_pretrained(SHIPPED).save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    text = TRACE + " \u00e9 e\u0301 1234"
    assert again.encode(text) == tokenizer.encode(text) == build_tokenizer().encode(text)
    assert (again.eos_token, again.pad_token, len(again)) == (EOS, PAD, VOCAB_SIZE)


def test_an_attempt_of_three_numbers_is_twelve_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tokenizer.encode("8*5=40, 40-12=28 no\n")
    assert [tokenizer.decode([i]) for i in ids] == [
        "8",
        "*",
        "5",
        "=",
        "40",
        ", ",
        "40",
        "-",
        "12",
        "=",
        "28",
        " no\n",
    ]


def test_pieces_are_single_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    pieces = [*PIECES, *LATER_PIECES, EOS, PAD, *(str(n) for n in range(500))]
    encoded = [tokenizer.encode(piece) for piece in pieces]
    assert [len(ids) for ids in encoded] == [1] * len(pieces)
    assert [tokenizer.decode(ids) for ids in encoded] == pieces


def test_later_pieces_changed_no_id(tokenizer: PreTrainedTokenizerFast) -> None:
    """The weights of countdown-base were trained with the ids before them."""
    assert tokenizer.convert_tokens_to_ids(["0", "<think>\u010a", "10", "499", "<calc>"]) == [50, 258, 271, 760, 761]


def test_longest_match_and_no_leading_zeros(tokenizer: PreTrainedTokenizerFast) -> None:
    def pieces(text: str) -> list[str]:
        return [tokenizer.decode([i]) for i in tokenizer.encode(text)]

    assert pieces("1234") == ["123", "4"]
    assert pieces("500") == ["50", "0"]
    assert pieces("007") == ["0", "0", "7"]
    assert pieces("<think>\n<think>x") == ["<think>\n", "<think>", "x"]


def test_special_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    """Only end and padding are special: the tags must survive decoding, as rewards read them."""
    assert set(tokenizer.all_special_tokens) == {EOS, PAD}
    assert tokenizer.eos_token_id != tokenizer.pad_token_id
    ids = tokenizer.encode(TRACE + EOS)
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(ids, skip_special_tokens=True) == TRACE


def test_any_text_comes_back_exactly(tokenizer: PreTrainedTokenizerFast) -> None:
    rng = random.Random(0)
    alphabet = [
        *PIECES,
        EOS,
        PAD,
        "007",
        "499500",
        " ",
        "\n",
        "\x00",
        "é",
        "e\u0301",
        "٣",
        "🎉",
        "\u2028",
        "a",
        "<",
        " ,",
    ]
    for _ in range(500):
        text = "".join(rng.choices(alphabet, k=rng.randint(0, 20)))
        text += "".join(chr(c) for c in rng.choices(range(0xD800), k=rng.randint(0, 5)))
        assert tokenizer.decode(tokenizer.encode(text), skip_special_tokens=False) == text


def test_every_id_the_model_can_sample_decodes(tokenizer: PreTrainedTokenizerFast) -> None:
    names = tokenizer.convert_ids_to_tokens(list(range(VOCAB_SIZE)))
    assert None not in names
    assert len(set(names)) == VOCAB_SIZE


def test_any_conversation_renders(tokenizer: PreTrainedTokenizerFast) -> None:
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    assert tokenizer.apply_chat_template(messages, tokenize=False) == "system: S\nuser: U\n"
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert rendered == "system: S\nuser: U\nassistant: "


def test_the_model_is_tiny() -> None:
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(SHIPPED))
    assert model.config.vocab_size == VOCAB_SIZE
    assert 800_000 < sum(p.numel() for p in model.parameters()) < 900_000
