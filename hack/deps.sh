#!/usr/bin/env bash
# deps.sh [bench] [cluster]: installs what building, tests and demo need on a Debian-like machine, or says exactly what is
# missing. bench adds the benchmarks' rival, cluster what nodes with real kubelets need.
set -eu
PATH="$PATH:/usr/sbin:/sbin"
cd "$(dirname "$0")/.."

rust=1.95
go=1.26

# First what takes a person to change, all of it at once, before anything is downloaded or built.
problems=()
if [ "$(id -u)" != 0 ]; then
    problems+=("This needs root: the lab makes network namespaces. As root, or with sudo, which has to be given your PATH
  so that it finds your Rust and Go:  sudo env \"PATH=\$PATH\" make ...
  (\`make unit\` needs no root.)")
fi
[ "$(uname -s)" = Linux ] || problems+=("This needs Linux: the lab is made of network namespaces.")

at_least() { [ "$(printf '%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; }
if ! command -v cargo >/dev/null; then
    problems+=("Rust is missing: install rustup (https://rustup.rs); rust-toolchain.toml then names the version.")
elif ! version=$(cargo --version 2>&1) || ! at_least "$rust" "$(awk '{print $2}' <<<"$version")"; then
    problems+=("Rust $rust or newer is needed, this is: $version. rustup (https://rustup.rs) installs what rust-toolchain.toml names.")
fi
if ! command -v go >/dev/null; then
    [ -n "${HERALD_KUBERNETES_BIN:-}" ] ||
        problems+=("Go $go or newer is missing (https://go.dev/dl): the lab builds its Kubernetes with it. Or set HERALD_KUBERNETES_BIN
  to a directory with etcd, kube-apiserver, kube-controller-manager, kube-proxy and kubectl.")
elif ! at_least "$go" "$(GOTOOLCHAIN=local go env GOVERSION | sed 's/^go//')" &&
    # From 1.21 on, Go fetches the version that go.mod names.
    ! (cd tests/controlplane && go version) >/dev/null 2>&1; then
    problems+=("Go $go or newer is needed (https://go.dev/dl), this is $(GOTOOLCHAIN=local go version 2>&1).")
fi
if [ ${#problems[@]} -gt 0 ]; then
    printf '%s\n' "${problems[@]}" >&2
    exit 1
fi

# program:package
needed=(ip:iproute2 nft:nftables iptables:iptables conntrack:conntrack setpriv:util-linux git:git)
for extra in "$@"; do
    case $extra in
    bench) needed+=(keepalived:keepalived) ;;
    cluster)
        needed+=(containerd:containerd runc:runc curl:curl)
        [ -x /usr/lib/cni/bridge ] || [ -x /opt/cni/bin/bridge ] || needed+=(bridge-plugin:containernetworking-plugins)
        ;;
    *)
        echo "usage: deps.sh [bench] [cluster]" >&2
        exit 2
        ;;
    esac
done
missing=()
for entry in "${needed[@]}"; do
    command -v "${entry%%:*}" >/dev/null || missing+=("${entry##*:}")
done
# For zig, which compiles the images' C parts. Debian packs pip apart from Python.
if [[ " $* " == *" cluster "* ]]; then
    python3 -m pip --version >/dev/null 2>&1 || missing+=(python3-pip)
fi
# gcc alone only recommends the C library's headers and start files, which linking needs.
command -v cc >/dev/null && [ -e /usr/include/stdlib.h ] || missing+=(build-essential)

if [ ${#missing[@]} -gt 0 ]; then
    if ! command -v apt-get >/dev/null; then
        echo "missing: ${missing[*]} (Debian's package names)" >&2
        exit 1
    fi
    echo "installing ${missing[*]}"
    apt-get update -qq
    # A daemon that a package would start has no business here: the lab runs its own.
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
        printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
        chmod +x /usr/sbin/policy-rc.d
    fi
    DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends "${missing[@]}" >/dev/null
fi
