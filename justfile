# Development tasks. Run inside the environment of `pip install -e ".[dev]"`.

# list the tasks
default:
    @just --list

# the default tests, or some: just test tests/unit/test_ppo_plugin.py --pdb
test *args:
    pytest {{ args }}

# tests that take minutes
slow:
    pytest -m "slow and not long"

# crashes, kills, full disks, damaged files, hostile rewards
fault:
    pytest -m "fault and not long"

# the documentation, every recipe and every recipe key on an installed wheel
stranger:
    pytest -m stranger tests/stranger

# the backend vllm, in an environment that has it
vllm:
    pytest -n 0 -m vllm

# 8-bit states and QLoRA, in an environment that has bitsandbytes
lowmem:
    pytest -n 0 -m lowmem tests/integration/test_low_memory.py

# losses compared with TRL 1.16, in an environment that has it
trl:
    pytest -n 0 -m trl tests/parity/test_trl.py

# the default tests with coverage; needs pytest-cov
coverage:
    pytest --cov --cov-report=term --cov-report=xml

# ruff, mypy and the generated reference
lint:
    ruff check .
    ruff format --check .
    mypy
    python scripts/gen_docs.py --check

# apply what lint asks for
fix:
    ruff check --fix .
    ruff format .
    python scripts/gen_docs.py

# build the documentation; just docs serve shows it while you write
docs command="build --strict":
    NO_MKDOCS_2_WARNING=1 mkdocs {{ command }}

# everything, in fresh environments, as before a merge
all:
    .ci/run
