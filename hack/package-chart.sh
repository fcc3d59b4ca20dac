#!/usr/bin/env bash
# package-chart.sh VERSION REGISTRY DIRECTORY: packages the chart of a release, which pulls the images from where the release
# pushes them: REGISTRY is host and path, such as registry.example.org/heraldlb. HELM names another helm.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$1 registry=${2%/} directory=$3
helm=${HELM:-helm}
[[ $registry == */* && $registry != *://* ]] || {
    echo "REGISTRY is '$registry': host and path are needed, such as registry.example.org/heraldlb" >&2
    exit 1
}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cp -a charts/herald "$scratch/"
sed -i -e "s|^  registry: \"\"\$|  registry: ${registry%%/*}|" \
    -e "s|^    repository: heraldlb/\(herald-[a-z]*\)\$|    repository: ${registry#*/}/\1|" "$scratch/herald/values.yaml"
"$helm" package "$scratch/herald" --version "$version" --app-version "$version" --destination "$directory"
# Asked of the package itself, so that it can't come to differ from what is pushed.
pulled=$("$helm" template herald "$directory/herald-$version.tgz" | sed -n 's/^ *image: "\{0,1\}\([^"]*\)"\{0,1\}$/\1/p' | sort -u)
pushed=$(printf '%s\n' "$registry/herald-controller:$version" "$registry/herald-speaker:$version")
[ "$pulled" = "$pushed" ] || {
    printf 'the chart would pull\n%s\nand the release pushes\n%s\n' "$pulled" "$pushed" >&2
    exit 1
}
