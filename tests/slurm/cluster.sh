#!/bin/bash
# A Slurm cluster for tests, in one folder of this machine: munged, slurmctld, and slurmd on nodes
# that are namespaces with a host name, an address, /dev/shm and process numbers of their own. For
# root; needs the Debian packages slurm-wlm, munge, iproute2, procps and util-linux.
#
#   cluster.sh up FOLDER [NODES=2] [CPUS=2]   bring it up, in half a second
#   cluster.sh down FOLDER                    end all that it started
#   cluster.sh crash FOLDER nodeI             the power of that node fails
#   cluster.sh boot FOLDER nodeI              and comes back
#   FOLDER/in sbatch …                        Slurm's commands
#
# Each node has two GPUs as far as Slurm knows; what stands for them is /dev/null's like.
# The partition urgent takes nodes away from jobs of the partition batch, which are requeued.
set -u
command=${1:-}
[ -n "${2:-}" ] || { sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 2; }
folder=$(realpath -m "$2")

fail() {
  echo "cluster.sh: $*" >&2
  tail -n 5 "$folder"/log/* >&2
  down
  exit 1
}

# Process numbers are used again, so the start time is kept beside them.
start_time() { awk '{print $22}' "/proc/$1/stat" 2>/dev/null; }
note() { echo "$2 $(start_time "$2")" > "$folder/pids/$1"; }
pid_of() {
  local pid start
  read -r pid start 2>/dev/null < "$folder/pids/$1" && [ "$(start_time "$pid")" = "$start" ] &&
    echo "$pid"
}
end() {
  local pid
  if pid=$(pid_of "$1"); then
    kill "-${2:-TERM}" "$pid" 2>/dev/null
    for _ in $(seq 30); do pid_of "$1" >/dev/null || break; sleep 0.1; done
    if pid_of "$1" >/dev/null; then kill -KILL "$pid" 2>/dev/null; fi
  fi
  rm -f "$folder/pids/$1"
}

down() {
  local node
  end slurmctld  # first, so that it starts nothing again
  for node in "$folder"/pids/node*; do end "${node##*/}" KILL; done
  end munged
  end network
}

# Until process $1 has left our namespace $2.
await_namespace() {
  for _ in $(seq 500); do
    [ "$(readlink "/proc/$1/ns/$2")" = "$(readlink "/proc/$$/ns/$2")" ] || return 0
    sleep 0.01
  done
  fail "no namespace"
}
in_network() { nsenter -t "$(pid_of network)" -n -u -- "$@"; }

