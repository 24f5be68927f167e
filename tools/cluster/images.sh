# shellcheck shell=bash
# The pods' images, made without a registry or a Docker engine. To be sourced.

suite=trixie
work_images=$cache/work.images

# A small Debian, in a directory: what Docker's debian:trixie-slim is, more or less.
make_root() {
    local root=$work_images/root
    say "making a root file system of Debian $suite"
    rm -rf "$work_images"
    mkdir -p "$work_images/tmp"
    private_apt_for "$work_images" "$suite" 'main non-free'
    grep -E '^Acquire::' "$work_images/apt.conf" >"$work_images/acquire.conf"
    # Its mounts and processes end with namespaces of its own. It looks for a helper in PATH.
    TMPDIR=$work_images/tmp PATH=$tree/usr/bin:$PATH unshare --mount --pid --fork --mount-proc --kill-child \
        mmdebstrap --quiet --mode=root --variant=minbase \
        --aptopt="$work_images/acquire.conf" \
        --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-include=/usr/share/doc/*/copyright' \
        --dpkgopt='path-exclude=/usr/share/info/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        --dpkgopt='path-exclude=/usr/share/man/*' \
        "$suite" "$root" "$work_images/sources.d/own.sources"
    # These are our own settings, not the image's.
    rm -f "$root"/etc/apt/apt.conf.d/99mmdebstrap "$root"/etc/apt/sources.list.d/* \
        "$root"/etc/hostname "$root"/etc/resolv.conf
    # Docker's image has this form, which install-tools.sh must cope with. There is no signature.
    cat >"$root/etc/apt/sources.list.d/debian.sources" <<END
Types: deb
URIs: http://$node_address:$repository_port/debian
Suites: $suite
Components: main
Trusted: yes
END
}

# A part of Debian's archive, with what manifests/programs/install-tools.sh needs and the root lacks. Pods
# reach no other archive.
make_repository() {
    local new=$work_images/repository libraries
    say 'collecting packages for the pods'
    mkdir -p "$new/debian/pool/partial"
    libraries=$(apt_in "$work_images" apt-cache --important depends lmbench |
        sed -n '/-dev$/d; s/^ *|\{0,1\}Depends: \(lib[^<> ]*\)$/\1/p')
    # shellcheck disable=SC2086  # these are several names
    apt_in "$work_images" apt-get -q -y --download-only --no-install-recommends \
        -o Dir::State::status="$work_images/root/var/lib/dpkg/status" \
        -o Dir::Cache::archives="$new/debian/pool" \
        install auditd bpftrace bpftool python3 mount util-linux $libraries
    (cd "$new/debian/pool" && apt_in "$work_images" apt-get -q download lmbench)
    rm -rf "$new"/debian/pool/{partial,lock}
    python3 "$here/apt_index.py" "$new/debian" "$suite"
    rm -rf "$repository"
    mv "$new" "$repository"
}

make_plain_image() {
    make_root
    make_repository
    mkdir -p "$images"
    python3 "$here/image_archive.py" "$plain_image" "$work_images/root" "$work_images/plain.tar" \
        '{"Cmd": ["bash"]}'
    mv "$work_images/plain.tar" "$images"
    rm -rf "$work_images"
}

# The plugin's own image, from its Dockerfile. Debian's buildah needs no daemon.
make_bench_image() {
    local work=$cache/work.bench
    say "building the plugin's image"
    rm -rf "$work"
    mkdir -p "$work/tmp"
    # In namespaces of its own: all its mounts and processes end with it.
    TMPDIR=$work/tmp unshare --mount --net --pid --fork --mount-proc --kill-child \
        "$here/build_image.sh" "$work" "$tree" "$repository" "$node_address" "$repository_port" \
        "$images/plain.tar" "$project" "$bench_image"
    mv "$work/bench.tar" "$images"
    rm -rf "$work"
}

make_pause_image() {
    local work=$cache/work.pause
    rm -rf "$work"
    mkdir -p "$work/root" "$images"
    cp "$bin/pause" "$work/root/pause"
    python3 "$here/image_archive.py" "$pause_image" "$work/root" "$work/pause.tar" \
        '{"Entrypoint": ["/pause"], "User": "65535:65535"}'
    mv "$work/pause.tar" "$images"
    rm -rf "$work"
}
