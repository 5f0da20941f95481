"""Chat with a model: answers stream, and answers to a task's problems are judged."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from transformers import GenerationConfig
from transformers.generation.streamers import BaseStreamer

from reasonrl.contracts.data import (
    Completion,
    FinishReason,
    Message,
    Problem,
    RolloutRequest,
    SamplingParams,
    ScoredGroup,
)
from reasonrl.contracts.models import base_model, eos_token_ids
from reasonrl.contracts.protocols import Task
from reasonrl.conversations.loop import Dialogue
from reasonrl.data.render import PromptRenderer
from reasonrl.errors import RecipeError, RolloutError, is_out_of_memory, one_line
from reasonrl.functional.randomness import derive_seed
from reasonrl.model.load import load_model
from reasonrl.model.lora import embeddings
from reasonrl.model.mode import seeded
from reasonrl.observability.reporter import Reporter
from reasonrl.plugins import Plugins
from reasonrl.recipe.schema import Device, ModelConfig
from reasonrl.rewards.runner import RewardRunner
from reasonrl.runs.ask import find_problem
from reasonrl.runs.build import Builder, quiet_libraries
from reasonrl.runs.chat_problem import Tell, solve
from reasonrl.runs.download import tell_download
from reasonrl.runs.processes import choose_cpu
from reasonrl.runs.targets import Target
from reasonrl.signals import StopRequested
from reasonrl.trainer.rounds import sampling_params

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)
Emit = Callable[[str], None]
"""Called with each new piece of an answer."""
MAX_TOKENS = 512
"""Of an answer, where no recipe sets a limit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatOptions:
    """What the user chose; None = the recipe's, or the default. ``raw``: continue texts without chat template."""

    temperature: float | None = None
    max_tokens: int | None = None
    seed: int = 0
    raw: bool | None = None
    device: Device = "auto"


@dataclass(frozen=True, kw_only=True, slots=True)
class Examiner:
    """Draws problems of a task, replies to the model as the task does, and judges answers."""

    task: Task
    name: str
    rewards: RewardRunner
    dialogue: Dialogue | None


def open_chat(
    model_path: str, target: Target | None, plugins: Plugins, options: ChatOptions, reporter: Reporter
) -> Chat:
    """Load the model, and the task of ``target``'s recipe if it has one.

    Raises:
        RecipeError: If the model or the task cannot be loaded.
        RolloutError: If the memory is too small.
    """
    quiet_libraries()
    model = target.resolved.recipe.model if target is not None else ModelConfig(path=model_path)
    sampling = sampling_params(target.resolved.recipe.sampling) if target is not None else SamplingParams()
    limit = options.max_tokens or (sampling.max_completion_tokens if target is not None else MAX_TOKENS)
    temperature = sampling.temperature if options.temperature is None else options.temperature
    sampling = replace(sampling, temperature=temperature, max_completion_tokens=limit)
    examiner = _open_examiner(target, plugins, limit, reporter) if target is not None else None
    reporter.waiting(f"loading model {model.name or model_path}")
    accelerator = torch.accelerator.current_accelerator()
    device = torch.device("cpu") if choose_cpu(options.device) or accelerator is None else accelerator
    with _explained(model_path), tell_download(model_path, reporter):
        loaded = load_model(model, model_path, seed=options.seed, device=device)
    renderer = PromptRenderer(loaded.tokenizer, rows=embeddings(loaded.model).shape[0])
    return Chat(loaded.model, renderer, sampling, examiner, options)


def _open_examiner(target: Target, plugins: Plugins, limit: int, reporter: Reporter) -> Examiner | None:
    resolved = target.resolved
    if resolved.task is None:
        return None
    reporter.waiting(f"loading task {resolved.task.name}")
    builder = Builder(resolved, plugins)
    task = builder.tasks.get(resolved.task)
    return Examiner(
        task=task,
        name=resolved.task.name,
        rewards=builder.build_rewards(resolved.rewards, limit),
        dialogue=builder.build_dialogue(resolved.task),
    )


@contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as err:
        if is_out_of_memory(err):
            raise RolloutError(
                f"{what}: out of memory: {one_line(err)}; use --device cpu, a lower --max-tokens or a smaller model"
            ) from err
        raise


class Chat:
    """A conversation with one model.

    A model whose tokenizer has a chat template is given the whole conversation. A model without one, or one that was
    trained on raw prompts, continues each text by itself.
    """

    def __init__(
        self,
        model: nn.Module,
        renderer: PromptRenderer,
        sampling: SamplingParams,
        examiner: Examiner | None,
        options: ChatOptions,
    ) -> None:
        self._model: Any = base_model(model)
        self._renderer, self.sampling = renderer, sampling
        self._examiner, self._seed = examiner, options.seed
        self._drawn = self._answers = 0
        self.is_raw = self._is_raw() if options.raw is None else options.raw
        self.history: list[Message] = []

    @property
    def task_name(self) -> str:
        """The task of the recipe; empty without one."""
        return self._examiner.name if self._examiner is not None else ""

    @property
    def task_replies(self) -> bool:
        """Whether the recipe's task replies to the model."""
        return self._examiner is not None and self._examiner.dialogue is not None

    def _is_raw(self) -> bool:
        tokenizer: PreTrainedTokenizerBase = self._renderer.tokenizer
        if not getattr(tokenizer, "chat_template", None):
            return True
        if self._examiner is None:
            return False
        return isinstance(find_problem(self._examiner.task, self._examiner.name, {}).prompt, str)

    def reset(self, system: str = "") -> None:
        """Start a new conversation, with a system message if one is given.

        Raises:
            RecipeError: If there are no conversations.
        """
        if system and self.is_raw:
            raise RecipeError("this model continues raw text, so it takes no system message; see --template")
        self.history = [Message(role="system", content=system)] if system else []

    def draw(self, fields: Mapping[str, str]) -> Problem:
        """Draw the next held-out problem, or the one that ``fields`` describe.

        Raises:
            RecipeError: If there is no task, or no such problem.
        """
        if self._examiner is None:
            raise RecipeError("no task to draw a problem from; start the chat with --recipe RECIPE")
        problem = find_problem(self._examiner.task, self._examiner.name, fields, self._drawn)
        self._drawn += not fields
        return problem

    def say(self, text: str, emit: Emit) -> Completion:
        """Answer one turn of the user.

        Raises:
            RecipeError: If it cannot be rendered or does not fit.
        """
        asked = [*self.history, Message(role="user", content=text)]
        request = self._request(Problem(id="chat", prompt=text if self.is_raw else tuple(asked)))
        completion = self._sample(request, emit)
        self._remember(asked, completion)
        return completion

    def solve(self, problem: Problem, emit: Emit, tell: Tell) -> ScoredGroup:
        """Answer a problem in a new conversation, in which the task may reply, and judge the answer.

        Raises:
            RecipeError: If it cannot be rendered or does not fit.
        """
        assert self._examiner is not None
        request = self._request(problem)
        group = solve(partial(self._sample, emit=emit), request, self._renderer, self._examiner.dialogue, tell)
        if not isinstance(problem.prompt, str):
            self._remember(list(problem.prompt), group.completions[0])
        return self._examiner.rewards.score(group)

    def _remember(self, asked: list[Message], completion: Completion) -> None:
        if not self.is_raw:
            said = completion.messages or (Message(role="assistant", content=completion.text),)
            self.history = [*asked, *said]

    def _request(self, problem: Problem) -> RolloutRequest:
        prompt = self._renderer.render(problem)
        self._answers += 1
        return RolloutRequest(
            problem=problem,
            prompt_ids=prompt.ids,
            prompt_text=prompt.text,
            group_size=1,
            sampling=replace(self.sampling, max_completion_tokens=self._room(len(prompt.ids))),
            seed=derive_seed(self._seed, "chat", self._answers),
        )

    def _room(self, prompt_tokens: int) -> int:
        """Tokens of an answer that fit into the context."""
        context = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        room = self.sampling.max_completion_tokens if context is None else context - prompt_tokens
        if room < 1:
            raise RecipeError(
                f"the conversation has {prompt_tokens} tokens, but the model's context is {context}; start a new one "
                "with /reset"
            )
        return min(room, self.sampling.max_completion_tokens)

    def _sample(self, request: RolloutRequest, emit: Emit) -> Completion:
        tokenizer, device = self._renderer.tokenizer, self._model.device
        ids, sampling = torch.tensor([request.prompt_ids]), request.sampling
        ends = eos_token_ids(self._model, tokenizer)
        streamer = Streamer(tokenizer, ends, emit)
        options: dict[str, Any] = {"temperature": sampling.temperature} if not sampling.is_greedy else {}
        config = GenerationConfig(
            do_sample=not sampling.is_greedy,
            max_new_tokens=sampling.max_completion_tokens,
            eos_token_id=list(ends),
            pad_token_id=tokenizer.pad_token_id,
            stop_strings=list(sampling.stop) or None,
            # The full support, as in training.
            **(options | {"top_k": 0, "top_p": 1.0} if options else {}),
        )
        is_cut = False
        try:
            with _explained("this answer"), seeded(request.seed, device), torch.no_grad():
                self._model.generate(
                    ids.to(device),
                    attention_mask=torch.ones_like(ids, device=device),
                    generation_config=config,
                    streamer=streamer,
                    tokenizer=tokenizer if sampling.stop else None,
                )
        except StopRequested:
            raise
        except KeyboardInterrupt:
            is_cut = True
        streamer.end()
        return Completion(
            token_ids=tuple(streamer.ids),
            logprobs=None,
            text=streamer.text,
            finish_reason=FinishReason.ABORT if is_cut else _reason(streamer, sampling),
            policy_version=0,
        )


