#!/bin/bash
# One penstock job without a scheduler: each rank is a pipeline stage. Start with
#   CKPT=model.h5 INPUT=prompts.jsonl OUTPUT=answers.jsonl RANKS=4 run.sh
# HOSTFILE names the hosts, one a line with its slots ("n01 slots=2"); without it all ranks run
# here. CORES gives each rank that many cores of its own; without it ranks share what is there.
# Arguments go to `penstock run`:  … run.sh --max-tokens 200
set -eu
: "${CKPT:?the checkpoint, made by penstock convert}"
: "${INPUT:?the dataset: JSONL, or text with a prompt a line}"
: "${OUTPUT:?the file for the answers}"

binding=(--bind-to none)
if [ -n "${CORES:-}" ]; then binding=(--map-by "slot:PE=$CORES" --bind-to core); fi
hosts=()
if [ -n "${HOSTFILE:-}" ]; then hosts=(--hostfile "$HOSTFILE"); fi

exec mpirun -n "${RANKS:-2}" "${hosts[@]}" "${binding[@]}" \
  "${PENSTOCK:-penstock}" run "$CKPT" --input "$INPUT" --output "$OUTPUT" "$@"
