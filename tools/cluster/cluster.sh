#!/bin/bash
# A Kubernetes of one node on this machine, from Debian's packages alone.
#
#   cluster.sh up             build what is not built yet, start it, wait until it is ready
#   cluster.sh down           end it and put back all that it changed on this machine
#   cluster.sh status         say what runs; exit 0 when all is well, 1 otherwise
#   cluster.sh build          build only
#   cluster.sh kubeconfig     print the path of the file that KUBECONFIG must name
#   cluster.sh reset          down, and delete all that was built, too
#   cluster.sh start PART     start one part of a cluster that is up, stop it, or both: to act
#   cluster.sh stop PART      out an API server or a node that goes away. The parts are:
#   cluster.sh restart PART   repository, etcd, containerd, apiserver, controller-manager,
#                             scheduler, kubelet and relay
#   cluster.sh enter COMMAND  run it in the cluster's namespaces: "ctr images list", "ip address"
#
# Environment:
#   SYSLAT_CACHE_DIR      where all is kept, below cluster/
#                         (default: ${XDG_CACHE_HOME:-$HOME/.cache}/pytest-syslat)
#   SYSLAT_CLUSTER_PORT   port on 127.0.0.1 that leads to the API server (default: 16443)
#   SYSLAT_CLUSTER_NICE   when set, compile with this priority, such as 19
#
# docs/cluster.md says how it is put together and how to look into it.

# Some functions are called by a variable or a trap only, which shellcheck does not see.
# shellcheck disable=SC2317 source-path=SCRIPTDIR
set -euo pipefail

tools=$(dirname "$(readlink -f "$0")")
. "$tools/common.sh"
. "$tools/packages.sh"
. "$tools/compile.sh"
. "$tools/images.sh"
. "$tools/standins.sh"
. "$tools/certificates.sh"
. "$tools/settings.sh"
. "$tools/host.sh"
. "$tools/parts.sh"

# --- Building -----------------------------------------------------------------------------------

check_machine() {
    [ "$(id -u)" = 0 ] || die "not root: run it as root; $INSTEAD"
    command -v apt-get >/dev/null || die "no apt-get here: only Debian is known; $INSTEAD"
    # shellcheck source=/dev/null
    [ "$(. /etc/os-release && echo "${ID:-}")" = debian ] ||
        die "only Debian has all the packages; $INSTEAD"
    require openssl openssl
    require ip iproute2
    require perl perl
    require python3 python3
    require nsenter util-linux
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        die 'python3 is older than 3.11: put a newer one in PATH'
}

# in_background JOB FUNCTION: in a process group of its own, so that it can be ended as a whole.
in_background() {
    set -m
    "$2" >"$logs/$1.log" 2>&1 &
    jobs_begun[$!]=$1
    set +m
}

end_jobs() {
    local pid
    for pid in "${!jobs_begun[@]}"; do kill -KILL -- "-$pid" 2>/dev/null || true; done
}

