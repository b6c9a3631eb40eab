#!/usr/bin/env bash
# Hosts with shaped links on one Linux machine, from network namespaces; needs root.
set -euo pipefail

usage() {
    cat <<'END'
usage: hosts.sh [--prefix P] COMMAND
  up [-n HOSTS] [--rate RATE] [--slow HOST=RATE]...
                       make host1, host2, ... (4, at 200mbit) and ctl, where mpiexec
                       runs; again: only shape them anew
  shape HOST RATE      change the rate of a host's link, both ways, at any time
  status               rate, bytes sent and received, and processes of every host
  run HOST COMMAND...  run a command on a host; on ctl, an mpiexec uses all hosts
  rsh HOST COMMAND...  the same as ssh would: its options are ignored, words are joined
  down                 end what runs there and remove everything
RATE is a number with kbit, mbit or gbit, or none for an unshaped link. Several sets
of hosts live side by side with a --prefix each, or DSGD_BENCH_HOSTS in the environment.
Exit status 77: this machine cannot have such hosts (not root, or no namespaces).
END
}

PREFIX=${DSGD_BENCH_HOSTS:-dsgd-}
NET=10.99.0
CTL=254
MTU=1500
SELF=$(readlink -f "${BASH_SOURCE[0]}")
CANNOT=77

say() { echo "hosts.sh: $*" >&2; }

fail() {
    say "$1"
    exit "${2:-2}"
}

# --- names and numbers

namespace() { echo "$PREFIX$1"; }

octet() { # host3 -> 3, ctl -> 254
    if [[ $1 == ctl ]]; then echo "$CTL"; else echo "${1#host}"; fi
}

mac() { printf '02:99:00:00:00:%02x' "$1"; } # locally administered, predictable

exists() { [[ -e /run/netns/$(namespace "$1") ]]; }

hosts() { # the hosts that are up, in order
    local i=1
    while exists "host$i"; do
        echo "host$i"
        i=$((i + 1))
    done
}

host_name() { # a name or an address -> the name of a host that is up
    local name=$1
    case $name in
        "$NET.$CTL") name=ctl ;;
        "$NET".*) name=host${name##*.} ;;
    esac
    if [[ ! $name =~ ^(ctl|host[0-9]+)$ ]] || ! exists "$name"; then
        fail "there is no host $1: choose one of ctl $(hosts | xargs), or run up first"
    fi
    echo "$name"
}

kbits() { # 200mbit -> 200000
    if [[ ! $1 =~ ^([1-9][0-9]{0,5})(k|m|g)bit$ ]]; then
        fail "'$1' is no rate: write 50kbit, 200mbit, 1gbit or none"
    fi
    local -A unit=([k]=1 [m]=1000 [g]=1000000)
    echo $((BASH_REMATCH[1] * unit[${BASH_REMATCH[2]}]))
}

check_rate() { [[ $1 == none ]] || kbits "$1" > /dev/null; }

# --- making and shaping

need_namespaces() {
    [[ $(id -u) == 0 ]] || fail "network namespaces need root" $CANNOT
    command -v tc > /dev/null || fail "there is no tc: install iproute2" $CANNOT
    local probe
    probe=$(namespace probe-$$)
    ip netns add "$probe" 2> /dev/null ||
        fail "this machine lets nobody make network namespaces" $CANNOT
    ip netns del "$probe"
}

make_hub() { # a switch without a host behind it
    local hub
    hub=$(namespace hub)
    ip netns add "$hub"
    ip -n "$hub" link set lo up
    ip -n "$hub" link add br0 type bridge stp_state 0 forward_delay 0
    ip -n "$hub" link set br0 mtu $MTU up
}

make_host() { # make_host NAME
    local ns number port control
    ns=$(namespace "$1") number=$(octet "$1") port=$(port "$1")
    ip netns add "$ns"
    # the peer is born inside the host: nothing ever shows in the root namespace
    ip -n "$(namespace hub)" link add "$port" type veth peer name eth0 netns "$ns"
    ip -n "$(namespace hub)" link set "$port" mtu $MTU master br0 up
    ip -n "$ns" link set lo up
    ip -n "$ns" link set eth0 address "$(mac "$number")" mtu $MTU
    ip -n "$ns" addr add "$NET.$number/24" dev eth0
    ip -n "$ns" link set eth0 up
    # Where flows meet, the few lost frames of a short queue halve cubic's rate, and
    # queues are measured instead of links; bbr does not mind them.
    for control in bbr cubic; do
        ip -n "$ns" route replace "$NET.0/24" dev eth0 src "$NET.$number" \
            congctl $control 2> /dev/null && break
    done
    ip netns exec "$ns" sysctl -qw net.ipv6.conf.all.disable_ipv6=1 || true
}

