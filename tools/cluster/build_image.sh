#!/bin/sh
# build_image.sh WORK TREE REPOSITORY ADDRESS PORT BASE PROJECT NAME
#
# Build PROJECT's Dockerfile upon the image in the archive BASE; leave the result in
# WORK/bench.tar. To be called in fresh mount, network and process namespaces: here, too, packages
# are served on the address that the base image's package source names. No other network is there.

set -eu
work=$1 tree=$2 repository=$3 address=$4 port=$5 base=$6 project=$7 name=$8

ip link set lo up
ip address add "$address/32" dev lo
python3 -m http.server --bind "$address" --directory "$repository" "$port" >/dev/null 2>&1 &

# buildah starts itself once more with an empty environment, so LD_LIBRARY_PATH would not do.
# It gets a cache of the libraries' places that names those that were only unpacked, too.
set -- /usr/lib /usr/lib/*-linux-* /lib /lib/*-linux-*
for directory in /usr/lib/*-linux-* /lib/*-linux-*; do set -- "$@" "$tree$directory"; done
ldconfig -C "$work/libraries" -f /dev/null "$@" 2>/dev/null
mount --bind "$work/libraries" /etc/ld.so.cache

# It keeps a small data base below /var/lib, whatever directories it is given.
case $work in /var/lib/*) ;; *) mount -t tmpfs tmpfs /var/lib ;; esac

buildah() {
    command=$1
    shift
    "$tree/usr/bin/buildah" --storage-driver vfs --root "$work/store" --runroot "$work/run" \
        "$command" --signature-policy "$tree/etc/containers/policy.json" "$@"
}

buildah pull -q "docker-archive:$base"
buildah build --isolation chroot --pull-never --layers=false --tag "$name" \
    --file "$project/images/Dockerfile" "$project"
buildah push -q "$name" "docker-archive:$work/bench.tar:$name"
