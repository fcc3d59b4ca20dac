#!/usr/bin/env bash
# image-smoke.sh [ARCH ...]: takes the images in dist/images apart and runs what is in them, amd64 and arm64 unless said
# otherwise; another architecture than this machine's under qemu-user-static.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

# expect CODE TEXT PROGRAM ...: runs it and checks how it ends and that it says TEXT.
expect() {
    local code=$1 text=$2 got=0
    shift 2
    # Neither a cluster nor a user's own configuration is to be found.
    env -i HOME=/nonexistent timeout 60 "$@" >"$scratch/said" 2>&1 </dev/null || got=$?
    [ "$got" = "$code" ] || fail "$* ended with $got, not $code: $(cat "$scratch/said")"
    grep -qF -- "$text" "$scratch/said" || fail "$* does not say '$text': $(cat "$scratch/said")"
}

[ $# -gt 0 ] || set -- amd64 arm64
for arch in "$@"; do
    case $arch in
    amd64) machine=x86_64 ;;
    arm64) machine=aarch64 ;;
    *) fail "images are made for amd64 and arm64, not $arch" ;;
    esac
    run=()
    if [ "$(uname -m)" != $machine ]; then
        run=("$(command -v "qemu-$machine-static")") || fail "qemu-$machine-static is missing (Debian: qemu-user-static)"
    fi
    for program in herald-controller herald-speaker; do
        image=$scratch/$program-$arch
        mkdir -p "$image/root"
        tar -xf "dist/images/$program-linux-$arch.tar" -C "$image"
        layer=$(sed -n 's/.*"Layers":\["\([^"]*\)"\].*/\1/p' "$image/manifest.json")
        tar -xzf "$image/$layer" -C "$image/root"
        found=$(cd "$image/root" && find . -type f | sort | tr '\n' ' ')
        licences="./licenses/LICENSE ./licenses/THIRD-PARTY-LICENSES ./licenses/rust-standard-library.html"
        [ "$found" = "./etc/group ./etc/passwd ./$program $licences " ] || fail "$program, $arch, holds $found"
        crates=0
        for crate in $(sed -n 's|.*"purl": "pkg:cargo/\(.*\)@\(.*\)",*|\1=\2|p' "dist/images/$program-linux-$arch.cdx.json"); do
            crate=${crate//%2B/+}
            case $crate in herald-*) continue ;; esac
            grep -q "^${crate%=*} ${crate#*=} (" "$image/root/licenses/THIRD-PARTY-LICENSES" ||
                fail "$program, $arch, is linked with ${crate%=*} and has no text of its licence"
            crates=$((crates + 1))
        done
        [ $crates -gt 100 ] || fail "$program, $arch, lists only $crates crates"
        entry=$image/root/$program
        expect 0 "$program $version (" "${run[@]}" "$entry" --version
        expect 0 "--admin-addr" "${run[@]}" "$entry" --help
        expect 2 "unexpected argument '--no-such-flag'" "${run[@]}" "$entry" --no-such-flag
        # The archive's text shows whether its file has the capability.
        carries=$(gzip -dc "$image/$layer" | grep -ac 'SCHILY.xattr.security.capability' || true)
        case $program in
        herald-controller)
            [ "$carries" = 0 ] || fail "the controller's file has a capability: it would not start without it"
            expect 1 "no way to reach the API server" "${run[@]}" "$entry"
            ;;
        herald-speaker)
            [ "$carries" = 1 ] || fail "the speaker's file lacks its capability"
            expect 2 "--node-name" "${run[@]}" "$entry"
            ;;
        esac
    done
    echo "images for $arch: both programs start, and say what they miss"
done
