# shellcheck shell=bash
# What every part of the cluster's tools needs: where things are, how to speak, and how to do a
# step only once. To be sourced.

# What programs print is read in many places, so it must not be translated.
export LC_ALL=C

cache=${SYSLAT_CACHE_DIR:-${XDG_CACHE_HOME:-${HOME:?}/.cache}/pytest-syslat}
# The work is done in several directories, so a relative name would change its meaning.
case $cache in /*) ;; *) cache=$PWD/$cache ;; esac
cache=$cache/cluster

# These outlive the cluster: they are built once.
tree=$cache/tree             # Debian packages, unpacked
bin=$cache/bin               # Kubernetes' programs
images=$cache/images         # archives of the pods' images
repository=$cache/repository # the packages that a pod of the plain image can install
built=$cache/built           # a file for every step that was finished
logs=$cache/logs             # what building printed

# These last as long as the cluster.
run=$cache/run
kubeconfig=$cache/kubeconfig

# Read by the files that source this one.
# shellcheck disable=SC2034
{
    here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
    project=$(readlink -f "$here/../..")
    node=boar
    network=syslat-cluster
    node_address=10.88.0.1
    pod_addresses=10.88.0.0/24
    service_addresses=10.96.0.0/24
    # The first of these: what every pod is told in KUBERNETES_SERVICE_HOST.
    api_address=10.96.0.1
    api_port=443
    repository_port=8000
    relay_port=${SYSLAT_CLUSTER_PORT:-16443}
    pause_image=docker.io/pytest-syslat/pause:1
    bench_image=docker.io/pytest-syslat/bench:1
    plain_image=docker.io/library/debian:trixie-slim
}

# Messages go to descriptor 3, the caller's stderr, even where a step's output goes to a file.
exec 3>&2
say() { printf 'cluster: %s\n' "$*" >&3; }
die() { say "error: $*"; exit 1; }

INSTEAD='instead, any Kubernetes will do: for example "kind create cluster", then set KUBECONFIG'

# require PROGRAM PACKAGE: fail unless the program is there.
require() {
    command -v "$1" >/dev/null || die "no $1 here: apt-get install $2"
}

# once STEP FUNCTION INPUT...: call the function unless it was finished before with the same
# contents of the input files. The mark is written last, so a step that was interrupted is
# done again.
once() {
    local step=$1 function=$2 inputs
    shift 2
    inputs=$(cat "$@" | sha256sum)
    [ "$(cat "$built/$step" 2>/dev/null)" != "$inputs" ] || return 0
    mkdir -p "$built"
    rm -f "$built/$step"
    "$function"
    printf '%s\n' "$inputs" >"$built/$step"
}
