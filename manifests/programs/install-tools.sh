#!/bin/sh
# install-tools.sh [all|tracer|workload|server]
#
# Install what a pod of pytest-syslat needs into a container of Debian or Ubuntu: bpftrace for
# the pod that traces, lmbench for the one that makes the calls, Python for all. The Dockerfile
# runs it while an image is built, and each pod at its start. When all is there, it changes nothing
# and needs neither root nor a network.

set -eu

role=${1:-all}
MEND='or give an image that has the tools with --syslat-image'

die() {
    printf 'install-tools: error: %s\n' "$*" >&2
    exit 1
}

have() { command -v "$1" >/dev/null; }

# Print where lmbench's lat_proc is.
find_lat_proc() {
    for file in /usr/lib/lmbench/bin/*/lat_proc /usr/lib/lmbench/bin/lat_proc; do
        [ ! -x "$file" ] || { printf '%s\n' "$file" && return; }
    done
    command -v lat_proc
}

# Print where this lat_proc looks for the program that it executes: its path is compiled in.
helper_path() { grep -a -o '/[[:graph:]]*/hello' "$1" | head -n 1; }

have_helper() {
    program=$(find_lat_proc) && helper=$(helper_path "$program") && [ -x "${helper:-/nonexistent}" ]
}

# Print the packages that the role still lacks.
missing() {
    have python3 || echo python3
    case $role in all | tracer)
        have bpftrace || echo bpftrace
        have mount || echo mount
        # Of auditd only auditctl is used: in a container nothing starts the daemon.
        have auditctl || echo auditd
        # Ubuntu ties bpftool to the kernel of the host and often has none that fits.
        have bpftool || [ "$distribution" = ubuntu ] || echo bpftool
        ;;
    esac
    case $role in all | workload)
        find_lat_proc >/dev/null || echo lmbench
        have taskset || echo util-linux
        ;;
    esac
}

# lmbench is not in the component that is enabled everywhere.
enable_component() {
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
        [ ! -f "$file" ] || sed -i "/^deb /{/ $1\( \|\$\)/!s/\$/ $1/}" "$file"
    done
    for file in /etc/apt/sources.list.d/*.sources; do
        [ ! -f "$file" ] || sed -i "/^Components:/{/ $1\( \|\$\)/!s/\$/ $1/}" "$file"
    done
}

enable_components() {
    case $distribution in
        debian) enable_component non-free ;;
        ubuntu) enable_component universe && enable_component multiverse ;;
        *) die "unknown distribution '$distribution': use an image of Debian or Ubuntu, $MEND" ;;
    esac
}

apt() {
    DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends \
        -o Acquire::Retries=3 -o APT::Update::Error-Mode=any -o Dpkg::Use-Pty=0 "$@" >&2
}

# lmbench depends on a compiler, to compile it once more. We use its programs as they are, so it
# is only unpacked, and what is installed is the libraries that these need.
install_lmbench() {
    libraries=$(apt-cache --important depends lmbench |
        sed -n '/-dev$/d; s/^ *|\{0,1\}Depends: \(lib[^<> ]*\)$/\1/p')
    work=$(mktemp -d)
    # apt fetches as a user of its own who cannot write here.
    # shellcheck disable=SC2086  # these are several names
    (cd "$work" && apt install $libraries && apt -o APT::Sandbox::User=root download lmbench &&
        dpkg -x lmbench_*.deb /) || die "cannot install lmbench: see the messages above, $MEND"
    rm -rf "$work"
}

install() {
    have apt-get || die "no apt-get here, cannot install $*: use an image of Debian or Ubuntu, $MEND"
    enable_components
    apt update || die "cannot fetch the package lists: let the pod reach the package archive, $MEND"
    ordinary=''
    for package; do
        if [ "$package" = lmbench ]; then install_lmbench; else ordinary="$ordinary $package"; fi
    done
    # shellcheck disable=SC2086  # these are several names
    [ -z "$ordinary" ] || apt install $ordinary ||
        die "cannot install$ordinary: see the messages above, $MEND"
    apt clean
    rm -rf /var/lib/apt/lists/*
}

case $role in
    all | tracer | workload | server) ;;
    *) die "unknown role '$role': all, tracer, workload or server" ;;
esac
# The file is made to be read by a shell.
# shellcheck source=/dev/null
distribution=$(. /etc/os-release 2>/dev/null && printf '%s' "${ID:-}") || distribution=''

packages=$(missing | paste -s -d ' ')
[ -z "$packages" ] || [ "$(id -u)" = 0 ] ||
    die "not root, cannot install $packages: run the container as root, $MEND"
# shellcheck disable=SC2086  # these are several names
[ -z "$packages" ] || install $packages

# lat_proc executes a helper at a path that the package does not put it at.
case $role in all | workload)
    if ! have_helper; then
        helper=$(helper_path "$program") || helper=''
        [ -n "$helper" ] || die "$program names no helper, $MEND"
        mkdir -p "${helper%/*}"
        cp "${program%/*}/hello" "$helper"
        chown root:root "$helper"
        chmod 0755 "$helper"
    fi
    ;;
esac
