"""PolicyModule: alignment, padding, dummy rows, chunks, values and gradients."""

from pathlib import Path

import pytest
import torch
from support.tiny_policies import load_tiny, teacher_forced
from torch import Tensor

import reasonrl.model.policy as policy_module
from reasonrl.errors import RecipeError, ShapeError
from reasonrl.model.critic import build_critic
from reasonrl.model.policy import ForwardOutput, PolicyModule, logits_per_chunk
from reasonrl.model.reference import build_reference
from reasonrl.testing.models import Architecture, tiny_model_folder

ROWS = ((3, 5), (7, 2), (1, 9))
"""(prompt, completion) lengths."""

TOLERANCE = {"gpt_neox": 1e-9, "qwen2": 2e-6, "gemma2": 2e-6}
"""In float64. RMSNorm computes in float32 whatever the model's type is; LayerNorm does not."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("policy")
    names: tuple[Architecture, ...] = ("qwen2", "gemma2", "gpt_neox")
    return {name: tiny_model_folder(root / name, architecture=name) for name in names}


def batch(rows: tuple[tuple[int, int], ...] = ROWS, extra_columns: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    width = max(p + c for p, c in rows) + extra_columns
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, 250, (len(rows), max(p + c for p, c in rows)), generator=generator)
    ids = torch.full((len(rows), width), 257)
    attention, response = (torch.zeros(ids.shape, dtype=torch.bool) for _ in range(2))
    for i, (prompt, completion) in enumerate(rows):
        ids[i, : prompt + completion] = tokens[i, : prompt + completion]
        attention[i, : prompt + completion] = True
        response[i, prompt : prompt + completion] = True
    return ids, attention, response


def policy(folder: Path, critic: str | None = None, **options: object) -> PolicyModule:
    model = load_tiny(folder, **options).model
    return PolicyModule(model, None if critic is None else build_critic(critic, model))


@pytest.mark.parametrize("architecture", ["qwen2", "gemma2", "gpt_neox"])
def test_logprobs_and_entropy_match_single_unpadded_rows_in_float64(
    folders: dict[str, Path], architecture: str
) -> None:
    module = policy(folders[architecture]).double()
    ids, attention, response = batch(extra_columns=4)
    output = module(ids, attention, response, temperature=0.7, entropy="metric")
    assert output.entropy is not None
    for i, (prompt, completion) in enumerate(ROWS):
        row = tuple(ids[i, : prompt + completion].tolist())
        expected = teacher_forced(module.model, row[:prompt], row[prompt:], 0.7)
        span = slice(prompt, prompt + completion)
        torch.testing.assert_close(output.logprobs[i, span], expected, atol=TOLERANCE[architecture], rtol=0)
        with torch.no_grad():
            logits = module.model(ids[i : i + 1, : prompt + completion]).logits[0, prompt - 1 : -1] / 0.7
        entropy = torch.distributions.Categorical(logits=logits).entropy()
        torch.testing.assert_close(output.entropy[i, span], entropy, atol=TOLERANCE[architecture], rtol=0)
    assert (output.logprobs[~response] == 0).all()
    assert (output.entropy[~response] == 0).all()


def test_only_architectures_with_a_plain_head_use_it(folders: dict[str, Path]) -> None:
    assert policy(folders["qwen2"]).path.plain_head
    assert not policy(folders["gemma2"]).path.plain_head


def test_a_soft_cap_that_hardly_shows_is_recognized(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "model", architecture="gemma2")
    loaded = load_tiny(folder)
    loaded.model.config.final_logit_softcapping = 1e4
    assert not PolicyModule(loaded.model).path.plain_head


@pytest.mark.parametrize("architecture", ["qwen2", "gemma2", "gpt_neox"])
def test_padding_content_columns_and_row_order_change_nothing(folders: dict[str, Path], architecture: str) -> None:
    module = policy(folders[architecture], "shared").double()
    with torch.no_grad():
        module.critic.head.weight.normal_(generator=torch.Generator().manual_seed(0))

    def run(ids: Tensor, attention: Tensor, response: Tensor) -> tuple[ForwardOutput, list[Tensor]]:
        module.zero_grad()
        out = module(ids, attention, response, entropy="grad", values=True)
        (out.logprobs.sum() + out.entropy.sum() + out.values.sum()).backward()
        return out, [p.grad.clone() for p in module.parameters()]

    plain, plain_grads = run(*batch())
    ids, attention, response = batch(extra_columns=6)
    junk = torch.randint(0, 258, ids.shape, generator=torch.Generator().manual_seed(8))
    ids = torch.where(attention, ids, junk)
    order = torch.tensor([2, 0, 1])
    padded, padded_grads = run(ids[order], attention[order], response[order])
    width = plain.logprobs.shape[1]
    for name in ("logprobs", "entropy", "values"):
        expected, actual = getattr(plain, name)[order], getattr(padded, name)[:, :width]
        torch.testing.assert_close(actual, expected, atol=TOLERANCE[architecture], rtol=0)
    for expected, actual in zip(plain_grads, padded_grads, strict=True):
        torch.testing.assert_close(actual, expected, atol=20 * TOLERANCE[architecture], rtol=1e-5)


@pytest.mark.parametrize("kind", ["shared", "separate"])
def test_values_are_those_of_the_state_before_the_token(folders: dict[str, Path], kind: str) -> None:
    module = policy(folders["qwen2"], kind)
    assert module.critic is not None
    with torch.no_grad():
        module.critic.head.weight.normal_(generator=torch.Generator().manual_seed(0))
    ids, attention, response = batch()
    values = module(ids, attention, response, values=True).values
    trunk = module.model.base_model if module.critic.decoder is None else module.critic.decoder
    for i, (prompt, completion) in enumerate(ROWS):
        for t in range(prompt, prompt + completion):
            before = module.critic(trunk(ids[i : i + 1, :t]).last_hidden_state[0, -1:])
            torch.testing.assert_close(values[i, t], before[0], atol=1e-5, rtol=0)
    # The value of a state cannot depend on the token that follows it.
    changed = ids.clone()
    changed[0, 7] = (ids[0, 7] + 1) % 250
    again = module(changed, attention, response, values=True).values
    torch.testing.assert_close(again[0], values[0], atol=1e-6, rtol=0)


def test_a_fresh_critic_values_everything_at_zero_and_learns(folders: dict[str, Path]) -> None:
    module = policy(folders["qwen2"], "shared")
    ids, attention, response = batch()
    values = module(ids, attention, response, values=True).values
    assert (values == 0).all()
    (values - 1.0)[response].square().sum().backward()
    assert module.critic.head.weight.grad.abs().sum() > 0


def test_a_separate_critic_shares_no_parameter_and_leaves_the_policy_without_gradient(
    folders: dict[str, Path],
) -> None:
    module = policy(folders["qwen2"], "separate")
    ids, attention, response = batch()
    with torch.no_grad():
        module.critic.head.weight.fill_(0.1)
    module(ids, attention, response, values=True).values.sum().backward()
    policy_parameters, critic_parameters = module.parameter_groups()
    assert all(p.grad is None or not p.grad.any() for p in policy_parameters)
    assert all(p.grad is not None for p in critic_parameters)
    everything = [id(p) for p in (*policy_parameters, *critic_parameters)]
    assert len(everything) == len(set(everything)) == len(list(module.parameters()))


@pytest.mark.parametrize("architecture", ["qwen2", "gemma2"])
@pytest.mark.parametrize("kind", ["shared", "separate"])
def test_a_batch_of_dummy_rows_is_zero_and_reaches_every_parameter(
    folders: dict[str, Path], architecture: str, kind: str
) -> None:
    module = policy(folders[architecture], kind)
    ids, attention, response = batch()
    output = module(ids, attention, torch.zeros_like(response), entropy="grad", values=True)
    assert not output.logprobs.any()
    (output.logprobs.sum() + output.entropy.sum() + output.values.sum()).backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert not parameter.grad.any(), name


def test_chunked_logits_give_the_same_values_and_gradients(folders: dict[str, Path]) -> None:
    module = policy(folders["gpt_neox"]).double()
    results = []
    for limit in (1 << 26, 3 * 258):
        module.zero_grad()
        module.max_logits_per_chunk = limit
        output = module(*batch(), temperature=0.9, entropy="grad")
        (output.logprobs.sum() + 0.1 * output.entropy.sum()).backward()
        results.append([output.logprobs.detach(), output.entropy.detach(), *(p.grad for p in module.parameters())])
    for whole, chunked in zip(*results, strict=True):
        torch.testing.assert_close(chunked, whole, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize(("gib", "chunk"), [(None, 1 << 26), (8, 1 << 26), (24, 1 << 27), (80, 1 << 28)])
def test_chunks_are_larger_on_a_gpu_with_the_memory_for_it(gib: int | None, chunk: int) -> None:
    assert logits_per_chunk(gib and gib << 30) == chunk


def test_no_pass_holds_more_logits_than_a_chunk(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does the reference, with or without gradient."""
    module = policy(folders["qwen2"])
    module.max_logits_per_chunk = 3 * 258
    reference = build_reference(module)
    sizes: list[int] = []
    head = policy_module.logprobs_and_entropy
    monkeypatch.setattr(
        policy_module,
        "logprobs_and_entropy",
        lambda logits, *a, **k: sizes.append(len(logits)) or head(logits, *a, **k),
    )
    with torch.no_grad():
        module(*batch())
    reference(*batch())
    module(*batch()).logprobs.sum().backward()
    assert max(sizes) == 3
    assert sum(sizes) == 4 * sum(completion for _, completion in ROWS)  # the update computes them twice


