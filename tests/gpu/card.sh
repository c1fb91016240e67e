#!/usr/bin/env bash
# Runs on a machine with a GPU, from the folder that run.sh packed:
#
#   run.sh [PART …]     all parts in this order, or those that are named:
#     tests       memory and op tests, stage tests against the CPU's, links: NCCL sends to itself
#     bytes       the same answers from 1, 2 and 4 ranks on one GPU, by MPI and by NCCL
#     sanitizer   compute-sanitizer's memcheck and racecheck over the op tests
#     bench       penstock bench for the shapes of SmolLM2-135M and Llama-3.1-8B (16 GB of disk), how
#                 fast weights are loaded, and which goals are met
#   run.sh -- COMMAND …  runs a command with the packed libraries, for example penstock --version
#
# Results go to $OUT, or a new folder under /tmp; WORK=FOLDER holds the checkpoints; LIMIT: seconds
# that one check may take (3600). Exit code 0: every check passed; goals do not count.
set -uo pipefail
here="$(cd "$(dirname "$0")" && pwd)"

# Folders of CUDA's libraries: the loader's own, the toolkit's, pip's packages.
cuda_folders() {
  local sites name
  sites=$(python3 -c 'import sys; print("\n".join(p for p in sys.path if p))' 2>/dev/null)
  for name in libcublasLt.so.13 libnccl.so.2; do
    # shellcheck disable=SC2046,SC2086
    find /usr/local/cuda/lib64/ /usr/local/cuda/lib/ /usr/lib/x86_64-linux-gnu $(printf '%s/nvidia ' $sites) \
      -name "$name" -printf '%h\n' 2>/dev/null | head -n 1
  done | sort -u | paste -sd :
}
export PATH="$here/bin:${PATH:-/usr/bin:/bin}:/usr/local/cuda/bin"
LD_LIBRARY_PATH="$here/lib:$(cuda_folders)${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export LD_LIBRARY_PATH
export OPAL_PREFIX="$here" OPAL_PKGDATADIR="$here/share/openmpi"
export OMPI_MCA_mca_base_component_path="$here/openmpi" PMIX_MCA_mca_base_component_path="$here/pmix"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_plm=isolated
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none
export OMPI_MCA_oob_tcp_if_include=lo OMPI_MCA_btl_tcp_if_include=lo
# Containers forbid to read another process's memory, which Open MPI only notices when it fails.
export OMPI_MCA_btl_vader_single_copy_mechanism=none
if [ "${1:-}" = -- ]; then shift; exec "$@"; fi

parts="${*:-tests bytes sanitizer bench}"
for part in $parts; do
  case "$part" in tests|bytes|sanitizer|bench) ;; *) echo "no such part: $part" >&2; exit 1 ;; esac
done
out="${OUT:-$(mktemp -d /tmp/penstock-gpu.XXXXXX)}"
mkdir -p "$out" "${WORK:=$out/work}" || exit 1
out="$(cd "$out" && pwd)"
work="$(cd "$WORK" && pwd)"
limit="${LIMIT:-3600}"
summary="$out/summary.txt"
: > "$summary" || exit 1
failures=0
say() { echo "$*" | tee -a "$summary"; }
# failed NAME WHY
failed() {
  failures=$((failures + 1))
  say "FAILED  $1: $2, $1.log ends with"
  tail -n 12 "$out/$1.log" | sed 's/^/        /' | tee -a "$summary"
}
# check NAME COMMAND …: its output goes to $out/NAME.log, one line of it to the summary. A kernel that
# hangs ends with the time limit.
check() {
  local name="$1" code=0 started=$SECONDS
  shift
  if [ "$(type -t "$1")" != function ]; then set -- timeout -k 20 "$limit" "$@"; fi
  "$@" >"$out/$name.log" 2>&1 </dev/null || code=$?
  if [ "$code" -ne 0 ]; then
    failed "$name" "$([ "$code" = 124 ] && echo "not done after $limit s" || echo "code $code")"
    return 1
  fi
  say "ok      $name, $((SECONDS - started)) s"
}
# check_tests NAME PROGRAM …: the same for a test program. One that ran nothing, since a filter is
# wrong or since it sees no GPU, has failed.
check_tests() {
  local name="$1" passed skipped
  check "$@" || return
  passed=$(grep -c '^\[       OK' "$out/$name.log")
  skipped=$(grep '^\[  SKIPPED \].* ms)' "$out/$name.log" | sed 's/^.*] //; s/ (.*//')
  if [ "$passed" = 0 ]; then failed "$name" "no test ran"; return; fi
  if grep -q 'no usable GPU' "$out/$name.log"; then failed "$name" "tests saw no GPU"; return; fi
  say "        $passed tests passed"
  [ -z "$skipped" ] || say "        skipped: $(echo "$skipped" | paste -sd ' ')"
}

