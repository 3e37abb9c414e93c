#!/bin/sh
# A restore drill: do these documents and this root key open the data? Changes nothing but a folder that it makes and removes.
#
#   OILSKIN_ROOT_KEY=... restore-drill.sh FOLDER SAMPLE FIELDS
#
# FOLDER holds exported documents, NAME.json each (`oilskin keys export --name NAME --out FOLDER/NAME.json`), SAMPLE records with tokens
# (NDJSON), FIELDS the rules as OILSKIN_FIELDS has them. `oilskin` is in the PATH.
set -eu
[ $# -eq 3 ] || { echo "usage: OILSKIN_ROOT_KEY=... $0 FOLDER SAMPLE FIELDS" >&2; exit 2; }
folder=$1 sample=$2 fields=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export OILSKIN_KEY_STORE="file:$work/keys" OILSKIN_FIELDS="$fields" OILSKIN_UPSTREAM=http://127.0.0.1:9
restored=0
for document in "$folder"/*.json; do
  [ -e "$document" ] || { echo "no documents in $folder" >&2; exit 1; }
  name=$(basename "$document" .json)
  # Takes only what its MAC and the root key prove.
  oilskin keys import --name "$name" "$document" >/dev/null
  restored=$((restored + 1))
done
echo "$restored keysets restored; their keys open under this root key"
# Ends at the first token that does not open.
said=$(oilskin rewrap --format ndjson --dry-run "$sample")
echo "$said"
case $said in
  *"; 0 tokens in all"*) echo "nothing was tried: FIELDS select no token of the sample" >&2; exit 1 ;;
esac
echo "every token of the sample opens"