machines() { echo "/etc/netns/${PREFIX}machines"; } # for mpiexec; no namespace's name

port() { echo "v$(octet "$1")"; } # the host's end of the cable at the hub

introduce() { # introduce COUNT: names, and neighbors for good: no ARP on slow links
    local all=(ctl) i name other ns
    for ((i = 1; i <= $1; i++)); do all+=("host$i"); done
    for name in "${all[@]}"; do
        ns=$(namespace "$name")
        mkdir -p "/etc/netns/$ns"
        echo "$name" > "/etc/netns/$ns/hostname"
        {
            echo "127.0.0.1 localhost"
            for other in "${all[@]}"; do echo "$NET.$(octet "$other") $other"; done
        } > "/etc/netns/$ns/hosts"
        for other in "${all[@]}"; do
            [[ $other != "$name" ]] || continue
            ip -n "$ns" neigh replace "$NET.$(octet "$other")" \
                lladdr "$(mac "$(octet "$other")")" dev eth0 nud permanent
        done
    done
    mkdir -p "$(machines)" # as MPICH and Intel MPI want it, and as Open MPI does
    seq -f 'host%g' "$1" > "$(machines)/hydra"
    seq -f 'host%g slots=1' "$1" > "$(machines)/prte"
}

shape() { # shape HOST RATE
    local name rate=$2
    name=$(host_name "$1")
    check_rate "$rate"
    shape_end "$(namespace "$name")" eth0 "$rate"
    shape_end "$(namespace hub)" "$(port "$name")" "$rate"
}

shape_end() { # shape_end NAMESPACE DEVICE RATE
    if [[ $3 == none ]]; then
        tc -n "$1" qdisc del dev "$2" root 2> /dev/null || true
        return
    fi
    local rate burst limit
    rate=$(kbits "$3")
    # Two frames: with a larger bucket whatever fits into it would pass for free. From
    # 500 Mbit/s on 250 us of line rate, for late interrupts would lose tokens.
    burst=$((2 * (MTU + 50)))
    ((rate < 500000)) || burst=$((rate / 32))
    limit=$((rate * 10 / 8)) # 10 ms of line rate
    ((limit > 262144)) || limit=262144
    tc -n "$1" qdisc replace dev "$2" root tbf rate "${rate}kbit" burst $burst \
        limit $limit
}

