#!/usr/bin/env bash
# The proof on a card. Builds the preset cuda-release, and packs the tests with what a bare CUDA
# machine lacks into build/gpu-pack and build/gpu-pack.tar.gz (less than 64 MiB). There:
#
#   tar xzf gpu-pack.tar.gz && gpu-pack/run.sh       card.sh beside this file says more
#
#   tests/gpu/run.sh                                  builds and packs, needs no GPU
#   tests/gpu/run.sh --on-this-machine [PART …]       and runs it here
#
# OUT=FOLDER: where the results go.
set -euo pipefail
cd "$(dirname "$0")/../.."
. jobs/packages.sh
export PATH="$PATH:/usr/local/cuda/bin"

here=no
case "${1:-}" in
  "") ;;
  --on-this-machine) here=yes; shift ;;
  *) echo "usage: tests/gpu/run.sh [--on-this-machine [PART …]]" >&2; exit 1 ;;
esac
command -v nvcc >/dev/null || { echo "nvcc is not there, neither on PATH nor in /usr/local/cuda/bin" >&2; exit 1; }
if command -v apt-get >/dev/null; then
  # shellcheck disable=SC2086
  install_packages $penstock_packages libgtest-dev libgmock-dev
fi
launchers=""
if command -v ccache >/dev/null; then
  launchers="-DCMAKE_CXX_COMPILER_LAUNCHER=ccache -DCMAKE_CUDA_COMPILER_LAUNCHER=ccache"
fi

programs="penstock model_ops_tests model_tests comm_tests comm_device_tests"
build=build/cuda-release
# shellcheck disable=SC2086
cmake --preset cuda-release -DPENSTOCK_TESTS=ON $launchers >/dev/null
# shellcheck disable=SC2086
cmake --build --preset cuda-release --target $programs comm_world_end

pack=build/gpu-pack
rm -rf "$pack" "$pack.tar.gz"
mkdir -p "$pack/bin" "$pack/lib" "$pack/openmpi" "$pack/pmix" "$pack/share" "$pack/tests/reference"

# What has a path of its own on every CUDA machine: the C library, the driver, CUDA's libraries.
own_of_the_machine='/(ld-linux-x86-64|libc|libm|libdl|librt|libpthread|libresolv|libcuda|libcudart|libcublas|libcublasLt|libnccl)\.so'
# libraries_of FILE …: copies the shared libraries that these need.
libraries_of() {
  ldd "$@" | awk '$3 ~ /^\// {print $3}' | sort -u | grep -vE "$own_of_the_machine" |
    while read -r library; do
      [ -e "$pack/lib/$(basename "$library")" ] || cp -L "$library" "$pack/lib/"
    done
}
if ldd "$build/penstock" "$build"/tests/{model_ops,model,comm,comm_device}_tests | grep 'not found'; then
  echo "these libraries are not there" >&2
  exit 1
fi
cp "$build/penstock" "$build"/tests/{model_ops,model,comm,comm_device}_tests "$pack/bin/"
strip "$pack"/bin/*
cp -L "$(command -v orterun)" "$pack/bin/mpirun"
cp -L "$(command -v orted)" "$pack/bin/orted"
# Open MPI's plugins, without those for networks and schedulers: one machine is all there is.
libdir=$(ompi_info --parsable --path libdir | sed 's/.*://')
plugins=$(dirname "$(find "$libdir/" /usr/lib -name mca_pml_ob1.so 2>/dev/null | head -n 1)")
for plugin in "$plugins"/mca_*.so; do
  case "$plugin" in
    *ucx*|*ofi*|*openib*|*psm*|*slurm*|*flux*|*jsm*|*gridengine*|*netlink*|*monitoring*|*_io_*|*sharedfp*) ;;
    *) cp "$plugin" "$pack/openmpi/" ;;
  esac
done
find /usr/lib -path '*pmix2*' -name 'pmix_mca_*.so' ! -name '*slurm*' -exec cp {} "$pack/pmix/" \;
cp -r "$(ompi_info --parsable --path pkgdatadir | sed 's/.*://')" "$pack/share/openmpi"
libraries_of "$pack"/bin/* "$pack"/openmpi/*.so "$pack"/pmix/*.so
mkdir -p "$pack/jobs"
cp -r jobs/embedded jobs/examples "$pack/jobs/"
cp -r tests/reference/data "$pack/tests/reference/"
pwd > "$pack/source-folder"  # where the test programs look for their data
{ git rev-parse HEAD; git diff --quiet HEAD || echo "with changes"; } 2>/dev/null | paste -sd ' ' > "$pack/commit"
nvcc --version | grep release > "$pack/built-with"
cp tests/gpu/card.sh "$pack/run.sh"

tar -C build -czf "$pack.tar.gz" gpu-pack
bytes=$(stat -c %s "$pack.tar.gz")
echo "$pack.tar.gz: $((bytes / 1048576)) MiB (unpacked $(du -sm "$pack" | cut -f1) MiB)"
[ "$bytes" -lt $((64 * 1048576)) ] || { echo "that is more than 64 MiB" >&2; exit 1; }
if [ "$here" = yes ]; then exec "$pack/run.sh" "$@"; fi