def _reason(streamer: Streamer, sampling: SamplingParams) -> FinishReason:
    if streamer.has_ended:
        return FinishReason.EOS
    if any(stop in streamer.text for stop in sampling.stop):
        return FinishReason.STOP_STRING
    return FinishReason.LENGTH


class Streamer(BaseStreamer):
    """Decodes tokens as they come, and emits only whole characters. ``ids``: the answer with its EOS."""

    def __init__(self, tokenizer: Any, ends: tuple[int, ...], emit: Emit) -> None:
        self._tokenizer, self._ends, self._emit = tokenizer, ends, emit
        self._is_prompt = True
        self._start = self._read = 0
        self.ids: list[int] = []
        self.text = ""

    @property
    def has_ended(self) -> bool:
        """Whether the last token is an EOS."""
        return self.ids[-1:] != [] and self.ids[-1] in self._ends

    def put(self, value: Tensor) -> None:
        """Take the prompt, then token after token."""
        if self._is_prompt:
            self._is_prompt = False
            return
        self.ids.extend(value.flatten().tolist())
        if not self.has_ended:
            self._show(self._decode(self._start, len(self.ids)), is_last=False)

    def end(self) -> None:
        """Emit what was held back."""
        stop = len(self.ids) - self.has_ended
        if self._read < stop:
            self._show(self._decode(self._start, stop), is_last=True)

    def _show(self, window: str, *, is_last: bool) -> None:
        """Emit what ``window`` adds to the tokens read before; the last ones stay, since decoding depends on them."""
        if window.endswith("\ufffd") and not is_last:
            return  # half a character
        new = window[len(self._decode(self._start, self._read)) :]
        self._start, self._read = self._read, len(self.ids)
        if new:
            self.text += new
            self._emit(new)

    def _decode(self, start: int, stop: int) -> str:
        text: str = self._tokenizer.decode(
            self.ids[start:stop], skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return text