say "commit $(cat "$here/commit"); $(cat "$here/built-with"); $(date -u +%F)"
version=$(penstock --version 2>&1) || { say "the program does not start: $version"; exit 1; }
say "$(echo "$version" | paste -sd ' ')"
embedded="$here/jobs/embedded/austen-1m.h5"
if ! probe=$(timeout 300 penstock bench "$embedded" --device cuda --batch 1 --prompt 2 --generate 2 2>&1); then
  say "no GPU can be used here, or not by this program; nothing was tested:"
  say "$probe"
  exit 1
fi
say "$(nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv,noheader 2>/dev/null)"
# The test programs look for their data where they were built.
source_folder=$(cat "$here/source-folder")
if [ ! -e "$source_folder" ]; then
  # shellcheck disable=SC2015
  mkdir -p "$(dirname "$source_folder")" && ln -sfn "$here" "$source_folder" ||
    say "warning: tests need $source_folder to be a link to $here"
fi

part_tests() {
  check_tests device comm_device_tests
  check_tests f16-first model_ops_tests --gtest_filter='CudaAttentionTest/6.BitsDoNotDependOnTheStep'
  check_tests ops model_ops_tests
  check_tests stage model_tests
  check_tests nccl-self comm_tests --gtest_filter='NcclSelfSend.*'
  check_tests links comm_tests --gtest_filter='*Nccl*:*Staged*:-NcclSelfSend.*'
}

# answers NAME RANKS LINK: each rank says it is on a host of its own, which lets NCCL put two on one
# GPU; messages then go by sockets, slowly.
answers() {
  # shellcheck disable=SC2016
  NCCL_SOCKET_IFNAME=lo NCCL_IB_DISABLE=1 NCCL_MNNVL_ENABLE=0 timeout -k 20 300 mpirun -n "$2" bash -c \
    'NCCL_HOSTID=host-$OMPI_COMM_WORLD_RANK exec "$@"' rank penstock run "$embedded" --fresh \
    --input "$work/records.jsonl" --output "$work/$1.jsonl" --device cuda --dtype bf16 \
    --link "$3" --kv-memory 64M --progress none || return
  cp "$work/$1.jsonl.job/ledger.json" "$out/$1-ledger.json" || return
  [ "$(wc -l < "$work/$1.jsonl")" = 200 ] && cmp "$work/$1.jsonl" "$work/ranks-1.jsonl"
}
part_bytes() {
  local i n link
  rm -f "$work"/ranks-*.jsonl
  for i in $(seq 200); do
    printf '{"id":%d,"prompt":"%s","max_tokens":%d,"temperature":%s,"top_p":%s,"seed":%d}\n' "$i" \
      "$(printf 'It is a truth universally acknowledged, that %.0s' $(seq $((1 + i % 7))))" \
      $((1 + i * 7 % 60)) "$([ $((i % 2)) = 0 ] && echo 0 || echo 0.8)" "$([ $((i % 3)) = 0 ] && echo 0.9 || echo 1)" "$i"
  done > "$work/records.jsonl"
  check ranks-1 answers ranks-1 1 auto
  # Ranks that share a GPU: auto takes the way through host memory.
  for link in mpi auto nccl; do
    for n in 2 4; do check "ranks-$n-$link" answers "ranks-$n-$link" "$n" "$link"; done
  done
}

part_sanitizer() {
  local tool on_gpu
  # A suite's number tells nothing of its device; the comment behind it does.
  on_gpu=$(model_ops_tests --gtest_list_tests | awk '/OnGpu/ {printf "%s*:", $1}')
  [ -n "$on_gpu" ] || { : > "$out/sanitizer.log"; failed sanitizer "there are no op tests on the GPU"; return; }
  for tool in memcheck racecheck; do
    check_tests "$tool" compute-sanitizer --tool "$tool" --error-exitcode 9 model_ops_tests \
      --gtest_filter="${on_gpu}CudaLinear*:CudaProductProofTest.*:CudaAttentionShapeTest.*:SampleOnGpuTest.*"
    say "        $(grep -E 'SUMMARY: ' "$out/$tool.log" | tail -n 1)"
  done
}

