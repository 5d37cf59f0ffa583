#!/usr/bin/env bash
# Builds the package twice, which must give the same bytes, and runs wheel and sdist from empty environments.
#
#     tests/package.sh [PYTHON]
set -euo pipefail
python=${1:-python3}
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$root" log -1 --format=%ct)}
"$python" -m venv "$work/build"
"$work/build/bin/pip" install --quiet --require-hashes --only-binary :all: -r "$root/locks/run.txt"
for copy in one two; do
    mkdir "$work/$copy"
    git -C "$root" archive HEAD | tar --extract --touch --directory "$work/$copy"
    (cd "$work/$copy" && "$work/build/bin/hatchling" build --directory "$work/$copy-built" 2>/dev/null)
done
diff --recursive "$work/one-built" "$work/two-built"
echo 'two builds, the same bytes:'
(cd "$work/one-built" && sha256sum ./*)

for package in "$work"/one-built/*; do
    rm -rf "$work/empty" "$work/out"
    "$python" -m venv "$work/empty"
    "$work/empty/bin/pip" install --quiet "$package"
    (cd "$work" && env -i HOME="$work" "$work/empty/bin/gatenorm-stream" "$root/fixtures/sotu-5m" --out out --quiet)
    (cd "$work" && env -i HOME="$work" "$work/empty/bin/gatenorm-stream" verify out)
done
