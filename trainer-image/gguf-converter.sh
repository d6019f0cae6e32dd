#!/bin/sh
# Bring llama.cpp's converter to a directory: sh trainer-image/gguf-converter.sh PYTHON DIRECTORY
# pip refuses an archive whose hash is not the one in gguf-converter.txt.
set -eu
python=$1
directory=$2
here=$(dirname "$0")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m pip download --quiet --no-deps --no-binary llama-cpp-python --require-hashes \
    --requirement "$here/gguf-converter.txt" --dest "$work"
mkdir -p "$directory"
tar --extract --gzip --file "$work"/llama_cpp_python-*.tar.gz --directory "$directory" --strip-components=3 \
    --no-same-owner --wildcards \
    '*/vendor/llama.cpp/LICENSE' '*/vendor/llama.cpp/convert_hf_to_gguf.py' \
    '*/vendor/llama.cpp/convert_lora_to_gguf.py' '*/vendor/llama.cpp/conversion/*' \
    '*/vendor/llama.cpp/gguf-py/gguf/*'
