#!/usr/bin/env bash
# Installs what building, testing and the demo need on a Debian-like machine; --check only says what is missing.
set -eu

check_only=
[ "${1:-}" = --check ] && check_only=1

# program:package
needed=(
    ip:iproute2
    nft:nftables
    iptables:iptables
    conntrack:conntrack
    arping:arping
    setpriv:util-linux
    keepalived:keepalived
    cc:gcc
)

missing=()
for entry in "${needed[@]}"; do
    # /usr/sbin is not in everybody's PATH.
    PATH="$PATH:/usr/sbin:/sbin" command -v "${entry%%:*}" >/dev/null || missing+=("${entry##*:}")
done

if [ ${#missing[@]} -gt 0 ]; then
    if [ -z "$check_only" ] && command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
        apt-get update -q
        DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}"
    else
        echo "missing packages: ${missing[*]}" >&2
        echo "as root on Debian or Ubuntu: make deps; elsewhere install what provides these programs" >&2
        exit 1
    fi
fi

if ! command -v cargo >/dev/null; then
    echo "Rust is missing: install rustup (https://rustup.rs); rust-toolchain.toml then names the version" >&2
    exit 1
fi
if ! command -v go >/dev/null && [ -z "${HERALD_KUBERNETES_BIN:-}${KUBEBUILDER_ASSETS:-}" ]; then
    echo "Go 1.26 or newer is missing (https://go.dev/dl): the lab builds its Kubernetes with it; or set" >&2
    echo "HERALD_KUBERNETES_BIN to a directory with etcd, kube-apiserver, kube-controller-manager, kube-proxy, kubectl" >&2
    exit 1
fi

if [ -z "$check_only" ] && ! command -v cargo-deny >/dev/null; then
    cargo install --locked cargo-deny
fi