def test_gradient_checkpointing_changes_no_gradient(folders: dict[str, Path]) -> None:
    gradients = []
    for checkpointing in (False, True):
        module = policy(folders["qwen2"], "separate", gradient_checkpointing=checkpointing).train()
        output = module(*batch(), values=True)
        (output.logprobs.sum() + output.values.sum()).backward()
        gradients.append([p.grad for p in module.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, plain, atol=1e-5, rtol=1e-5)


def test_train_and_eval_mode_agree(folders: dict[str, Path]) -> None:
    module = policy(folders["gpt_neox"])
    results = [module.train(mode)(*batch()).logprobs for mode in (True, False)]
    torch.testing.assert_close(*results, atol=0, rtol=0)


def test_shapes_and_missing_critics_are_refused_in_one_line(folders: dict[str, Path]) -> None:
    module = policy(folders["qwen2"])
    ids, attention, response = batch()
    with pytest.raises(ShapeError, match="one shape"):
        module(ids, attention[:, :-1], response)
    with pytest.raises(RecipeError, match="critic"):
        module(ids, attention, response, values=True)


def test_columns_of_one_token_work(folders: dict[str, Path]) -> None:
    ids = torch.tensor([[4], [5]])
    output = policy(folders["qwen2"])(ids, ids > 0, ids < 0)
    assert output.logprobs.shape == (2, 1)
