#!/usr/bin/env bash
# Every tracker with a real run and its resume, each in an environment of its own on top of the active one, which needs
# reasonrl[test]: `scripts/try_trackers.sh [NAME...]`. $TRACKERS_VENVS names a folder that keeps the environments.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python}
home=${TRACKERS_VENVS:-$(mktemp -d)}
[[ -n ${TRACKERS_VENVS:-} ]] || trap 'rm -rf "$home"' EXIT
(($#)) || set -- tensorboard wandb trackio mlflow swanlab

# $home/NAME: finds the packages of the active environment, and has those of the extra NAME.
environment() {
    local env=$home/$1 site wanted
    [[ -x $env/bin/python ]] || "$python" -m venv --without-pip "$env" || return 1
    site=$("$env/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))') || return 1
    "$python" -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' \
        >"$site/first_environment.pth" || return 1
    mapfile -t wanted < <("$python" -c 'import sys, tomllib
extras = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]
print("\n".join(extras[sys.argv[1]]))' "$1")
    ((${#wanted[@]})) || return 1
    "$python" -m pip --python "$env/bin/python" --disable-pip-version-check install --quiet --no-compile "${wanted[@]}"
}

failed=()
for name in "$@"; do
    printf '\n== %s\n' "$name"
    if ! environment "$name" || ! "$home/$name/bin/python" -m pytest -n 0 -m trackers -k "$name" tests/integration/test_trackers.py; then
        failed+=("$name")
    fi
done
printf '\n%d of %d trackers passed%s\n' $(($# - ${#failed[@]})) $# "${failed[*]:+; failed: ${failed[*]}}"
((${#failed[@]} == 0))
