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

penstock=${PENSTOCK:-penstock}
name=${penstock##*/}
binding=(--bind-to none)
if [ -n "${CORES:-}" ]; then binding=(--map-by "slot:PE=$CORES" --bind-to core); fi
hosts=()
if [ -n "${HOSTFILE:-}" ]; then hosts=(--hostfile "$HOSTFILE"); fi

# When a host cannot be reached any more, the ranks end by themselves, but mpirun waits for that host
# until TCP gives up, a quarter of an hour. It is ended ten seconds after the ranks that it had here.
end_with_ranks() {
  local mpirun=$1 seen="" gone=0
  while kill -0 "$mpirun" 2>/dev/null; do
    if pgrep -P "$mpirun" -x "${name:0:15}" >/dev/null; then
      seen=yes
      gone=0
    elif [ -n "$seen" ]; then
      gone=$((gone + 1))
    fi
    if [ "$gone" -gt 10 ]; then
      echo "run.sh: all ranks here have ended; mpirun waits for a host that it cannot reach: ended" >&2
      kill -KILL "$mpirun"
    fi
    sleep 1
  done
}

end_with_ranks $$ </dev/null >/dev/null &
exec mpirun -n "${RANKS:-2}" "${hosts[@]}" "${binding[@]}" \
  "$penstock" run "$CKPT" --input "$INPUT" --output "$OUTPUT" "$@"
