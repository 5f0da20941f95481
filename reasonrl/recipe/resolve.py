"""Resolve a recipe: look up names, type configs, check sections against each other. Torch-free."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from reasonrl.contracts.specs import REWARD_LIMITS, AlgorithmSpec, ComponentSpec, Needs, RewardSpec, RolloutBackendSpec
from reasonrl.errors import PluginContractError, PluginError, one_line, plugin_call, usable_paths
from reasonrl.plugins import Component, Kind, Plugins, RewardComponent
from reasonrl.recipe.models import find_model
from reasonrl.recipe.resolved import AnyResolved, ResolvedRecipe, ResolvedSft, ResolvedSuite
from reasonrl.recipe.schema import DEFAULT_BACKEND, AnyRecipe, ModelConfig, Recipe, SftRecipe
from reasonrl.recipe.source import SLOTS, SUITES, Keys, Source, leaves, to_yaml
from reasonrl.recipe.suites import SuiteConfig
from reasonrl.recipe.typed import build, show
from reasonrl.redact import hide_values
from reasonrl.rewards.from_file import RewardFileConfig, file_reward, placed
from reasonrl.text import suggest


def resolve(
    source: Source, plugins: Plugins, *, allow_unavailable: bool = False, model_path: str | None = None
) -> AnyResolved:
    """Type and check a recipe.

    Args:
        allow_unavailable: accept components whose modules are not installed here.
        model_path: a model to take instead of the recipe's own, which may be gone.

    Raises:
        RecipeError: if the recipe or an argument is wrong.
        PluginNotFoundError: if there is no such plugin.
        PluginConflictError: if the name is taken.
    """
    with usable_paths(str(source.path)):
        return _Resolver(source, plugins, allow_unavailable, model_path).resolve()


def resolve_task(source: Source, plugins: Plugins) -> tuple[Component, dict[str, RewardComponent]]:
    """The ``task`` slot of a source without a recipe around it, and the task's default rewards."""
    resolver = _Resolver(source, plugins)
    task = resolver._slot("task", ("task",))
    return task, resolver._default_rewards(task)


