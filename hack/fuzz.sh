#!/usr/bin/env bash
# fuzz.sh SECONDS: every fuzz target in turn, for so long each. Needs a nightly toolchain and cargo-fuzz.
set -eu
cd "$(dirname "$0")/../fuzz"
command -v cargo-fuzz >/dev/null || { echo "missing: cargo-fuzz; cargo install --locked cargo-fuzz" >&2; exit 1; }
for target in $(cargo +nightly fuzz list); do
    echo "==> $target"
    # What it finds goes into the first directory; the second holds the seeds that are committed.
    mkdir -p "corpus-work/$target"
    cargo +nightly fuzz run "$target" "corpus-work/$target" "corpus/$target" -- -max_total_time="${1:-600}"
done
