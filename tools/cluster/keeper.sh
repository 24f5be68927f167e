#!/bin/sh
# keeper.sh RUN ADDRESS API: the process that holds the cluster's mount and network namespaces open.
#
# Kubernetes and containerd have several directories of the host built in. Here, in a mount
# namespace of our own, each is covered by one below RUN. No mount of the cluster is ever seen by
# the host, and all of them go away with the last process of the cluster.

set -eu
run=$1 address=$2 api=$3

# What the host mounts from now on is seen here, and pods may share mounts among themselves.
mount --make-rshared /

while read -r directory; do
    mkdir -p "$run/host$directory"
    mount --bind "$run/host$directory" "$directory"
done <"$run/covered"

ip link set lo up
ip link show dev pods >/dev/null 2>&1 || ip link add pods type bridge
ip address replace "$address/24" dev pods
# No service has an address that works but this one: agents in pods ask the API server.
ip address replace "$api/32" dev lo
ip link set pods up

touch "$run/keeper.ready"
exec sleep infinity
