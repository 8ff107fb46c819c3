#!/bin/sh
# Makes .venv with everything that `make demo` and `make test` need, from Python alone.
#
# - Instant when nothing has changed: .venv/.made records what the environment was made from.
# - Never half-made: .venv/.unfinished stands from the first step to the last; an environment that
#   still has it was interrupted and is made afresh.
# - torch: the CPU build where there is no NVIDIA GPU, since the default build brings gigabytes of
#   CUDA; a build that pip's own settings offer on this machine is taken first.
#
# Environment variables: PYTHON (the interpreter to build from), TORCH (what to install instead of
# our choice, for example TORCH='torch==2.13.0'; remembered in .venv/.torch).
set -eu
cd "$(dirname "$0")/.."
cpu_index=https://download.pytorch.org/whl/cpu

say() { echo "env: $*"; }
fail() { echo "env: $*" >&2; exit 1; }

here=$(pwd)
made_from="$here $(cat pyproject.toml constraints.txt scripts/make_env.sh | cksum)"
made=$(cat .venv/.made 2>/dev/null || true)
if [ -z "${TORCH:-}" ] && [ ! -e .venv/.unfinished ] && [ "$made" = "$made_from" ]; then
    exit 0
fi

suitable() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        suitable "$PYTHON" || fail "PYTHON=$PYTHON is not a Python >= 3.11 that runs"
        echo "$PYTHON"
        return
    fi
    for name in python3 python3.11 python3.12 python3.13 python3.14 python; do
        if suitable "$name"; then
            echo "$name"
            return
        fi
    done
    fail "no Python >= 3.11 found (python3 is $(python3 --version 2>&1 || true));" \
        "install one, or name it: make env PYTHON=/path/to/python3.12"
}

make_venv() {
    python=$(find_python) || exit 1
    say "making .venv with $("$python" --version) ($python)"
    rm -rf .venv
    mkdir .venv
    touch .venv/.unfinished
    "$python" -m venv .venv ||
        fail "$python cannot make environments; on Debian and Ubuntu: apt-get install python3-venv"
}

has_gpu() {
    [ -e /dev/nvidiactl ] || [ -e /dev/nvidia0 ] || nvidia-smi -L >/dev/null 2>&1
}

pip() { .venv/bin/python -m pip --disable-pip-version-check "$@"; }

# What pyproject.toml asks for.
torch_range() { sed -n 's/^ *"\(torch>=[^"]*\)",.*/\1/p' pyproject.toml; }

# First what lies on this machine (pip's find-links), if need be another version than we pin; then
# PyTorch's own index of CPU builds. There the version says so (2.13.0+cpu): asking for exactly that
# can never bring CUDA. An index that does not answer must not hold us up: no retries, short
# time-out.
install_cpu_torch() {
    pinned=$(sed -n 's/^torch==\([0-9.]*\).*/\1/p' constraints.txt)
    say "no NVIDIA GPU: installing the CPU build of torch $pinned"
    if pip install -qq --no-index --no-deps "torch==$pinned" 2>/dev/null; then
        return
    fi
    if pip install -qq --no-index --no-deps "$(torch_range)" 2>/dev/null; then
        say "torch $pinned is not on this machine, but another that will do"
        return
    fi
    pip install -qq --retries 0 --timeout 15 --extra-index-url "$cpu_index" "torch==$pinned+cpu" ||
        fail "no CPU build of torch $pinned could be had (see above; $cpu_index has one)." \
            "To take another build, be it gigabytes of CUDA: make env TORCH='torch==$pinned'"
}

install_torch() {
    if [ -n "$TORCH" ]; then
        say "installing $TORCH, as asked"
        pip install "$TORCH"
    elif has_gpu; then
        say "NVIDIA GPU found: installing torch with CUDA (gigabytes; some minutes)"
        pip install "$(torch_range)"
    elif [ "$(uname -s)" = Linux ]; then
        install_cpu_torch
    else
        say "installing torch"  # elsewhere the default build has no CUDA
        pip install -qq --constraint constraints.txt torch
    fi
}

TORCH=${TORCH:-$(cat .venv/.torch 2>/dev/null || true)}
if [ -e .venv/.unfinished ]; then
    say "the environment in .venv was left half-made: making it afresh"
    make_venv
elif [ -n "$made" ] && [ "${made% * *}" != "$here" ]; then
    say "the environment in .venv was made in ${made% * *}: making it afresh"
    make_venv
elif ! suitable .venv/bin/python || ! pip --version >/dev/null 2>&1; then
    make_venv
else
    say "bringing .venv up to date"
    touch .venv/.unfinished
fi
rm -f .venv/.made
install_torch
[ -z "$TORCH" ] || echo "$TORCH" >.venv/.torch
say "installing spelldown with its development and demo parts"
# torch stays as it was just installed, whatever the ranges would allow.
.venv/bin/python -c 'from importlib.metadata import version; print("torch==" + version("torch"))' \
    >.venv/constraints.txt
pip install -qq --constraint .venv/constraints.txt --editable '.[dev]'
echo "$made_from" >.venv/.made
rm .venv/.unfinished
say "ready: .venv has torch $(sed 's/torch==//' .venv/constraints.txt)"
