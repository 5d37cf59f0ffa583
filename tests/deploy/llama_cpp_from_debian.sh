#!/bin/sh
# Fetches llama.cpp's own programs, as Debian testing has them, into an environment's bin/; nothing is installed:
#
#     sh tests/deploy/llama_cpp_from_debian.sh .venv-engines
#
# They bring the C library that they were built for. Fails where there is no apt that knows a mirror of Debian.
set -eu

TOOLS="llama-perplexity llama-quantize llama-imatrix llama-bench"
PACKAGES="llama.cpp-tools llama.cpp-tools-extra libllama0 libggml0
    libc6 libgcc-s1 libstdc++6 libgomp1 libssl3t64 libzstd1 zlib1g"
KEYS=/usr/share/keyrings/debian-archive-keyring.gpg

home=$(cd "$1" && pwd)
root=$home/llama.cpp
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' | head -n 1)
test -n "$mirror" || { echo "apt knows no mirror of Debian; nothing was fetched" >&2; exit 1; }
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/packages"
echo "deb [signed-by=$KEYS] $mirror testing main" >"$work/testing.list"
cat >"$work/apt.conf" <<END
Dir::Etc::sourcelist "$work/testing.list";
Dir::Etc::sourceparts "-";
Dir::State::lists "$work/lists";
Dir::Cache "$work/cache";
APT::Sandbox::User "root";
END
export APT_CONFIG="$work/apt.conf"
apt-get -qq update
# /testing: else what is installed here would do for a package of that name
(cd "$work/packages" && apt-get -qq download $(for name in $PACKAGES; do echo "$name/testing"; done))

rm -rf "$root"
for package in "$work"/packages/*.deb; do dpkg -x "$package" "$root"; done
lib=$(dirname "$(ls "$root"/usr/lib/*/libllama.so.? | head -n 1)")
loader=$(ls "$lib"/ld-linux-*.so.? | head -n 1)
# ggml looks for the code of each processor beside the program, which is the loader here
ln -sf "$lib"/ggml/backends*/*.so "$lib/"
for tool in $TOOLS; do
    test -x "$root/usr/bin/$tool"
    printf '#!/bin/sh\nexec "%s" --library-path "%s" "%s" "$@"\n' \
        "$loader" "$lib:$lib/llama" "$root/usr/bin/$tool" >"$home/bin/$tool"
    chmod +x "$home/bin/$tool"
done
