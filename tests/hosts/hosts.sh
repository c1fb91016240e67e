#!/bin/bash
# Two or more hosts for tests, on this machine: namespaces with a host name, an address and /dev/shm
# of their own, on one switch. For root; needs the Debian packages iproute2 and util-linux.
#
#   hosts.sh up FOLDER [N=2]        h1, h2, …
#   hosts.sh down FOLDER
#   hosts.sh cut FOLDER hI          the cable of host hI is pulled, and
#   hosts.sh heal FOLDER hI         plugged in again
#   hosts.sh crash FOLDER hI        all processes of host hI are killed
#   hosts.sh list FOLDER hI         the processes of host hI
#   FOLDER/on hI COMMAND …          run a command there
#   FOLDER/agent                    what mpirun takes for ssh (OMPI_MCA_plm_rsh_agent)
set -eu
[ -n "${2:-}" ] || { sed -n '2,13s/^# \{0,1\}//p' "$0"; exit 2; }
folder=$(realpath -m "$2")
host=${3:-}

pid_of() { cat "$folder/pids/$1"; }
switch() { nsenter -t "$(pid_of switch)" -n -- "$@"; }

# Those in the host's network, without the one that holds it.
processes() {
  local network link pid
  network=$(readlink "/proc/$(pid_of "$1")/ns/net")
  for link in /proc/[0-9]*/ns/net; do
    pid=${link#/proc/}
    pid=${pid%%/*}
    if [ "$(readlink "$link")" = "$network" ] && [ "$pid" != "$(pid_of "$1")" ]; then echo "$pid"; fi
  done 2>/dev/null
}

# Until process $1 has left our network.
await_namespace() {
  for _ in $(seq 500); do
    [ "$(readlink "/proc/$1/ns/net")" = "$(readlink /proc/self/ns/net)" ] || return 0
    sleep 0.01
  done
  return 1
}

up() {
  local number pid
  mkdir -p "$folder/pids"
  echo "127.0.0.1 localhost" > "$folder/hosts"
  for number in $(seq "$1"); do echo "10.79.0.$number h$number"; done >> "$folder/hosts"
  setsid unshare --net -- sleep infinity </dev/null >/dev/null 2>&1 &
  echo $! > "$folder/pids/switch"
  await_namespace $!
  switch bash -ec 'ip link add br0 type bridge; ip link set br0 up'
  for number in $(seq "$1"); do
    # shellcheck disable=SC2016
    setsid unshare --net --uts --ipc --mount -- bash -ec '
      hostname "h$1"
      mount -t tmpfs -o mode=1777 tmpfs /dev/shm
      mount --bind "$2/hosts" /etc/hosts
      ip link set lo up
      touch "$2/pids/h$1.ready"
      exec sleep infinity' host "$number" "$folder" </dev/null >/dev/null 2>&1 &
    pid=$!
    for _ in $(seq 500); do [ -e "$folder/pids/h$number.ready" ] && break; sleep 0.01; done
    echo "$pid" > "$folder/pids/h$number"
    switch ip link add "v$number" type veth peer name eth0 netns "$pid"
    switch ip link set "v$number" master br0 up
    nsenter -t "$pid" -n -- ip addr add "10.79.0.$number/24" dev eth0
    nsenter -t "$pid" -n -- ip link set eth0 up
  done
  cat > "$folder/on" <<'ON'
#!/bin/bash
host=$1
shift
pid=$(cat "${0%/*}/pids/$host") || exit 255
exec nsenter -t "$pid" -n -u -i -m --wdns="$PWD" -- "$@"
ON
  cat > "$folder/agent" <<'AGENT'
#!/bin/bash
# As ssh does, the words of the command are joined and given to a shell.
while [[ ${1:-} == -* ]]; do shift; done
host=$1
shift
exec "${0%/*}/on" "$host" bash -c "$*"
AGENT
  chmod +x "$folder/on" "$folder/agent"
}

down() {
  local file
  for file in "$folder"/pids/h*[0-9]; do
    crash "${file##*/}"
    kill -KILL "$(cat "$file")"
  done
  kill -KILL "$(pid_of switch)"
  rm -r "$folder/pids"
}

crash() {
  local pid
  for pid in $(processes "$1"); do kill -KILL "$pid" 2>/dev/null || true; done
}

case $1 in
  up) up "${3:-2}" ;;
  down) down ;;
  cut) switch ip link set "v${host#h}" down ;;
  heal) switch ip link set "v${host#h}" up ;;
  crash) crash "$host" ;;
  list) for pid in $(processes "$host"); do tr '\0' ' ' < "/proc/$pid/cmdline" 2>/dev/null && echo; done ;;
  *) exit 2 ;;
esac