# bench_of NAME CHECKPOINT OPTIONS …
bench_of() {
  local name="bench-$1" checkpoint="$2"
  shift 2
  check "$name" penstock bench "$checkpoint" --device cuda --dtype bf16 "$@" || return
  sed 's/^/        /' "$out/$name.log" | tee -a "$summary"
}
# rows_of NAME: batch, prefill, its share in percent, decode, its share.
rows_of() {
  [ -e "$out/bench-$1.log" ] || return
  awk '/^ *batch +prefill/ {table = 1; next} table && !NF {exit} table {gsub(/[(%)]/, " "); print $1, $2, $3, $4, $5}' \
    "$out/bench-$1.log"
}
# goal TEXT VALUE LEAST UNIT: told, never fatal.
goal() {
  say "$(awk -v text="$1" -v value="$2" -v least="$3" -v unit="$4" 'BEGIN {
    verdict = value == "" ? "not measured" : value + 0 >= least + 0 ? "PASS" : "below the goal"
    printf "goal    %s: %s %s, at least %s: %s", text, value == "" ? "-" : value, unit, least, verdict}')"
}
goals() {
  local batch
  for batch in 1 32 128; do
    goal "8B decode at batch $batch, of the limit by the measured rates" \
      "$(rows_of 8b-decode | awk -v b=$batch '$1 == b {print $5}')" 85 %
  done
  goal "8B prefill, of the limit by the measured bf16 matrix rate" \
    "$(rows_of 8b-prefill | awk '$3 > best {best = $3} END {print best}')" 70 %
  # As many tokens in as out: prefill and decode one after the other.
  goal "8B 1000 in, 1000 out" \
    "$(rows_of 8b-1000-1000 | awk '$2 > 0 && $4 > 0 {r = int(1 / (1 / $2 + 1 / $4)); if (r > best) best = r} END {print best}')" \
    7000 "output tokens/s"
  goal "loading 8B, of the file system's rate" "$load_share" 70 %
}

# forget FILE: out of the page cache, as far as the file system does so.
forget() { dd of="$1" oflag=nocache conv=notrunc,fdatasync count=0 status=none; }
now() { date +%s.%N; }
# read_all FILE: GB/s of eight readers, each with its own part.
read_all() {
  local bytes blocks i started
  bytes=$(stat -c %s "$1")
  blocks=$(((bytes / 8 + 16777215) / 16777216))
  started=$(now)
  for i in $(seq 0 7); do
    dd if="$1" of=/dev/null bs=16M skip=$((i * blocks)) count="$blocks" status=none 2>/dev/null &
  done
  wait
  awk -v bytes="$bytes" -v from="$started" -v to="$(now)" 'BEGIN {printf "%.2f", bytes / (to - from) / 1e9}'
}
# load_rate NAME FILE: GB/s until the weights were on the GPU.
load_rate() {
  check "$1" penstock bench "$2" --device cuda --dtype bf16 --batch 1 --prompt 2 --generate 2 \
    --max-context 1024 --json >/dev/null || return
  sed -n 's/.*"load_bytes_per_s": *\([0-9.e+]*\).*/\1/p' "$out/$1.log" | awk '{printf "%.2f", $1 / 1e9}'
}
load_share=""
load_rates() {
  local file="$1" cache disk loaded
  for cache in cold warm; do
    [ "$cache" = warm ] || forget "$file"
    disk=$(read_all "$file")
    [ "$cache" = warm ] || forget "$file"
    loaded=$(load_rate "load-$cache" "$file")
    if [ -z "$loaded" ]; then failed "load-$cache" "no rate was told"; continue; fi
    say "ok      load-$cache: weights loaded at $loaded GB/s, the file read at $disk GB/s"
    [ "$cache" = warm ] || load_share=$(awk -v a="$loaded" -v b="$disk" 'BEGIN {printf "%.0f", 100 * a / b}')
  done
}

part_bench() {
  if check synth-smollm2 penstock synth smollm2-135m "$work/smollm2.h5" --force; then
    bench_of smollm2 "$work/smollm2.h5" --batch 1,8,32,64,256 --prompt 128 --generate 128
  fi
  check synth-8b penstock synth llama-3.1-8b "$work/llama-8b.h5" --force || return
  load_rates "$work/llama-8b.h5"
  # Contexts of 1,000 tokens on the average. In steps of 2,048 tokens 256 prompts take some 120 steps,
  # and no answer may end before the last of them.
  bench_of 8b-decode "$work/llama-8b.h5" --batch 1,32,128,256 --prompt 900 --generate 192 --max-context 2048
  bench_of 8b-prefill "$work/llama-8b.h5" --batch 1,8 --prompt 2048 --generate 32 --max-context 4096
  bench_of 8b-1000-1000 "$work/llama-8b.h5" --batch 128,192 --prompt 1000 --generate 1000 --max-context 2048
  goals
}

for part in $parts; do say "== $part"; "part_$part"; done
say "$([ "$failures" = 0 ] && echo "all passed" || echo "$failures failed"); results in $out"
[ "$failures" = 0 ]
