#!/usr/bin/env bash
# A real Slurm of four virtual nodes on this machine, for tests and for trying things.
# No systemd, no cgroups, no database; what it needs is generated under one folder.
set -euo pipefail

usage() {
    cat <<END
usage: $0 install | up | down | status | env

  install   install Debian's Slurm packages (root)
  up        start the nodes node1..node4, 8 CPUs each; nothing if they are up
  down      end all jobs and daemons and remove everything that up made
  status    show the nodes and the jobs; status 1 if the cluster is not up
  env       print what a shell needs: eval "\$($0 env)"

The cluster lives in \$STATE_DIR (default: $DIR); its ports are
\$SLURM_PORT (default: 16817) and the four after it. Root is needed to install, and to
let each node have a host name, shared memory and IPC of its own: without it all nodes
are this one to MPI, MPICH works with \`srun --mpi=pmi2\`, and only you can submit.
END
}

DIR=${STATE_DIR:-${TMPDIR:-/tmp}/dsgd-slurm-$UID}
PORT=${SLURM_PORT:-16817}
NODES=(node1 node2 node3 node4)
CPUS=8
KILL_WAIT=5 # seconds between SIGTERM and SIGKILL for a job
SITE=/etc/slurm/slurm.conf
PATH=$PATH:/usr/sbin:/sbin
unset SLURM_CONF # of another cluster

say() { echo "slurm.sh: $*"; }
die() {
    echo "slurm.sh: $*" >&2
    exit 1
}
is_root() { [ "$UID" -eq 0 ]; }

install_packages() {
    local plugin
    plugin=/usr/lib/$(uname -m)-linux-gnu/pmix2/lib
    is_root || die "only root can install packages; ask for slurmctld slurmd slurm-client munge"
    command -v apt-get >/dev/null ||
        die "there is no apt-get; install slurmctld, slurmd, their clients and munge by hand"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        slurmctld slurmd slurm-client munge libpmix2 >/dev/null
    # Debian 12's pmix plugin opens a name that only the development package has.
    if [ -e "$plugin/libpmix.so.2" ] && [ ! -e "$plugin/libpmix.so" ]; then
        ln -s libpmix.so.2 "$plugin/libpmix.so"
    fi
    say "installed $(slurmctld -V)"
}

# Hold the folder until the process ends, so that no other call starts or stops beside this one.
hold() {
    [ "${#DIR}" -le 80 ] || die "STATE_DIR is too long for sockets: $DIR"
    while :; do
        if [ -e "$DIR" ] && [ -n "$(ls -A "$DIR")" ] && [ ! -e "$DIR/made-by-slurm.sh" ]; then
            die "$DIR holds something else; name another folder with STATE_DIR"
        fi
        mkdir -p "$DIR"
        exec 9<"$DIR"
        flock -w 120 9 || die "another slurm.sh is at work in $DIR"
        # `down` may have removed the folder while we waited
        [ "$DIR" -ef /proc/self/fd/9 ] && break
    done
    touch "$DIR/made-by-slurm.sh"
}

# pid_of NAME PROGRAM: the process in a PID file, if it is still that daemon of ours
pid_of() {
    local file=$DIR/run/$1.pid pid exe
    [ -s "$file" ] && read -r pid <"$file" && [ -n "$pid" ] || return 1
    exe=$(readlink "/proc/$pid/exe") || return 1
    [[ ${exe##*/} == "$2"* ]] || return 1 # Debian's ends in -wlm
    tr '\0' ' ' <"/proc/$pid/cmdline" | grep -qF "$DIR/" || return 1
    echo "$pid"
}

daemons() {
    local node
    for node in "${NODES[@]}"; do pid_of "slurmd.$node" slurmd || true; done
    pid_of slurmctld slurmctld || true
    pid_of munged munged || true
}

all_up() { [ "$(daemons | wc -l)" -eq $((${#NODES[@]} + 2)) ]; }

client() { SLURM_CONF=$DIR/slurm.conf timeout 20 "$@" 9>&-; }

check_ports() {
    local port
    for port in $(seq "$PORT" $((PORT + ${#NODES[@]}))); do
        if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            die "port $port is taken; name another first port with SLURM_PORT"
        fi
    done
}

write_conf() {
    local number=0 node
    cat >"$DIR/slurm.conf" <<END
ClusterName=emulated
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=$PORT
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
AuthInfo=socket=$DIR/run/munge.sock
CredType=cred/munge
StateSaveLocation=$DIR/state
SlurmdSpoolDir=$DIR/spool.%n
# PMIx makes one folder per job in it, which nodes must not share.
TmpFS=$DIR/tmp.%n
SlurmctldPidFile=$DIR/run/slurmctld.pid
SlurmdPidFile=$DIR/run/slurmd.%n.pid
SlurmctldLogFile=$DIR/log/slurmctld.log
SlurmdLogFile=$DIR/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
# Slurm's own default, and the trap: srun without --mpi starts worlds of size 1.
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
# A node may have more CPUs than this machine.
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,bf_interval=2,sched_interval=2
ReturnToService=2
SlurmdTimeout=0
MessageTimeout=60
InactiveLimit=0
KillWait=$KILL_WAIT
MinJobAge=86400
JobCompType=jobcomp/filetxt
JobCompLoc=$DIR/log/jobcomp.txt
MailProg=/bin/true
PartitionName=debug Nodes=ALL Default=YES DefaultTime=01:00:00 MaxTime=7-00:00:00 State=UP
END
    for node in "${NODES[@]}"; do
        number=$((number + 1))
        echo "NodeName=$node NodeHostname=$node NodeAddr=127.0.0.1" \
            "Port=$((PORT + number)) Sockets=1 CoresPerSocket=$CPUS ThreadsPerCore=1" \
            "RealMemory=64000 State=UNKNOWN"
    done >>"$DIR/slurm.conf"
    echo "CgroupPlugin=cgroup/v1" >"$DIR/cgroup.conf" # nothing is probed
}

# In place: in containers the file is a mount, which cannot be replaced.
forget_names() {
    local kept
    grep -qF "# slurm in $DIR" /etc/hosts || return 0
    kept=$(grep -vF "# slurm in $DIR" /etc/hosts || true)
    printf '%s\n' "$kept" >/etc/hosts
}

start_munge() {
    local socket=$DIR/run/munge.sock
    (umask 077 && head -c 128 /dev/urandom >"$DIR/munge.key")
    munged --key-file="$DIR/munge.key" --socket="$socket" \
        --pid-file="$DIR/run/munged.pid" --log-file="$DIR/log/munged.log" \
        --seed-file="$DIR/munge.seed" 9>&- ||
        die "munged does not start; see $DIR/log/munged.log"
    munge -n -S "$socket" | unmunge -S "$socket" >/dev/null ||
        die "munged does not answer; see $DIR/log/munged.log"
}

# A shell line for slurmd: with what makes a node look like a machine, as far as allowed.
start_node() {
    local node=$1 apart=()
    mkdir -p "$DIR/spool.$node" "$DIR/tmp.$node"
    chmod 1777 "$DIR/tmp.$node"
    if is_root && unshare --uts --ipc --mount true 2>/dev/null; then
        apart=(unshare --uts --ipc --mount)
    fi
    # shellcheck disable=SC2016 # the inner shell reads its own words
    "${apart[@]}" sh -c '
        if [ -n "$3" ]; then
            hostname "$1" && mount -t tmpfs -o mode=1777 shm /dev/shm || exit
        fi
        exec slurmd -f "$2" -N "$1"' \
        sh "$node" "$DIR/slurm.conf" "${apart[*]}" </dev/null >/dev/null 9>&- ||
        die "$node does not start; see $DIR/log/slurmd.$node.log"
}

wait_ready() {
    local end=$((SECONDS + 30)) idle node
    while [ "$SECONDS" -lt "$end" ]; do
        idle=$(client sinfo -h -N -o '%T' 2>/dev/null | grep -c '^idle$' || true)
        [ "$idle" -eq "${#NODES[@]}" ] && return
        for node in $(client sinfo -h -N -t down -o '%N' 2>/dev/null); do
            client scontrol update "nodename=$node" state=resume 2>/dev/null || true
        done
        sleep 0.1
    done
    die "the nodes are not idle after 30 s; see $DIR/log"
}

up() {
    local program node
    for program in slurmctld slurmd srun sbatch munged; do
        command -v "$program" >/dev/null || die "there is no $program; run $0 install"
    done
    hold
    if all_up; then
        say "up already, in $DIR"
        return
    fi
    clear_away
    touch "$DIR/made-by-slurm.sh"
    check_ports
    mkdir -p "$DIR"/{run,log,state}
    chmod 755 "$DIR" "$DIR/run"
    write_conf
    if is_root; then
        echo "127.0.0.1 ${NODES[*]} # slurm in $DIR" >>/etc/hosts
        # so that every user finds this cluster; a site's own file stays
        [ -e "$SITE" ] || [ -L "$SITE" ] || [ ! -d "${SITE%/*}" ] ||
            ln -s "$DIR/slurm.conf" "$SITE"
    fi
    start_munge
    slurmctld -f "$DIR/slurm.conf" </dev/null 9>&- ||
        die "slurmctld does not start; see $DIR/log/slurmctld.log"
    for node in "${NODES[@]}"; do start_node "$node"; done
    wait_ready
    say "up: ${#NODES[@]} nodes of $CPUS CPUs, in $DIR"
}

end_jobs() {
    local end=$((SECONDS + KILL_WAIT + 10)) jobs
    pid_of slurmctld slurmctld >/dev/null || return 0
    while [ "$SECONDS" -lt "$end" ]; do
        jobs=$(client squeue -h -o %A 2>/dev/null) || return 0
        [ -n "$jobs" ] || return 0
        # shellcheck disable=SC2086 # one word per job
        client scancel $jobs 2>/dev/null || true
        sleep 0.2
    done
}

# Processes of our jobs, by what Slurm tells them; steps, by the sockets they hold.
strays() {
    local place
    for place in /proc/[0-9]*; do
        if grep -qzxF "SLURM_CONF=$DIR/slurm.conf" "$place/environ" 2>/dev/null &&
            grep -qz '^SLURM_JOB_ID=' "$place/environ"; then
            echo "${place##*/}"
        elif [[ $(readlink "$place/exe") == */slurmstepd ]] &&
            find "$place/fd" "$place/cwd" -lname "$DIR/*" 2>/dev/null | grep -q .; then
            echo "${place##*/}"
        fi
    done
}

# end PIDS...: ask, wait, then insist
end() {
    local pid end=$((SECONDS + 5))
    for pid in "$@"; do kill "$pid" 2>/dev/null || true; done
    for pid in "$@"; do
        while [ -d "/proc/$pid" ] && [ "$SECONDS" -lt "$end" ]; do sleep 0.05; done
        kill -KILL "$pid" 2>/dev/null || true
    done
}

clear_away() {
    local pids
    end_jobs
    mapfile -t pids < <(daemons)
    end "${pids[@]}"
    mapfile -t pids < <(strays)
    end "${pids[@]}"
    if is_root; then
        forget_names
        if [[ $(readlink "$SITE") == "$DIR/slurm.conf" ]]; then rm -f "$SITE"; fi
    fi
    find "$DIR" -mindepth 1 -delete
}

down() {
    hold
    clear_away
    rmdir "$DIR"
    say "down; nothing is left in $DIR"
}

status() {
    if ! all_up; then
        say "not up in $DIR"
        return 1
    fi
    client sinfo -N -o '%N %T %c CPUs'
    client squeue
}

main() {
    case ${1:-} in
    install) install_packages ;;
    up | down | status) "$1" ;;
    env)
        all_up || die "not up in $DIR; run $0 up"
        echo "export SLURM_CONF='$DIR/slurm.conf'"
        ;;
    -h | --help) usage ;;
    *)
        usage >&2
        exit 2
        ;;
    esac
}

main "$@"
