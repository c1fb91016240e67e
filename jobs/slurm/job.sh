# shellcheck shell=bash
# Sourced by the scripts of this folder: what they have in common.

# shellcheck source=jobs/slurm/site.sh
. "${BASH_SOURCE[0]%/*}/site.sh"

# penstock_run OUTPUT ARGUMENT…: the job on all tasks, in place of this shell. One rank's end ends
# all, and signals reach every rank with either launcher.
penstock_run() {
  local output=$1
  shift
  local command=(srun --kill-on-bad-exit=1 "${srun_options[@]}")
  if [ "$launcher" = mpirun ]; then command=(mpirun "${mpirun_options[@]}"); fi
  exec "${command[@]}" "$penstock" run "$CKPT" --input "$INPUT" --output "$output" \
    --progress lines "$@"
}

# state_of OUTPUT FIELD: what OUTPUT.job/state says, or nothing.
state_of() {
  [ ! -e "$1.job/state" ] || sed -n "s/.*\"$2\": *\"\{0,1\}\([a-z0-9]*\).*/\1/p" "$1.job/state"
}

# requeue_while_it_helps OUTPUT ARGUMENT…: penstock_run, and then the same Slurm job again, if there
# is something left to do and this one has come further than the one before.
requeue_while_it_helps() {
  local output=$1 job=$SLURM_JOB_ID run="" code=0 try arguments signalled
  # The last task of an array has the array's number.
  if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID; fi
  local done_before partial_before written
  done_before=$(done_of "$output")
  partial_before=$(partial_of "$output")
  written=$(written_at "$output")

  # Slurm signals this shell. SIGTERM goes on as SIGUSR1, since mpirun would end the ranks at once.
  trap 'signalled=yes; [ -z "$run" ] || kill -USR1 "$run" 2>/dev/null || true' USR1 TERM
  # A node that has crashed may keep sockets by which Slurm cannot launch the steps of this job that
  # ran there; each try is another step.
  for try in 0 1 2 3 4 5 6 7 8 9; do
    arguments=("$@")
    if [ $((try + ${SLURM_RESTART_COUNT:-0})) -gt 0 ]; then drop_fresh "$@"; fi
    penstock_run "${arguments[@]}" &
    run=$!
    # A signal ends `wait`, not the job.
    signalled=yes
    while [ -n "$signalled" ]; do
      signalled=""
      code=0
      wait "$run" || code=$?
    done
    case $(state_of "$output" state) in
      again | running) ;;
      *) exit "$code" ;;
    esac
    # Slurm has cancelled the job, or takes it back by itself.
    scontrol show job "$job" | grep -qE 'JobState=RUNNING|Reason=TimeLimit' || exit "$code"
    if [ "$(done_of "$output")" -gt "$done_before" ] ||
      [ "$(partial_of "$output")" -gt "$partial_before" ]; then
      echo "penstock: $(done_of "$output") records are finished: requeueing" >&2
      scontrol requeue "$job" ||
        echo "penstock: Slurm does not requeue it: submit the same command again" >&2
      exit "$code"
    fi
    if [ "$(written_at "$output")" != "$written" ]; then break; fi
    if [ "$try" -ge "${SLURM_RESTART_COUNT:-0}" ]; then break; fi
  done
  echo "penstock: not requeued: it has come no further than the $done_before records before" >&2
  exit "$code"
}

# --fresh is for the first run: those after it are to go on.
drop_fresh() {
  local argument
  arguments=()
  for argument in "$@"; do
    if [ "$argument" != --fresh ]; then arguments+=("$argument"); fi
  done
}

done_of() {
  local finished failed
  finished=$(state_of "$1" finished)
  failed=$(state_of "$1" failed)
  echo $((${finished:-0} + ${failed:-0}))
}

partial_of() {
  local tokens
  tokens=$(state_of "$1" partial_tokens)
  echo "${tokens:-0}"
}

# Changes when the program begins.
written_at() { stat -c %y "$1.job/state" 2>/dev/null || true; }
