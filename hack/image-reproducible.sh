#!/usr/bin/env bash
# image-reproducible.sh [ARCH]: builds the images of the commit twice, in directories of different names and lengths, each
# with its own copy of the crates, and fails where one byte differs. What is not committed is not built.
set -euo pipefail
cd "$(dirname "$0")/.."
arch=${1:-amd64}
home=${CARGO_HOME:-$HOME/.cargo}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
for place in one another/and/longer; do
    git clone --quiet . "$scratch/$place"
    # Hard links where they can be made.
    mkdir -p "$scratch/$place-crates"
    [ ! -d "$home/registry" ] || cp -al "$home/registry" "$scratch/$place-crates/" 2>/dev/null ||
        cp -a "$home/registry" "$scratch/$place-crates/"
    (
        export CARGO_HOME=$scratch/$place-crates CARGO_TARGET_DIR=$scratch/$place-target
        cd "$scratch/$place" && make --no-print-directory image ARCH="$arch"
    )
    (cd "$scratch/$place/dist/images" && sha256sum -- *) >"$scratch/sums-${place%%/*}"
done
cat "$scratch/sums-one"
diff "$scratch/sums-one" "$scratch/sums-another" || {
    echo "FAILED: two builds of one commit differ" >&2
    exit 1
}
echo "two builds, the same bytes"