up() {
    local count=4 rate=200mbit slow=() have word i
    while (($#)); do
        case $1 in
            -n) count=${2-} ;;
            --rate) rate=${2-} ;;
            --slow) slow+=("${2-}") ;;
            *) fail "up knows no '$1': see hosts.sh -h" ;;
        esac
        shift $(($# > 1 ? 2 : 1))
    done
    [[ $count =~ ^[1-9][0-9]{0,2}$ && $count -lt $CTL ]] ||
        fail "'$count' is no number of hosts: choose 1 to $((CTL - 1))"
    check_rate "$rate"
    for word in "${slow[@]}"; do
        [[ $word =~ ^host[0-9]+=.+$ ]] || fail "'$word' is not HOST=RATE"
        check_rate "${word#*=}"
    done
    need_namespaces
    have=$(hosts | wc -l)
    if ((have == 0)); then
        down # what an interrupted up or down may have left
        trap down EXIT # an up that fails or is interrupted leaves nothing
        make_hub
        make_host ctl
        for ((i = 1; i <= count; i++)); do make_host "host$i"; done
        introduce "$count"
        trap - EXIT
    fi
    ((have == 0 || have == count)) ||
        fail "$have hosts are up already: run down before asking for $count"
    for ((i = 1; i <= count; i++)); do shape "host$i" "$rate"; done
    for word in "${slow[@]}"; do shape "${word%%=*}" "${word#*=}"; done
}

ours() { # every namespace of this prefix
    local path name
    for path in /run/netns/"$PREFIX"*; do
        name=${path##*/}
        [[ ! ${name#"$PREFIX"} =~ ^(hub|ctl|host[0-9]+)$ ]] || echo "$name"
    done
}

down() {
    local ns look pids
    [[ $(id -u) == 0 ]] || fail "network namespaces need root" $CANNOT
    for ns in $(ours); do
        for ((look = 0; look < 50; look++)); do
            pids=$(ip netns pids "$ns")
            [[ -n $pids ]] || break
            # shellcheck disable=SC2086 # one word per process
            kill -9 $pids 2> /dev/null || true
            sleep 0.02
        done
        ip netns del "$ns"
        rm -rf "/etc/netns/$ns"
    done
    rm -rf "$(machines)"
    rmdir /etc/netns 2> /dev/null || true
}

# --- looking and running

rate_of() { # rate_of HOST
    local shown
    shown=$(tc -n "$(namespace "$1")" qdisc show dev eth0 |
        sed -n 's/^qdisc tbf.* rate \([^ ]*\) .*/\1/p')
    echo "${shown:-none}"
}

bytes_of() { # bytes_of HOST: sent and received by it, as the hub sees them
    ip -n "$(namespace hub)" -s link show "$(port "$1")" |
        awk '/RX:/ { getline; sent = $1 } /TX:/ { getline; print sent, $1 }'
}

status() {
    [[ -n $(hosts) ]] || fail "no hosts are up" 1
    local name pids sent received
    printf '%-8s %-12s %-9s %14s %14s %5s\n' \
        host address rate sent received processes
    for name in $(hosts) ctl; do
        pids=$(ip netns pids "$(namespace "$name")" | wc -l)
        read -r sent received < <(bytes_of "$name")
        printf '%-8s %-12s %-9s %14s %14s %5s\n' "$name" "$NET.$(octet "$name")" \
            "$(rate_of "$name")" "$sent" "$received" "$pids"
    done
}

# A network of its own is not yet another machine: MPI libraries also look at the host's
# name, at System V memory, at /dev/shm and at the kernel's boot id, and would quietly
# talk through shared memory.
run() { # run HOST COMMAND...
    local name
    name=$(host_name "$1")
    shift
    (($#)) || fail "run what on $name?"
    export DSGD_BENCH_HOSTS=$PREFIX
    [[ $name != ctl ]] || teach_mpiexec
    exec ip netns exec "$(namespace "$name")" unshare --uts --ipc -- \
        bash "$SELF" become "$name" "$@"
}

become() { # the rest of run, inside the namespaces
    local name=$1 boot
    shift
    hostname "$name"
    mount -t tmpfs -o mode=1777 "shm-$name" /dev/shm
    boot=$(mktemp /dev/shm/.boot.XXXXXX)
    printf '00000000-0000-4000-8000-%012d\n' "$(octet "$name")" > "$boot"
    mount --bind "$boot" /proc/sys/kernel/random/boot_id
    exec "$@"
}

teach_mpiexec() { # an mpiexec on ctl starts its ranks by the stand-in for ssh
    local list rsh
    list=$(machines)
    rsh=$(dirname "$SELF")/rsh
    export HYDRA_LAUNCHER=ssh HYDRA_LAUNCHER_EXEC=$rsh
    export HYDRA_HOST_FILE=$list/hydra HYDRA_IFACE=eth0
    export I_MPI_HYDRA_BOOTSTRAP=ssh I_MPI_HYDRA_BOOTSTRAP_EXEC=$rsh
    export I_MPI_HYDRA_HOST_FILE=$list/hydra I_MPI_HYDRA_IFACE=eth0
    export PRTE_MCA_plm_ssh_agent=$rsh PRTE_MCA_prte_default_hostfile=$list/prte
}

rsh() { # rsh [OPTIONS OF SSH] HOST COMMAND...
    while (($#)); do
        case $1 in
            -[oplFi]) shift 2 ;;
            -*) shift ;;
            *) break ;;
        esac
    done
    local name=$1
    shift
    run "$name" /bin/sh -c "$*"
}

main() {
    if [[ ${1-} == --prefix ]]; then
        [[ ${2-} =~ ^[a-z0-9-]{1,20}$ ]] || fail "a prefix has a-z, 0-9 and - only"
        PREFIX=$2
        shift 2
    fi
    local command=${1-}
    shift || true
    case $command in
        -h | --help) usage ;;
        up | down | status) "$command" "$@" ;;
        shape) (($# == 2)) || fail "shape HOST RATE"; shape "$@" ;;
        run | rsh | become)
            (($# > 1)) || fail "$command HOST COMMAND..."
            "$command" "$@"
            ;;
        *) usage >&2; exit 2 ;;
    esac
}

main "$@"
