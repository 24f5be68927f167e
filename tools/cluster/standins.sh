# shellcheck shell=bash
# Images of programs that stand in for the agents in tests, under the names of the agents' own
# images. To be sourced.

standins=$project/tests/cluster/standins

# Debian's libbpf-tools has real observers, but all in one package of many megabytes.
OBSERVERS='opensnoop execsnoop'

make_standin_images() {
    local work=$cache/work.standins name
    say "making the images of the agents' stand-ins"
    rm -rf "$work"
    mkdir -p "$work"/{packages,unpacked} "$work"/root/{opt/standins/programs,usr/bin}
    private_apt_for "$work" "$suite" main
    (cd "$work/packages" && apt_in "$work" apt-get -q download libbpf-tools) ||
        die "apt-get download failed: check the network; see $logs"
    dpkg -x "$work"/packages/*.deb "$work/unpacked"
    for name in $OBSERVERS; do
        cp "$work/unpacked/usr/sbin/$name-libbpf" "$work/root/usr/bin/$name"
    done

    cp "$standins"/programs/*.py "$work/root/opt/standins/programs"
    install -m 755 "$standins/standin" "$work/root/opt/standins/standin"
    for name in falco hubble-export-stdout tetra tetragon tetragon-operator; do
        ln -s /opt/standins/standin "$work/root/usr/bin/$name"
    done
    for name in kloudknox kloudknox-operator; do
        ln -s /opt/standins/standin "$work/root/$name"
    done
    python3 "$here/derived_images.py" "$images/bench.tar" "$work/root" "$standins/images.json" \
        "$work/standins.tar"
    mv "$work/standins.tar" "$images"
    rm -rf "$work"
}
