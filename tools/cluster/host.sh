# shellcheck shell=bash
# What the cluster changes on the host, and how that is put back. To be sourced.

# The kubelet sets the first six.
SYSCTLS='vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops
    kernel/keys/root_maxkeys kernel/keys/root_maxbytes net/ipv4/ip_forward'

# Directories that Kubernetes, containerd and the network plugins have built in.
COVERED='/run/containerd /run/netns /var/lib/cni /var/lib/kubelet /var/log/containers
    /var/log/pods'

# save_host: note what is there before we change it.
save_host() {
    [ ! -e "$run/saved" ] || return 0
    local name directory
    [ -z "$(pod_cgroups -name cgroup.procs -exec cat {} +)" ] ||
        die "another Kubernetes runs on this machine: set KUBECONFIG to use that one"
    [ ! -e "/run/netns/$network" ] ||
        die "there is a network namespace $network already: end the cluster that it belongs to \
(its SYSLAT_CACHE_DIR may differ), or: ip netns delete $network"

    mkdir -p "$run"
    cat /proc/sys/kernel/random/boot_id >"$run/boot"
    for name in $SYSCTLS; do
        printf '%s %s\n' "$name" "$(cat "/proc/sys/$name")"
    done >"$run/sysctls"
    cat /sys/fs/cgroup/cgroup.subtree_control >"$run/controllers" 2>/dev/null || true
    : >"$run/covered"
    : >"$run/made"
    for directory in $COVERED; do
        printf '%s\n' "$directory" >>"$run/covered"
        missing_directories "$directory" >>"$run/made"
    done
    # "ip netns" makes a mount of this directory, which stays.
    ! mountpoint -q /run/netns || touch "$run/netns-was-mounted"
    touch "$run/saved"
}

# Print the directory and those above it, as far as they are missing, the outermost first.
missing_directories() {
    [ ! -e "$1" ] || return 0
    missing_directories "$(dirname "$1")"
    printf '%s\n' "$1"
}

change_host() {
    local directory
    while read -r directory; do mkdir -p "$directory"; done <"$run/made"
    [ -e "/run/netns/$network" ] || ip netns add "$network"
}

# restore_host: put back all that was changed, once no process of the cluster is left.
restore_host() {
    [ -e "$run/saved" ] || return 0
    # After a restart of the machine nothing of it is there any more.
    [ "$(cat "$run/boot")" = "$(cat /proc/sys/kernel/random/boot_id)" ] || return 0
    local name value directory
    remove_cgroups
    while read -r name value; do
        printf '%s\n' "$value" >"/proc/sys/$name" || say "warning: $name stays changed"
    done <"$run/sysctls"
    [ ! -e "/run/netns/$network" ] || ip netns delete "$network"
    [ -e "$run/netns-was-mounted" ] || ! mountpoint -q /run/netns ||
        [ -n "$(ls -A /run/netns)" ] || umount /run/netns
    # From the innermost on; what somebody else has begun to use stays.
    tac "$run/made" | while read -r directory; do
        [ ! -d "$directory" ] || rmdir --ignore-fail-on-non-empty "$directory"
    done
}

# pod_cgroups [CONDITION...]: Kubernetes' and containerd's cgroups stand at the top of each
# hierarchy. Print these, or what the conditions say of the files in them.
pod_cgroups() {
    local directory
    for directory in /sys/fs/cgroup/{,*/}{kubepods,k8s.io}; do
        [ ! -d "$directory" ] || find "$directory" -depth "$@"
    done
}

remove_cgroups() {
    local deadline=$((SECONDS + 10)) name
    # The kernel needs a moment to let go of processes that ended.
    while [ -n "$(pod_cgroups -type d)" ]; do
        pod_cgroups -type d -exec rmdir {} \; 2>/dev/null || true
        [ "$SECONDS" -lt "$deadline" ] ||
            die "cannot remove $(pod_cgroups -type d | paste -s -d ' ')"
    done
    # On pure version 2, runc may have enabled controllers at the top.
    [ -s "$run/controllers" ] || return 0
    for name in $(cat /sys/fs/cgroup/cgroup.subtree_control); do
        grep -qw "$name" "$run/controllers" ||
            echo "-$name" >/sys/fs/cgroup/cgroup.subtree_control 2>/dev/null || true
    done
}
