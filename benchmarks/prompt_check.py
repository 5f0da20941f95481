"""What checking every prompt before step 1 costs.

python benchmarks/prompt_check.py [rows] [model folder or hub name]
"""

import sys
import time

from reasonrl.contracts.protocols import TaskContext
from reasonrl.data.prompts import measure
from reasonrl.data.render import PromptRenderer
from reasonrl.data.stream import ProblemStream
from reasonrl.model.load import load_tokenizer
from reasonrl.plugins import load_plugins
from reasonrl.recipe.resolve import resolve_task
from reasonrl.recipe.source import command_line_source


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    plugins = load_plugins()
    model = sys.argv[2] if len(sys.argv) > 2 else str(plugins.get("model", "countdown-base").path)
    component, _ = resolve_task(command_line_source("task", "countdown", ["template=chat"]), plugins)
    task = plugins.build(component.spec, component.config, TaskContext(seed=0))
    stream = ProblemStream(task, "countdown", "train", seed=0)
    problems = [stream.fetch(index) for index in range(rows)]
    renderer = PromptRenderer(load_tokenizer(model))
    wall, cpu = time.perf_counter(), time.process_time()
    lengths = [tokens for _, tokens in measure(problems.__getitem__, range(rows), renderer)]
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    mean = sum(lengths) / rows
    said = f"{rows:,} chat prompts of {mean:.0f} tokens: {wall:.1f} s, {cpu:.1f} s of CPU time"
    sys.stdout.write(f"{said}\n")


if __name__ == "__main__":
    main()
