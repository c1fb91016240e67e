# Sourced by the scripts: installs what penstock is built with, on Debian and its relatives.

penstock_packages="g++ cmake ninja-build pkg-config ccache
  openmpi-bin libopenmpi-dev libhdf5-dev libdnnl-dev ocl-icd-opencl-dev libhwy-dev
  libboost-program-options-dev nlohmann-json3-dev libfmt-dev
  libpcre2-dev libutf8proc-dev libxxhash-dev python3 python3-venv"

# install_packages NAME …: those that are missing, if we may.
install_packages() {
  local missing="" name
  for name in "$@"; do
    dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q 'ok installed' || missing="$missing $name"
  done
  [ -n "$missing" ] || return 0
  local as_root=""
  if [ "$(id -u)" -ne 0 ]; then as_root="sudo"; fi
  echo "installing:$missing"
  export DEBIAN_FRONTEND=noninteractive
  # shellcheck disable=SC2086
  if ! $as_root apt-get -o DPkg::Lock::Timeout=300 install -y -q --no-install-recommends $missing >/dev/null 2>&1; then
    $as_root apt-get -o DPkg::Lock::Timeout=300 update -q >/dev/null
    # shellcheck disable=SC2086
    $as_root apt-get -o DPkg::Lock::Timeout=300 install -y -q --no-install-recommends $missing >/dev/null
  fi
}

# MPI for one machine: more ranks than cores, root in containers, nothing but loopback.
mpi_for_one_machine() {
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none
  export OMPI_MCA_oob_tcp_if_include=lo OMPI_MCA_btl_tcp_if_include=lo
}

# python_environment FOLDER PACKAGE …: a virtual environment with these packages.
python_environment() {
  local folder="$1"
  shift
  local stamp="$folder/.installed" wanted="$*"
  if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then return 0; fi
  python3 -m venv "$folder" && "$folder/bin/pip" install -q --disable-pip-version-check "$@" &&
    echo "$wanted" > "$stamp"
}