class _Resolver:
    def __init__(
        self, source: Source, plugins: Plugins, allow_unavailable: bool = False, model_path: str | None = None
    ) -> None:
        self.source, self.plugins, self.allow_unavailable = source, plugins, allow_unavailable
        self.model_path = model_path

    def resolve(self) -> AnyResolved:
        data = self._prepared()
        recipe = self._recipe(data)
        task = self._slot("task", ("task",)) if recipe.task is not None else None
        rewards = self._rewards(task)
        if task is not None and not rewards and isinstance(recipe, Recipe):
            raise self.source.error(("rewards",), f": task '{task.name}' has no default rewards; list at least one")
        common: dict[str, Any] = {
            "rewards": rewards,
            "rollout_backend": self._slot("rollout_backend", ("rollout_backend",), recipe.rollout_backend),
            "suites": {n: self._suite(n, suite, task, rewards) for n, suite in recipe.evaluation.suites.items()},
            "model_path": self._model_path(recipe.model),
            "source_yaml": to_yaml(_found_again(self.source.data, rewards)),
            "path": self.source.path,
            "source": self.source,
            "interpolated": frozenset(k for k, v in leaves(data) if "${" in str(v)),
        }
        self._check_truncation(recipe.evaluation.suites, common["rollout_backend"])
        if isinstance(recipe, SftRecipe):
            return ResolvedSft(recipe=recipe, task=task, **common)
        assert task is not None
        algorithm = self._slot("algorithm", ("algorithm",))
        needs = self._needs(algorithm)
        self._check_needs(recipe, algorithm, needs)
        self._check_backend(recipe, algorithm, needs, common["rollout_backend"])
        return ResolvedRecipe(recipe=recipe, task=task, algorithm=algorithm, needs=needs, **common)

    def _recipe(self, data: Mapping[str, object]) -> AnyRecipe:
        if "sft" in data:
            self.source.hints = self._hints(SftRecipe, data)
            return build(SftRecipe, data, self.source, ())
        self.source.hints = self._hints(Recipe, data)
        return build(Recipe, data, self.source, ())

    def _prepared(self) -> dict[str, Any]:
        """The data with ``rewards: null`` read as "the task's" and ``suites: null`` as none."""
        data = dict(self.source.data)
        if "rewards" in data and data["rewards"] is None:
            data["rewards"] = {}
        evaluation = data.get("evaluation")
        if isinstance(evaluation, Mapping) and "suites" in evaluation:
            data["evaluation"] = {**evaluation, "suites": self._named_suites(evaluation["suites"])}
        return data

    def _named_suites(self, suites: object) -> object:
        """Suites without those that are null, which only a recipe that has them from elsewhere can take away."""
        if not isinstance(suites, Mapping):
            return suites if suites is not None else {}
        for name in [name for name, suite in suites.items() if suite is None]:
            others = [other for other, suite in suites.items() if suite is not None]
            known = f"{suggest(name, others)}; suites: {', '.join(others) or 'none'}"
            message = f": no such suite to disable{known}"
            raise self.source.error((*SUITES, name), message)
        return suites

    def _hints(self, cls: type, data: Mapping[str, object]) -> dict[str, list[str]]:
        """Key name -> sections that have such a key: the schema's, then those of the recipe's slots."""
        places: dict[str, list[str]] = {}
        for name, section in _sections(cls, ""):
            places.setdefault(name, []).append(section)
        for slot in SLOTS:
            value = data.get(slot)
            spec = self._spec_or_none(slot, value.get("name")) if isinstance(value, Mapping) else None
            for name, section in _sections(spec.config, slot) if spec else ():
                places.setdefault(name, []).append(section)
        return places

    def _spec_or_none(self, kind: str, name: object) -> ComponentSpec | None:
        found = self.plugins.provided.get((kind, str(name)), ())
        spec = found[0].spec if len(found) == 1 else None
        return spec if isinstance(spec, ComponentSpec) else None

    def _slot(self, kind: Kind, at: Keys, default: Mapping[str, object] | None = None) -> Component:
        value: Any = self.source.data
        for key in at:
            value = value.get(key, default)
        if not isinstance(value, Mapping):
            raise self.source.error(at, f" must be a mapping such as {{name: ...}}, got {show(value)}")
        name = value.get("name", DEFAULT_BACKEND if at == ("rollout_backend",) else None)
        if not isinstance(name, str):
            raise self.source.error((*at, "name"), f" must name a {kind}, got {show(name)}")
        config = {key: entry for key, entry in value.items() if key != "name"}
        return self._component(kind, name, config, at, (*at, "name"))

    def _component(self, kind: Kind, name: str, config: Mapping[str, object], at: Keys, name_at: Keys) -> Component:
        spec = self._get(kind, name, name_at)
        typed = build(spec.config, config, self.source, at, of=f"{kind} '{name}'")
        return Component(spec=spec, config=typed)

    def _get(self, kind: Kind, name: str, at: Keys) -> Any:
        try:
            return self.plugins.get(kind, name, allow_unavailable=self.allow_unavailable)
        except PluginError as err:
            raise type(err)(one_line(f"{self.source.where(at)}: {'.'.join(at)}: {err}")) from None

    def _rewards(self, task: Component | None) -> dict[str, RewardComponent]:
        given = self._prepared().get("rewards", {})
        if given:
            found = {name: self._reward(name, entry) for name, entry in given.items()}
            self._refuse_namesakes(found)
            return found
        return self._default_rewards(task)

    def _refuse_namesakes(self, rewards: Mapping[str, RewardComponent]) -> None:
        """Files are imported under their names, so two files need two."""
        seen: dict[str, Path] = {}
        for name, part in rewards.items():
            if isinstance(part.config, RewardFileConfig):
                file, at = part.config.file, ("rewards", name, "path")
                if seen.setdefault(file.stem, file) != file:
                    other = seen[file.stem]
                    raise self.source.error(at, f" names {file}, but {other} has the same name; rename one")

    def _reward(self, name: str, entry: object) -> RewardComponent:
        at = ("rewards", name)
        if not isinstance(entry, Mapping):
            raise self.source.error(at, f" must be a mapping such as {{weight: 1.0}}, got {show(entry)}")
        weight = entry.get("weight", 1.0)
        if isinstance(weight, bool) or not isinstance(weight, int | float) or abs(weight) == float("inf"):
            raise self.source.error((*at, "weight"), f" must be a number, got {show(weight)}")
        if weight != weight:
            raise self.source.error((*at, "weight"), " must be a number, got nan")
        config = {key: value for key, value in entry.items() if key not in ("weight", *REWARD_LIMITS)}
        is_file = "path" in entry and ("reward", name) not in self.plugins.provided
        part = self._file_reward(name, config) if is_file else self._component("reward", name, config, at, at)
        return RewardComponent(spec=self._limited(part.spec, entry, at), config=part.config, weight=float(weight))

    def _file_reward(self, name: str, config: Mapping[str, object]) -> Component:
        """A function in a file, which no plugin has registered."""
        at = ("rewards", name)
        try:
            spec = file_reward(name)
        except ValueError as err:
            raise self.source.error(at, f": {err}") from None
        path, folder = config["path"], self.source.folder((*at, "path"))
        if isinstance(path, str):
            config = {**config, "path": placed(path, folder)}
        return Component(spec=spec, config=build(spec.config, config, self.source, at, of=f"reward '{name}'"))

    def _limited(self, spec: ComponentSpec, entry: Mapping[str, Any], at: Keys) -> RewardSpec:
        """The reward's spec with the isolation and limits that the recipe gives it."""
        assert isinstance(spec, RewardSpec)
        for key in REWARD_LIMITS:
            if key in entry:
                try:
                    spec = replace(spec, **{key: entry[key]})
                except ValueError as err:
                    raise self.source.error((*at, key), f": {err}") from None
        return spec

    def _default_rewards(self, task: Component | None) -> dict[str, RewardComponent]:
        names = getattr(task.spec, "default_rewards", ()) if task else ()
        specs = {name: self._get("reward", name, ("task", "name")) for name in names}
        return {
            name: RewardComponent(spec=spec, config=build(spec.config, {}, self.source, ("rewards", name)))
            for name, spec in specs.items()
        }

    def _suite(
        self, name: str, suite: SuiteConfig, task: Component | None, rewards: Mapping[str, RewardComponent]
    ) -> ResolvedSuite:
        at = (*SUITES, name, "task")
        own = self._slot("task", at) if suite.task is not None else task
        if own is None:
            raise self.source.error(at, " is missing: this recipe has no task that the suite could use")
        is_other = task is None or own.name != task.name
        chosen = self._default_rewards(own) if is_other else rewards
        if not chosen:
            raise self.source.error(at, f": task '{own.name}' has no default rewards; list at least one under rewards")
        return ResolvedSuite(config=suite, task=own, rewards=chosen)

    def _check_truncation(self, suites: Mapping[str, SuiteConfig], rollout_backend: Component) -> None:
        spec = rollout_backend.spec
        assert isinstance(spec, RolloutBackendSpec)
        for name, suite in suites.items():
            if suite.is_truncated and not spec.truncates:
                key = "top_p" if suite.top_p < 1 else "top_k"
                message = f": rollout backend {spec.name} always samples from all tokens; remove {key}"
                raise self.source.error((*SUITES, name, key), message)

    def _model_path(self, model: ModelConfig) -> str:
        if (template := model.chat_template) is not None and not Path(template).is_file():
            raise self.source.error(("model", "chat_template"), f": no such file: {template!r}")
        if self.model_path is not None:
            return self.model_path
        key = "name" if model.name else "path"
        if model.name:
            self._get("model", model.name, ("model", key))
        try:
            return find_model(model, self.plugins)
        except ValueError as err:
            written = str(self.source.data["model"].get(key))
            said = hide_values(str(err), {os.path.expanduser(str(model.path)): written} if "${" in written else {})
            raise self.source.error(("model", key), f": {said}") from None

    def _needs(self, algorithm: Component) -> Needs:
        spec = algorithm.spec
        assert isinstance(spec, AlgorithmSpec)
        with plugin_call(f"{self.plugins.label(spec)}: needs") as call:
            needs = spec.needs(algorithm.config)
        if not isinstance(needs, Needs):
            raise PluginContractError(f"{call} returned {show(needs)}, expected Needs")
        return needs

    def _check_needs(self, recipe: Recipe, algorithm: Component, needs: Needs) -> None:
        size, name, critic = recipe.sampling.group_size, algorithm.name, ("critic",)
        if size < needs.min_group_size:
            message = f": {name} needs sampling.group_size >= {needs.min_group_size}, got {size}"
            raise self.source.error(("sampling", "group_size"), message)
        if needs.critic and recipe.critic is None:
            raise self.source.error(critic, f": {name} needs one, such as critic: {{kind: shared}}")
        if "reference" in recipe.trainer.offload and (recipe.model.lora is not None or not needs.reference):
            why = (
                f"{name} computes no KL term"
                if not needs.reference
                else "with model.lora it shares the policy's weights"
            )
            message = f": there is no reference model to offload, since {why}; remove reference"
            raise self.source.error(("trainer", "offload"), message)
        if recipe.critic is not None and not needs.critic:
            raise self.source.error(critic, f": {name} needs none; remove it (critic: null)")

    def _check_backend(self, recipe: Recipe, algorithm: Component, needs: Needs, rollout_backend: Component) -> None:
        spec = rollout_backend.spec
        assert isinstance(spec, RolloutBackendSpec)
        if needs.rollout_logprobs and not spec.provides_logprobs:
            message = f": {algorithm.name} needs the sampler's log-probabilities, which {spec.name} does not return"
            raise self.source.error(("rollout_backend", "name"), f"{message}; choose another backend")
        if recipe.rollout_correction is not None and not spec.provides_logprobs:
            message = f": {spec.name} does not return log-probabilities; remove it or choose another backend"
            raise self.source.error(("rollout_correction",), message)
        if recipe.trainer.max_staleness:
            self._check_staleness(rollout_backend)

    def _check_staleness(self, rollout_backend: Component) -> None:
        """Refuse to sample ahead with a backend that cannot, or that hides from which distribution."""
        spec, at = rollout_backend.spec, ("trainer", "max_staleness")
        assert isinstance(spec, RolloutBackendSpec)
        if not spec.provides_logprobs:
            message = f": {spec.name} does not return log-probabilities, without which stale samples are not corrected"
            raise self.source.error(at, f"{message}; set it to 0 or choose another backend")
        can = False
        if spec.samples_during_update is not None:
            with plugin_call(f"{self.plugins.label(spec)}: samples_during_update"):
                can = bool(spec.samples_during_update(rollout_backend.config))
        if not can:
            message = f": rollout backend {spec.name} cannot sample during the update with these options"
            raise self.source.error(at, f"{message}; set it to 0, or sample from a server (vllm with mode: server)")


def _found_again(data: Mapping[str, Any], rewards: Mapping[str, RewardComponent]) -> dict[str, Any]:
    """The data with rewards' files where they are, so that a run is used from any folder."""
    kept = dict(data)
    for name, part in rewards.items():
        if isinstance(part.config, RewardFileConfig) and "${" not in data["rewards"][name]["path"]:
            entry = {**data["rewards"][name], "path": part.config.path}
            kept["rewards"] = {**kept["rewards"], name: entry}
    return kept


def _sections(cls: type, at: str) -> Iterator[tuple[str, str]]:
    """(key, dotted section) of a config dataclass and of those nested in it."""
    for name, declared in get_type_hints(cls).items():
        yield name, at or "the top level"
        below = f"{at}.{name}" if at else name
        below += ".<name>" if get_origin(declared) is dict else ""
        for candidate in (declared, *get_args(declared)):
            if isinstance(candidate, type) and is_dataclass(candidate):
                yield from _sections(candidate, below)
