#!/usr/bin/env bash
# deps.sh [bench]: installs what building, tests and demo (and the benchmarks' rival) need on a Debian-like machine,
# or says exactly what is missing.
set -eu
PATH="$PATH:/usr/sbin:/sbin"

# program:package
needed=(ip:iproute2 nft:nftables iptables:iptables conntrack:conntrack setpriv:util-linux)
[ "${1:-}" = bench ] && needed+=(keepalived:keepalived)

missing=()
for entry in "${needed[@]}"; do
    command -v "${entry%%:*}" >/dev/null || missing+=("${entry##*:}")
done

# gcc alone only recommends the C library's headers and start files, which linking needs.
command -v cc >/dev/null && [ -e /usr/include/stdlib.h ] || missing+=(build-essential)

if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "missing: ${missing[*]} (Debian's package names). As root on Debian or Ubuntu this script installs them." >&2
        exit 1
    fi
    echo "installing ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends "${missing[@]}" >/dev/null
fi

if ! command -v cargo >/dev/null; then
    echo "missing: Rust. Install rustup (https://rustup.rs); rust-toolchain.toml then names the version." >&2
    exit 1
fi
if ! command -v go >/dev/null && [ -z "${HERALD_KUBERNETES_BIN:-}" ]; then
    echo "missing: Go 1.26 or newer (https://go.dev/dl), which the lab builds its Kubernetes with. Or set" >&2
    echo "HERALD_KUBERNETES_BIN to a directory with etcd, kube-apiserver, kube-controller-manager, kube-proxy and kubectl." >&2
    exit 1
fi
