# shellcheck shell=bash
# The processes that the cluster consists of: how to start, find and end them. To be sourced.
#
# Every process carries a mark in its environment. It is found by that, not by its number alone:
# numbers are used again. Children inherit the mark, so none of them is missed.

mark=SYSLAT_CLUSTER_PART
PARTS='keeper repository etcd containerd apiserver controller-manager scheduler kubelet relay'

# marked PID PART: is the process this part of this cluster?
marked() { grep -qszxF "$mark=$run:$2" "/proc/$1/environ"; }

pid_of() { cat "$run/$1.pid" 2>/dev/null; }

running() {
    local pid
    pid=$(pid_of "$1") && marked "$pid" "$1"
}

# wait_for SECONDS PART COMMAND...: until the command succeeds, as long as the part runs.
wait_for() {
    local deadline=$((SECONDS + $1)) part=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        running "$part" || die "$part ended: see $run/logs/$part.log"
        [ "$SECONDS" -lt "$deadline" ] || die "$part does not get ready: see $run/logs/$part.log"
        sleep 0.2
    done
}

# begin PART COMMAND...: start it in a session of its own, so that it outlives the terminal.
begin() {
    local part=$1
    shift
    mkdir -p "$run/logs" "$run/tmp"
    env "$mark=$run:$part" TMPDIR="$run/tmp" setsid "$@" >>"$run/logs/$part.log" 2>&1 </dev/null 3>&- 9>&- &
    echo $! >"$run/$part.pid"
    # It has its mark once it has begun to be another program than this shell.
    while kill -0 $! 2>/dev/null && ! marked $! "$part"; do sleep 0.01; done
}

# inside COMMAND...: in the cluster's mount and network namespaces.
inside() { nsenter --target "$(pid_of keeper)" --mount --net -- "$@"; }
begin_inside() { begin "$1" nsenter --target "$(pid_of keeper)" --mount --net -- "${@:2}"; }

start_keeper() {
    rm -f "$run/keeper.ready"
    begin keeper unshare --mount --propagation slave \
        nsenter "--net=/run/netns/$network" "$here/keeper.sh" "$run" "$node_address" \
        "$api_address"
    wait_for 10 keeper test -e "$run/keeper.ready"
}

start_repository() {
    begin_inside repository python3 -m http.server --bind "$node_address" \
        --directory "$repository" "$repository_port"
}

start_etcd() {
    local client=http://127.0.0.1:2379
    begin_inside etcd "$tree/usr/bin/etcd" --data-dir "$run/etcd" --unsafe-no-fsync \
        --listen-client-urls "$client" --advertise-client-urls "$client" \
        --listen-peer-urls http://127.0.0.1:2380
}

start_containerd() {
    # It looks for its helpers, and these for runc, in PATH.
    PATH=$tree/usr/bin:$tree/usr/sbin:$PATH begin_inside containerd \
        containerd --config "$settings/containerd.toml"
}

start_apiserver() {
    begin_inside apiserver "$bin/kube-apiserver" \
        --etcd-servers=http://127.0.0.1:2379 \
        --bind-address=0.0.0.0 --secure-port="$api_port" --insecure-port=0 \
        --advertise-address="$node_address" --endpoint-reconciler-type=none \
        --service-cluster-ip-range="$service_addresses" --allow-privileged=true \
        --client-ca-file="$keys/authority.crt" \
        --tls-cert-file="$keys/apiserver.crt" --tls-private-key-file="$keys/apiserver.key" \
        --kubelet-certificate-authority="$keys/authority.crt" \
        --kubelet-client-certificate="$keys/apiserver-client.crt" \
        --kubelet-client-key="$keys/apiserver-client.key" \
        --kubelet-preferred-address-types=InternalIP \
        --service-account-issuer=https://kubernetes.default.svc \
        --service-account-key-file="$keys/accounts.pub" \
        --service-account-signing-key-file="$keys/accounts.key" \
        --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction
}

start_controller-manager() {
    begin_inside controller-manager "$bin/kube-controller-manager" \
        --kubeconfig="$keys/controller-manager.kubeconfig" --leader-elect=false \
        --port=0 --bind-address=127.0.0.1 --use-service-account-credentials=true \
        --service-account-private-key-file="$keys/accounts.key" \
        --root-ca-file="$keys/authority.crt" \
        --cluster-signing-cert-file="$keys/authority.crt" \
        --cluster-signing-key-file="$keys/authority.key"
}

start_scheduler() {
    begin_inside scheduler "$bin/kube-scheduler" --kubeconfig="$keys/scheduler.kubeconfig" \
        --leader-elect=false --port=0 --bind-address=127.0.0.1
}

start_kubelet() {
    begin_inside kubelet "$bin/kubelet" --config="$settings/kubelet.yaml" \
        --kubeconfig="$keys/kubelet.kubeconfig" --hostname-override="$node" \
        --node-ip="$node_address" --container-runtime=remote \
        --container-runtime-endpoint="unix://$run/containerd.sock" \
        --root-dir="$run/kubelet" --cert-dir="$run/kubelet/pki" --v=2
}

# The one part that lives in the host's namespaces.
start_relay() {
    ! bash -c "exec 4<>/dev/tcp/127.0.0.1/$relay_port" 2>/dev/null ||
        die "port $relay_port is taken: set SYSLAT_CLUSTER_PORT to another one"
    begin relay python3 "$here/relay.py" "127.0.0.1:$relay_port" \
        "/run/netns/$network" "127.0.0.1:$api_port"
    wait_for 10 relay bash -c "exec 4<>/dev/tcp/127.0.0.1/$relay_port"
}

# start PART: unless it runs. One that was only held up goes on.
start() {
    if running "$1"; then kill -CONT "$(pid_of "$1")"; else "start_$1"; fi
}

# end PART: ask it to end, and make it end after 5 s.
end() {
    local pid tries
    if running "$1"; then
        pid=$(pid_of "$1")
        kill -TERM "$pid"
        kill -CONT "$pid"
        for ((tries = 0; tries < 50; tries++)); do
            running "$1" || break
            sleep 0.1
        done
        ! running "$1" || kill -KILL "$pid"
    fi
    rm -f "$run/$1.pid"
}

# Print the number of every process that belongs to this cluster, those in pods excepted: they
# have an environment of their own.
marked_processes() {
    grep -lszF "$mark=$run:" /proc/[0-9]*/environ | cut -d / -f 3
}

# Print the number of every process in our pods. A container's cgroup is named after it, and our
# containerd has a directory for each of its containers.
pod_processes() {
    local directory
    for directory in "$run"/containerd-state/io.containerd.runtime.v2.task/k8s.io/*/; do
        [ -d "$directory" ] || continue
        find /sys/fs/cgroup -path "*/$(basename "$directory")/*" -name cgroup.procs \
            -exec cat {} + 2>/dev/null
    done | sort -u
}

# End all at once. All state is thrown away afterwards, so nothing needs to be asked nicely, and
# nothing depends on an API server that answers.
kill_all() {
    local tries pids
    for ((tries = 0; tries < 100; tries++)); do
        # The kubelet must not start again what is ended here, so the marked come first.
        pids="$(marked_processes || true) $(pod_processes || true)"
        [ -n "${pids//[[:space:]]/}" ] || return 0
        # shellcheck disable=SC2086  # these are several numbers
        kill -KILL $pids 2>/dev/null || true
        sleep 0.1
    done
    die "these processes do not end: ${pids//$'\n'/ }"
}