boot() {
  local node=$1 number=${1#node} pid
  # With its parent, unshare, all processes of the node end.
  # shellcheck disable=SC2016
  setsid unshare --net --uts --ipc --mount --pid --fork --mount-proc --kill-child=KILL -- bash -c '
    set -e
    hostname "$2"
    mount -t tmpfs -o mode=1777 tmpfs /dev/shm
    mount --bind "$1/tmp.$2" "$1/nodetmp"
    mount --bind "$1/hosts" /etc/hosts
    ip link set lo up
    for _ in $(seq 500); do ip link show eth0 >/dev/null 2>&1 && break; sleep 0.01; done
    ip addr add "10.77.0.$3/24" dev eth0
    ip link set eth0 up
    slurmd -D -N "$2" -f "$1/slurm.conf" &
    wait $!' node "$folder" "$node" "$number" </dev/null >>"$folder/log/$node.out" 2>&1 &
  pid=$!
  note "$node" $pid
  await_namespace $pid net
  in_network ip link del "v$number" 2>/dev/null
  in_network ip link add "v$number" type veth peer name eth0 netns "$pid" || fail "no link to $node"
  in_network ip link set "v$number" master br0 up
}

write_configuration() {
  local number
  for number in $(seq "$nodes"); do echo "10.77.0.$number node$number"; done > "$folder/hosts"
  printf '127.0.0.1 localhost\n10.77.0.254 controller\n' >> "$folder/hosts"
  (umask 077; head -c 128 /dev/urandom > "$folder/munge/key")
  # cred_expire: how long a requeued job waits; 5 s is the least.
  cat > "$folder/slurm.conf" <<CONF
ClusterName=penstock
SlurmctldHost=controller(10.77.0.254)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket,cred_expire=5
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_min_interval=50000,sched_interval=2,bf_interval=2
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
JobRequeue=1
KillWait=3
OverTimeLimit=0
SlurmctldTimeout=30
SlurmdTimeout=10
MessageTimeout=10
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.%n.pid
SlurmdSpoolDir=$folder/spool.%n
StateSaveLocation=$folder/state
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd.%n.log
CONF
  for number in 0 1; do
    [ -e "$folder/gpu$number" ] || mknod "$folder/gpu$number" c 1 3 || fail "no stand-in for a GPU"
  done
  echo "Name=gpu File=$folder/gpu[0-1]" > "$folder/gres.conf"
  {
    echo "GresTypes=gpu"
    for number in $(seq "$nodes"); do
      echo "NodeName=node$number NodeAddr=10.77.0.$number CPUs=$cpus Gres=gpu:2 State=UNKNOWN"
    done
    echo "PartitionName=batch Nodes=ALL Default=YES DefaultTime=10 GraceTime=5"
    echo "PartitionName=urgent Nodes=ALL DefaultTime=1 PriorityTier=10"
  } >> "$folder/slurm.conf"
  for number in $(seq "$nodes"); do
    mkdir -p "$folder/spool.node$number" "$folder/tmp.node$number"
  done
  echo "PMIxCliTmpDirBase=$folder/nodetmp" > "$folder/mpi.conf"
}

up() {
  local pid
  [ "${#folder}" -le 80 ] || fail "the folder's name is too long for a socket: $folder"
  mkdir -p "$folder"/{state,log,munge,pids,nodetmp} || exit 1
  chmod 755 "$folder"
  chmod 700 "$folder/munge"
  write_configuration

  setsid unshare --net --uts -- sleep 2147483647 </dev/null >/dev/null 2>&1 &
  pid=$!
  await_namespace $pid uts
  note network $pid
  in_network bash -ec '
    hostname controller
    ip link set lo up
    ip link add br0 type bridge
    ip addr add 10.77.0.254/24 dev br0
    ip link set br0 up' || fail "no network of its own"
  printf '#!/bin/bash\nexport SLURM_CONF=%q\nexec nsenter -t %d -n -u -- "$@"\n' \
    "$folder/slurm.conf" "$pid" > "$folder/in"
  chmod +x "$folder/in"

  setsid munged -F --force --num-threads=2 --key-file="$folder/munge/key" \
    --socket="$folder/munge.socket" --pid-file="$folder/munge/pid" \
    --log-file="$folder/log/munged.log" --seed-file="$folder/munge/seed" \
    </dev/null >"$folder/log/munged.out" 2>&1 &
  note munged $!
  for _ in $(seq 200); do
    munge -S "$folder/munge.socket" -n >/dev/null 2>&1 && break
    sleep 0.05
  done
  setsid nsenter -t "$pid" -n -u -- slurmctld -D -c -f "$folder/slurm.conf" \
    </dev/null >"$folder/log/slurmctld.out" 2>&1 &
  note slurmctld $!
  for number in $(seq "$nodes"); do boot "node$number"; done
  for _ in $(seq 600); do
    [ "$("$folder/in" sinfo -h -t idle -o %D 2>/dev/null)" = "$nodes" ] && return
    pid_of slurmctld >/dev/null || fail "slurmctld has ended"
    sleep 0.1
  done
  fail "the nodes are not idle after a minute"
}

export SLURM_CONF=$folder/slurm.conf
nodes=${3:-2}
cpus=${4:-2}
case $command in
  up) up ;;
  down) down ;;
  crash) end "${3:?which node}" KILL ;;
  boot) boot "${3:?which node}" ;;
  *) fail "no such command: $command" ;;
esac
