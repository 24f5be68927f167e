# shellcheck shell=bash
# Kubernetes, compiled from Debian's source package with Debian's Go. To be sourced.

compile_kubernetes() {
    local work=$cache/work.compile
    # What was compiled before an interruption is found again in Go's cache.
    fetch_source "$work"
    (
        go_settings "$work"
        cd "$work/path/src/k8s.io/kubernetes"
        mkdir -p cmd/multicall "$work/pause" "$work/out" "$GOTMPDIR"
        cp "$here/multicall.go" cmd/multicall/main.go
        cp "$here/pause.go" "$work/pause/main.go"
        say 'compiling Kubernetes: some minutes'
        go build -ldflags '-s -w' -o "$work/out/pause" "$work/pause/main.go"
        generate_openapi "$work"
        go build -tags 'providerless dockerless' -ldflags "-s -w $(version_settings)" \
            -o "$work/out/multicall" ./cmd/multicall
    )
    mkdir -p "$bin"
    mv "$work"/out/* "$bin"
    local name
    for name in kube-apiserver kube-controller-manager kube-scheduler kubelet; do
        ln -sf multicall "$bin/$name"
    done
    # Source and Go's cache are more than ten times as large as what came of them.
    rm -rf "$work"
}

# fetch_source DIRECTORY
fetch_source() {
    [ ! -e "$1/fetched" ] || return 0
    rm -rf "$1"
    private_apt_for "$1" bookworm main 'deb deb-src'
    mkdir -p "$1"/{packages,source,tree,path/src/k8s.io/kubernetes}
    say "downloading Kubernetes' source and Go"
    (
        cd "$1/packages" &&
            apt_in "$1" apt-get -q download golang-1.19-go golang-1.19-src \
                golang-github-modern-go-reflect2-dev &&
            apt_in "$1" apt-get -q source --download-only kubernetes
    ) || die "apt-get download failed: check the network; see $logs"
    local package
    for package in "$1"/packages/*.deb; do dpkg -x "$package" "$1/tree"; done
    tar -xzf "$1"/packages/kubernetes_*.orig.tar.gz --strip-components=1 \
        -C "$1/path/src/k8s.io/kubernetes"
    (cd "$1/path/src/k8s.io/kubernetes" && change_source "$1/tree")
    touch "$1/fetched"
}

# go_settings DIRECTORY
go_settings() {
    export GOROOT=$1/tree/usr/lib/go-1.19
    export PATH=$GOROOT/bin:$PATH
    # Kubernetes 1.20 itself builds in this old mode. All it needs is in its source package.
    export GOPATH=$1/path GO111MODULE=off GOPROXY=off GOSUMDB=off GOFLAGS=''
    export GOCACHE=$1/cache GOTMPDIR=$1/tmp GOENV=off CGO_ENABLED=0
    # A quarter of the time would go into freeing memory, and 2 GB are enough without it.
    local available
    available=$(awk '/^MemAvailable:/ { print $2 }' /proc/meminfo)
    if [ "$available" -gt $((4 << 20)) ]; then export GOGC=off; fi
}

# change_source TREE: in the current directory.
change_source() {
    # The one in the source walks maps in a way that Go has not allowed since 1.18: the API server
    # would crash at the first custom resource.
    rm -r vendor/github.com/modern-go/reflect2
    cp -r "$1/usr/share/gocode/src/github.com/modern-go/reflect2" vendor/github.com/modern-go
    # The kubelet would ask Amazon, Azure and Google for credentials: Amazon's address does not
    # answer here, which costs seconds at every start.
    sed -i '/pkg\/credentialprovider\/\(aws\|azure\|gcp\)"/d' cmd/kubelet/app/plugins.go
    # A pod that was deleted would go away only at the next tick of 10 s, sometimes of a minute.
    sed -i 's/ContainerGCPeriod = time.Minute$/ContainerGCPeriod = 2 * time.Second/' \
        pkg/kubelet/kubelet.go
    sed -i 's/^const syncPeriod = 10 \* time.Second/const syncPeriod = 1 * time.Second/' \
        pkg/kubelet/status/status_manager.go
}

version_settings() {
    local package
    for package in component-base/version client-go/pkg/version; do
        package=k8s.io/kubernetes/vendor/k8s.io/$package
        printf -- '-X %s.gitVersion=v1.20.2 -X %s.gitMajor=1 -X %s.gitMinor=20 ' \
            "$package" "$package" "$package"
        printf -- '-X %s.gitTreeState=archive -X %s.buildDate=2021-01-13T00:00:00Z ' \
            "$package" "$package"
    done
}

# generate_openapi DIRECTORY: write the one generated file that the source package lacks. The
# API server describes its types by it; kubectl and server-side apply need that.
generate_openapi() {
    local out=pkg/generated/openapi/zz_generated.openapi.go trees=(pkg cmd plugin) directory packages
    [ ! -e "$1/openapi" ] || return 0
    go build -o "$1/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
    # Most of these are links. With the slash behind it, grep follows them.
    for directory in vendor/k8s.io/*/; do
        case $directory in */code-generator/ | */sample-*) ;; *) trees+=("$directory") ;; esac
    done
    packages=$(grep -rl --include='*.go' '+k8s:openapi-gen=' "${trees[@]}" |
        grep -v -e zz_generated -e /_examples/ -e /testdata/ |
        sed 's|/[^/]*$||; s|^|k8s.io/kubernetes/|; s|//*|/|g' | sort -u | paste -s -d ,)
    "$1/openapi-gen" --logtostderr -i "$packages" \
        -p k8s.io/kubernetes/pkg/generated/openapi -O zz_generated.openapi \
        -h vendor/k8s.io/code-generator/hack/boilerplate.go.txt -r "$1/openapi-violations"
    [ -s "$out" ] || die "openapi-gen wrote no $out"
    touch "$1/openapi"
}
