# shellcheck shell=bash
# Debian packages, downloaded and unpacked below the cache. Nothing is installed. To be sourced.
#
# Only bookworm has all that is needed: the source of a whole Kubernetes, and a containerd that
# still speaks the old protocol of that Kubernetes. The pods' images are trixie.

# debian_source SUITE COMPONENTS TYPES: print the system's own source for another suite.
debian_source() {
    "$project/tools/provision.sh" --sources |
        sed -e "s/^Suites: .*/Suites: $1/" -e "s/^Components: .*/Components: $2/" \
            -e "s/^Types: .*/Types: $3/"
}

# The system's own settings are kept, since a proxy or a certificate may be among them.
system_apt_settings() {
    apt-config dump |
        grep -v -i -E '^(APT::Update|DPkg|Dir::State::lists|Dir::Cache)[: ]' |
        grep -v -i -E '^Dir::Etc::(main|parts|sourcelist|sourceparts) '
}

# private_apt_for DIRECTORY SUITE COMPONENTS [TYPES]: make an apt configuration of our own in
# the directory and fetch its lists. From then on, apt_in DIRECTORY COMMAND... uses it.
private_apt_for() {
    mkdir -p "$1"/{sources.d,lists/partial,cache/archives/partial}
    # The configuration may hold a proxy's password.
    chmod 700 "$1"
    {
        system_apt_settings
        cat <<END
Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "$1/sources.d";
Dir::State::lists "$1/lists/";
Dir::Cache "$1/cache";
Dir::Cache::archives "archives/";
Acquire::Languages "none";
Acquire::Retries "3";
Acquire::http::Timeout "30";
Acquire::https::Timeout "30";
APT::Update::Error-Mode "any";
APT::Sandbox::User "root";
END
    } >"$1/apt.conf"
    debian_source "$2" "$3" "${4:-deb}" >"$1/sources.d/own.sources"
    apt_in "$1" apt-get -q update ||
        die "apt-get update failed for $2: check the network; see $logs; $INSTEAD"
}

apt_in() { APT_CONFIG=$1/apt.conf "${@:2}"; }

# What runs the cluster, what makes the images, and the libraries of that.
PACKAGES='containerd runc etcd-server containernetworking-plugins kubernetes-client
    mmdebstrap
    buildah golang-github-containers-common libassuan0 libdevmapper1.02.1 libgpgme11 libsubid4'

unpack_programs() {
    local work=$cache/work.packages package
    say 'downloading Debian packages'
    rm -rf "$work" "$tree"
    private_apt_for "$work" bookworm main
    mkdir "$work/packages" "$work/tree"
    # shellcheck disable=SC2086  # these are several names
    (cd "$work/packages" && apt_in "$work" apt-get -q download $PACKAGES) ||
        die "apt-get download failed: check the network; see $logs"
    for package in "$work"/packages/*.deb; do dpkg -x "$package" "$work/tree"; done
    mkdir -p "$bin"
    ln -sf "$tree/usr/bin/kubectl" "$bin/kubectl"
    mv "$work/tree" "$tree"
    rm -rf "$work"
}
