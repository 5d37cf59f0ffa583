#!/bin/sh
# Builds llama.cpp's own llama-quantize, llama-imatrix, llama-perplexity and llama-bench into an environment's bin/:
#
#     sh tests/deploy/llama_cpp_tools.sh .venv-deploy
#
# For where llama_cpp_from_debian.sh finds none. The sources of llama-cpp-python hold llama.cpp's. Needs a C++ compiler.
set -eu

VERSION=0.3.36  # of llama-cpp-python, which holds llama.cpp 0.5.0
TOOLS="llama-quantize llama-imatrix llama-perplexity llama-bench"

bin=$(cd "$1/bin" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$bin/python" -m pip download --quiet --disable-pip-version-check --no-deps --no-binary llama-cpp-python \
    --dest "$work" "llama-cpp-python==$VERSION"
tar -xzf "$work"/llama_cpp_python-*.tar.gz -C "$work"
"$bin/cmake" -S "$work"/llama_cpp_python-*/vendor/llama.cpp -B "$work/build" -DCMAKE_BUILD_TYPE=Release \
    -DBUILD_SHARED_LIBS=OFF -DLLAMA_OPENSSL=OFF \
    -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF
"$bin/cmake" --build "$work/build" --parallel "$(getconf _NPROCESSORS_ONLN)" --target $TOOLS
for tool in $TOOLS; do cp "$work/build/bin/$tool" "$bin/"; done
