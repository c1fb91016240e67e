#!/usr/bin/env bash
# Runs on a machine with a GPU, from the folder that run.sh packed:
#
#   run.sh [PART …]     all parts in this order, or those that are named:
#     tests       op tests, stage tests against the CPU's, NCCL and memory tests
#     bytes       the same answers from 1, 2 and 4 ranks on one GPU, by NCCL and by MPI
#     sanitizer   compute-sanitizer's memcheck and racecheck over the op tests
#     bench       penstock bench for the shapes of SmolLM2-135M and Llama-3.1-8B (16 GB of disk)
#   run.sh -- COMMAND …  runs a command with the packed libraries, for example penstock --version
#
# Results go to $OUT, or a new folder under /tmp; WORK=FOLDER holds the checkpoints.
set -uo pipefail
here="$(cd "$(dirname "$0")" && pwd)"

# Folders of CUDA's libraries: the loader's own, the toolkit's, pip's packages.
cuda_folders() {
  local sites name
  sites=$(python3 -c 'import sys; print("\n".join(p for p in sys.path if p))' 2>/dev/null)
  for name in libcublasLt.so.13 libnccl.so.2; do
    # shellcheck disable=SC2086
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
if [ "${1:-}" = -- ]; then shift; exec "$@"; fi

parts="${*:-tests bytes sanitizer bench}"
for part in $parts; do
  case "$part" in tests|bytes|sanitizer|bench) ;; *) echo "no such part: $part" >&2; exit 1 ;; esac
done
out="${OUT:-$(mktemp -d /tmp/penstock-gpu.XXXXXX)}"
work="${WORK:-$out/work}"
mkdir -p "$out" "$work"
summary="$out/summary.txt"
failures=0
say() { echo "$*" | tee -a "$summary"; }
# check NAME COMMAND …: its output goes to $out/NAME.log, one line of it to the summary.
check() {
  local name="$1" code=0 started=$SECONDS passed skipped
  shift
  "$@" >"$out/$name.log" 2>&1 || code=$?
  passed=$(grep -c '^\[       OK' "$out/$name.log"); skipped=$(grep -c '^\[  SKIPPED \].* ms)' "$out/$name.log")
  if [ "$code" -eq 0 ]; then
    say "ok      $name, $((SECONDS - started)) s$([ "$passed" = 0 ] || echo ", $passed passed, $skipped skipped")"
  else
    failures=$((failures + 1))
    say "FAILED  $name: code $code, $name.log ends with"
    tail -n 12 "$out/$name.log" | sed 's/^/        /' | tee -a "$summary"
  fi
}

say "commit $(cat "$here/commit"); $(cat "$here/built-with"); $(date -u +%F)"
version=$(penstock --version 2>&1) || { say "the program does not start: $version"; exit 1; }
say "$(echo "$version" | paste -sd ' ')"
embedded="$here/jobs/embedded/austen-1m.h5"
if ! probe=$(penstock bench "$embedded" --device cuda --batch 1 --prompt 2 --generate 2 2>&1); then
  say "no GPU can be used here, or not by this program; nothing was tested:"
  say "$probe"
  exit 1
fi
say "$(nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv,noheader 2>/dev/null)"
# The test programs look for their data where they were built.
source_folder=$(cat "$here/source-folder")
if [ ! -e "$source_folder" ]; then
  mkdir -p "$(dirname "$source_folder")" && ln -s "$here" "$source_folder" ||
    say "warning: tests need $source_folder to be a link to $here"
fi

part_tests() {
  check device comm_device_tests
  check f16-first model_ops_tests --gtest_filter='CudaAttentionTest/6.BitsDoNotDependOnTheStep'
  check ops model_ops_tests
  check stage model_tests
  check links comm_tests --gtest_filter='*Nccl*:*Staged*'
}

# answers NAME RANKS LINK: each rank says it is on a host of its own, which lets NCCL put two on one
# GPU; messages then go by sockets, slowly.
answers() {
  NCCL_SOCKET_IFNAME=lo NCCL_IB_DISABLE=1 NCCL_MNNVL_ENABLE=0 timeout 300 mpirun -n "$2" bash -c \
    'NCCL_HOSTID=host-$OMPI_COMM_WORLD_RANK exec "$@"' rank penstock run "$embedded" --fresh \
    --input "$work/records.jsonl" --output "$work/$1.jsonl" --device cuda --dtype bf16 \
    --link "$3" --kv-memory 64M --progress none || return
  cp "$work/$1.jsonl.job/ledger.json" "$out/$1-ledger.json"
  cmp "$work/$1.jsonl" "$work/ranks-1.jsonl"
}
part_bytes() {
  local i n link
  for i in $(seq 200); do
    printf '{"id":%d,"prompt":"%s","max_tokens":%d,"temperature":%s,"top_p":%s,"seed":%d}\n' "$i" \
      "$(printf 'It is a truth universally acknowledged, that %.0s' $(seq $((1 + i % 7))))" \
      $((1 + i * 7 % 60)) "$([ $((i % 2)) = 0 ] && echo 0 || echo 0.8)" "$([ $((i % 3)) = 0 ] && echo 0.9 || echo 1)" "$i"
  done > "$work/records.jsonl"
  check ranks-1 answers ranks-1 1 auto
  for link in mpi nccl; do
    for n in 2 4; do check "ranks-$n-$link" answers "ranks-$n-$link" "$n" "$link"; done
  done
}

part_sanitizer() {
  local tool on_gpu
  # A suite's number tells nothing of its device; the comment behind it does.
  on_gpu=$(model_ops_tests --gtest_list_tests | awk '/OnGpu/ {printf "%s*:", $1}')
  for tool in memcheck racecheck; do
    check "$tool" compute-sanitizer --tool "$tool" --error-exitcode 9 model_ops_tests \
      --gtest_filter="${on_gpu}CudaLinear*:CudaProductProofTest.*:CudaAttentionShapeTest.*:SampleOnGpuTest.*"
  done
}

# bench_of NAME CHECKPOINT OPTIONS …
bench_of() {
  local name="bench-$1" checkpoint="$2"
  shift 2
  check "$name" penstock bench "$checkpoint" --device cuda --dtype bf16 "$@"
  sed 's/^/        /' "$out/$name.log" >> "$summary"
}
part_bench() {
  check synth-smollm2 penstock synth smollm2-135m "$work/smollm2.h5" --force
  bench_of smollm2 "$work/smollm2.h5" --batch 1,8,32,64,256 --prompt 128 --generate 128
  check synth-8b penstock synth llama-3.1-8b "$work/llama-8b.h5" --force
  bench_of 8b-decode "$work/llama-8b.h5" --batch 1,32,128,256 --prompt 1000 --generate 64 --max-context 2048
  bench_of 8b-prefill "$work/llama-8b.h5" --batch 1,8 --prompt 2048 --generate 2 --max-context 4096
  bench_of 8b-1000-1000 "$work/llama-8b.h5" --batch 128,192 --prompt 1000 --generate 1000 --max-context 2048
}

for part in $parts; do say "== $part"; "part_$part"; done
say "$([ "$failures" = 0 ] && echo "all passed" || echo "$failures failed"); results in $out"
[ "$failures" = 0 ]