# Wait for all of them, but no longer than until the first one fails.
finish_jobs() {
    local pid status log
    while [ ${#jobs_begun[@]} -gt 0 ]; do
        status=0
        wait -n -p pid "${!jobs_begun[@]}" || status=$?
        log=$logs/${jobs_begun[$pid]}.log
        if [ "$status" != 0 ]; then
            tail -n 5 "$log" >&2
            die "could not make the ${jobs_begun[$pid]}: all messages are in $log"
        fi
        unset "jobs_begun[$pid]"
    done
}

make_programs() {
    [ -z "${SYSLAT_CLUSTER_NICE:-}" ] || renice -n "$SYSLAT_CLUSTER_NICE" -p "$BASHPID"
    once programs compile_kubernetes "$here"/{compile.sh,multicall.go,pause.go}
}

make_the_images() {
    once tree unpack_programs "$here/packages.sh"
    once plain make_plain_image "$here"/{images.sh,apt_index.py,image_archive.py}
    once bench make_bench_image "$here/build_image.sh" "$built/plain" \
        "$project"/{images/Dockerfile,manifests/programs/install-tools.sh}
    once standins make_standin_images "$here"/{standins.sh,derived_images.py} "$built/bench" \
        "$standins"/{standin,images.json} "$standins"/programs/*.py
}

build() {
    jobs_begun=()
    mkdir -p "$logs"
    trap end_jobs EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    in_background programs make_programs
    in_background images make_the_images
    finish_jobs
    trap - EXIT HUP INT TERM
    once pause make_pause_image "$bin/pause" "$here/image_archive.py"
}

# --- Starting -----------------------------------------------------------------------------------

kubectl() {
    "$bin/kubectl" --kubeconfig "$kubeconfig" --cache-dir "$run/kubectl" --request-timeout 10s "$@"
}

api_answers() { kubectl get --raw /readyz; }

# A node that is ready still has a taint for a moment, with which no pod gets a place on it.
node_ready() {
    [ "$(kubectl get node "$node" -o \
        'jsonpath={.status.conditions[?(@.type=="Ready")].status}{.spec.taints}')" = True ]
}

accounts_ready() {
    [ -n "$(kubectl -n default get serviceaccount default -o 'jsonpath={.secrets[0].name}')" ]
}

is_up() {
    local part
    for part in $PARTS; do running "$part" || return 1; done
    api_answers >/dev/null 2>&1 && node_ready 2>/dev/null
}

import_images() {
    local archive
    for archive in "$images"/*.tar; do
        [ ! -e "$run/imported/${archive##*/}" ] || continue
        enter ctr images import "$archive" >>"$run/logs/import.log" 2>&1 ||
            die "cannot import ${archive##*/}: see $run/logs/import.log"
        mkdir -p "$run/imported"
        touch "$run/imported/${archive##*/}"
    done
}

containerd_answers() { enter ctr version; }

start_all() {
    local part importing
    save_host
    change_host
    make_certificates
    write_settings
    for part in keeper repository etcd apiserver containerd; do start "$part"; done
    client_configuration admin "$relay_port" >"$kubeconfig"
    chmod 600 "$kubeconfig"
    wait_for 30 containerd containerd_answers
    # This takes as long as all the rest.
    import_images &
    importing=$!
    start relay
    wait_for 90 apiserver api_answers
    for part in controller-manager scheduler kubelet; do start "$part"; done
    wait_for 90 kubelet node_ready
    wait_for 60 controller-manager accounts_ready
    wait "$importing"
}

tell() {
    kubectl get nodes
    printf 'export KUBECONFIG=%s\n' "$kubeconfig"
}

up() {
    if is_up; then
        say 'up already'
    else
        # Without its keeper, what is left of a cluster cannot be joined any more. After a
        # restart of the machine, nothing but files is left.
        running keeper || end_cluster
        build
        say 'starting'
        start_all
    fi
    tell
}

# --- Ending -------------------------------------------------------------------------------------

end_cluster() {
    [ -e "$run" ] || return 0
    kill_all
    restore_host
    rm -rf --one-file-system "$run" "$kubeconfig"
}

down() {
    if [ -e "$run" ]; then
        end_cluster
        say 'down'
    else
        say 'down already'
    fi
}

reset() {
    down
    rm -rf --one-file-system "$cache"
}

# --- Looking ------------------------------------------------------------------------------------

status() {
    local part status=0
    for part in $PARTS; do
        if running "$part"; then
            printf 'runs     %-19s %s\n' "$part" "$(pid_of "$part")"
        else
            printf 'missing  %s\n' "$part"
            status=1
        fi
    done
    if node_ready 2>/dev/null; then
        printf 'ready    %s\n' "$node"
    else
        printf 'missing  node %s does not answer or is not ready\n' "$node"
        status=1
    fi
    return "$status"
}

enter() {
    CONTAINERD_ADDRESS=$run/containerd.sock CONTAINERD_NAMESPACE=k8s.io \
        PATH=$bin:$tree/usr/bin:$tree/usr/sbin:$PATH inside "$@"
}

# --- What to do ---------------------------------------------------------------------------------

# Two at once would build and start the same things. Parts of the cluster do not get the lock.
lock() {
    mkdir -p "$cache"
    exec 9>"$cache/lock"
    flock --nonblock 9 || { say 'waiting for another cluster.sh' && flock 9; }
}

usage() { sed -n '2,/^$/s/^#\( \|$\)//p' "$0"; }

part() {
    # The others cannot do without the keeper.
    local parts=${PARTS#keeper }
    case " $parts " in *" ${1:-} "*) ;; *) die "no such part '${1:-}'; the parts are: $parts" ;; esac
    running keeper || die 'the cluster is not up: make cluster'
}

prepare() {
    check_machine
    lock
}

main() {
    case ${1:-} in
        up)
            prepare
            up
            ;;
        build)
            prepare
            build
            ;;
        down)
            prepare
            down
            ;;
        reset)
            prepare
            reset
            ;;
        status) status ;;
        start | stop | restart)
            part "${2:-}"
            lock
            [ "$1" = start ] || end "$2"
            [ "$1" = stop ] || start "$2"
            ;;
        enter)
            running keeper || die 'the cluster is not up: make cluster'
            shift
            enter "$@"
            ;;
        kubeconfig) printf '%s\n' "$kubeconfig" ;;
        -h | --help | '') usage ;;
        *)
            usage
            die "unknown command $1"
            ;;
    esac
}

# On one line: bash reads a script as it goes along, and somebody may change this one meanwhile.
main "$@"; exit
