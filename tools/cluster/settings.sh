# shellcheck shell=bash
# The configuration files of containerd, its network plugin and the kubelet. To be sourced.

settings=$run/settings

write_settings() {
    mkdir -p "$settings/network"
    containerd_settings >"$settings/containerd.toml"
    network_settings >"$settings/network/10-bridge.conflist"
    kubelet_settings >"$settings/kubelet.yaml"
    # There is no name service: a program in a pod that asks for a name is refused at once.
    echo 'nameserver 127.0.0.1' >"$settings/resolv.conf"
}

# Where the cache is an overlay itself, as in a container, another overlay cannot lie upon it.
snapshotter() {
    local probe=$run/probe kind=native
    mkdir -p "$probe"/{lower,upper,work,merged}
    if unshare --mount mount -t overlay overlay -o \
        "lowerdir=$probe/lower,upperdir=$probe/upper,workdir=$probe/work" "$probe/merged" \
        2>/dev/null; then kind=overlayfs; fi
    rm -rf "$probe"
    echo "$kind"
}

# Where the capability to lower an oom_score_adj is missing, as in many a virtual machine for
# tests, containerd must not try to.
containerd_settings() {
    cat <<END
version = 2
root = "$run/containerd"
state = "$run/containerd-state"
oom_score = 0
[grpc]
  address = "$run/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "$run/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "$pause_image"
  restrict_oom_score_adj = true
  # It would load a profile that stays in the kernel.
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "$(snapshotter)"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        BinaryName = "$tree/usr/sbin/runc"
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "$tree/usr/lib/cni"
    conf_dir = "$settings/network"
END
}

# No address translation and no way out: a pod reaches the node and the other pods only.
network_settings() {
    cat <<END
{
  "cniVersion": "0.3.1",
  "name": "pods",
  "plugins": [{
    "type": "bridge",
    "bridge": "pods",
    "isGateway": true,
    "ipMasq": false,
    "hairpinMode": true,
    "ipam": {
      "type": "host-local",
      "ranges": [[{"subnet": "$pod_addresses"}]],
      "routes": [{"dst": "0.0.0.0/0"}],
      "dataDir": "$run/addresses"
    }
  }]
}
END
}

# A full disk or a busy machine is no reason to evict the pods of a test.
kubelet_settings() {
    cat <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $node_address
port: 10250
readOnlyPort: 0
healthzBindAddress: 127.0.0.1
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: $keys/authority.crt}
authorization: {mode: Webhook}
tlsCertFile: $keys/kubelet.crt
tlsPrivateKeyFile: $keys/kubelet.key
cgroupDriver: cgroupfs
cgroupRoot: /
failSwapOn: false
oomScoreAdj: 0
makeIPTablesUtilChains: false
resolvConf: $settings/resolv.conf
clusterDNS: [${service_addresses%.*}.10]
clusterDomain: cluster.local
volumePluginDir: $run/volume-plugins
evictionHard: {memory.available: 100Mi}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
nodeStatusUpdateFrequency: 5s
syncFrequency: 10s
END
}
