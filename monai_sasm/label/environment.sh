#!/usr/bin/env bash
# Makes the environment in which MONAI Label runs our app. It is its own, because MONAI Label's libraries and those we
# test with exclude one another. Made already and nothing changed: does nothing.
#
#   sasm label-environment [FOLDER]              by default .venv-label where you stand
#   PYTHON=python3.11                            another Python, 3.11 or 3.12
#   PIP_FLAGS="--index-url ..."                  where torch comes from, for example https://download.pytorch.org/whl/cpu
#
# Then:  FOLDER/bin/sasm label-server IMAGES
# or:    FOLDER/bin/sasm label-app APP
#        MONAILABEL_PYEXE=FOLDER/bin/python FOLDER/bin/monailabel start_server --app APP --studies IMAGES
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
folder=${1:-$PWD/.venv-label}
python=${PYTHON:-python3.11}
pins=$here/constraints.txt
made=$folder/.made-from
# a checkout is installed as it lies there, an installed package in its version from the index
if [ -f "$root/pyproject.toml" ]; then ours=(-e "$root[label]"); else ours=("monai-sasm[label]==$SASM_VERSION"); fi
wanted=$(cat "${BASH_SOURCE[0]}" "$pins" <(cat "$root/pyproject.toml" 2>/dev/null || echo "${ours[@]}") | sha256sum)

if [ -f "$made" ] && [ "$(cat "$made")" = "$wanted" ]; then
    exit 0
fi
if [ -e "$folder" ] && [ ! -f "$folder/pyvenv.cfg" ]; then
    echo "$folder is there and no Python environment; choose another folder" >&2
    exit 2
fi
"$python" -m venv --clear "$folder"
# pip tries a request again, but gives up when a whole download breaks off
pip() {
    for pause in 5 30 0; do
        if "$folder/bin/python" -m pip --quiet --disable-pip-version-check "$@"; then return; fi
        sleep "$pause"
    done
    return 1
}
# torch first: torchvision asks for torch without its build tag, and would replace a CPU build by a CUDA build. Nothing
# is compiled to .pyc here, which would take longer than Python needs to do it for the files that are imported
# shellcheck disable=SC2086 # the flags are several words
pip install --no-compile ${PIP_FLAGS:-} -c "$pins" torch ${PIP_FLAGS:+torchvision}
pip install --no-compile -c "$pins" setuptools
# without isolation: SAM2, which MONAI Label wants, is built with the torch that is here instead of one of its own
SAM2_BUILD_CUDA=0 pip install --no-compile --no-build-isolation -c "$pins" "${ours[@]}"
pip check
echo "$wanted" >"$made"
