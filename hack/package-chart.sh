#!/usr/bin/env bash
# package-chart.sh VERSION REGISTRY IMAGES DIRECTORY: packages the chart of a release, which pulls the images from where the
# release pushes them, by digest: REGISTRY is host and path, such as registry.example.org/heraldlb, and IMAGES the directory
# with the archives that are pushed (dist/images). HELM names another helm.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$1 registry=${2%/} images=$3 directory=$4
helm=${HELM:-helm}
[[ $registry == */* && $registry != *://* ]] || {
    echo "REGISTRY is '$registry': host and path are needed, such as registry.example.org/heraldlb" >&2
    exit 1
}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cp -a charts/herald "$scratch/"
values=$scratch/herald/values.yaml
sed -i "s|^  registry: \"\"\$|  registry: ${registry%%/*}|" "$values"
pushed=
for program in herald-controller herald-speaker; do
    # The one entry of the archive's index is the index of both architectures, which is pushed as it is.
    digest=$(tar -xOf "$images/$program.tar" index.json | grep -o '"digest":"sha256:[0-9a-f]\{64\}"' | cut -d '"' -f 4)
    [[ $digest == sha256:* && $digest != *$'\n'* ]] || {
        echo "$images/$program.tar has not one image in its index: '$digest'" >&2
        exit 1
    }
    sed -i "\|^    repository: heraldlb/$program\$|,/^    digest:/{
        s|heraldlb/|${registry#*/}/|
        s|digest: \"\"\$|digest: $digest|
    }" "$values"
    pushed+=$registry/$program@$digest$'\n'
done
"$helm" package "$scratch/herald" --version "$version" --app-version "$version" --destination "$directory"
# Asked of the package itself, so that it can't come to differ from what is pushed.
pulled=$("$helm" template herald "$directory/herald-$version.tgz" | sed -n 's/^ *image: "\{0,1\}\([^"]*\)"\{0,1\}$/\1/p' | sort -u)
[ "$pulled" = "${pushed%$'\n'}" ] || {
    printf 'the chart would pull\n%s\nand the release pushes\n%s' "$pulled" "$pushed" >&2
    exit 1
}
