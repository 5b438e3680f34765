#!/usr/bin/env bash
# Backbones to start training from. See --help.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/fetch.sh

default_cfg=sniper_res101_e2e

usage() {
  cat <<'EOF'
Usage: bash scripts/download_pretrained_models.sh [NETWORK ...] [options] [--set KEY VALUE ...]

NETWORK, one or more of (default: mobilenetv2 resnet50 resnet101):
  mobilenetv2   MobileNetV2 1.0 trained on Open Images V4, from the npm package
                @mediapipe/objectron 0.4.1675468480 (Apache-2.0, 33 MB). Size and SHA-256 are
                checked. Result: data/pretrained_model/mobilenetv2-0000.params
  resnet50      ResNet-50 and ResNet-101 (v2) trained on ImageNet, from the model zoo of MXNet.
  resnet101     MXNet itself knows the address and a SHA-1, which is checked; no SHA-256 of these
                files is known here, nor whether the address still answers (MXNET_GLUON_REPO names a
                mirror). Result: data/pretrained_model/resnet50_gluon-0000.params, ...
  recipe        the recipe's own backbone out of the 2018 release (pretrained_model.tar.gz with
                resnet_mx_101_open, resnet_mx_50_imgnet, mobilenetv2). Its address is that of
                August 2021 and was not tried here; no SHA-256 of it is known. Names and shapes are
                compared with the recipe's network. Result: <network.pretrained>-0000.params

Options, for one NETWORK:
EOF
  flags_help
  cat <<'EOF'

Who has a file of the 2018 release:
  bash scripts/download_pretrained_models.sh recipe --file PATH --cfg sniper_res101_e2e
Fetched files stay in data/downloads (SNIPER_DOWNLOADS names another folder).
EOF
}

OBJECTRON=@mediapipe/objectron@0.4.1675468480
OBJECTRON_SIZE=32667233
OBJECTRON_SHA256=fc3e37b326b05e8f596099c90b3e0931b05a56cd3160b9ac450b621794bac94c

parse_flags "$@"
networks=(${rest[@]+"${rest[@]}"})
[ ${#networks[@]} -gt 0 ] || networks=(mobilenetv2 resnet50 resnet101)
if [ ${#networks[@]} -gt 1 ] && [ -n "$file$url$sha256$size" ]; then
  usage_error "--file, --url, --sha256 and --size are for one NETWORK: name it"
fi
if [ ${#member[@]} -gt 0 ] && [ "${networks[*]}" != recipe ]; then
  usage_error "--member is for the NETWORK recipe"
fi

get_mobilenetv2() {
  if [ -n "$file$url" ]; then
    local_or_url mediapipe-objectron.tgz || return
  else
    got=$DOWNLOADS/mediapipe-objectron-0.4.1675468480.tgz
    fetch_npm "$OBJECTRON" "$got" "$OBJECTRON_SIZE" "$OBJECTRON_SHA256" || return
  fi
  sniper_tool import-weights mobilenetv2 "$got" ${overwrite[@]+"${overwrite[@]}"}
}

get_resnet() {
  local zoo=()
  if [ -n "$file$url" ]; then
    local_or_url "$(name_of_url "$url")" || return
  else
    local address
    address=$("$(any_python)" -c 'import sniper, sys
from sniper.tools.weights.gluon_resnet import zoo_address
print(zoo_address(sys.argv[1]))' "$1") || return
    got=$DOWNLOADS/$(name_of_url "$address")
    echo "from MXNet's model zoo; its SHA-256 is not known here, its SHA-1 is checked"
    fetch "$address" "$got" '' '' || return
    zoo=(--zoo)
  fi
  local status=0
  sniper_tool import-weights "$1" "$got" ${zoo[@]+"${zoo[@]}"} --check || status=$?
  # A wrong file of the zoo would otherwise be "already there" for ever.
  if [ $status -eq $EXIT_CONTENT ] && [ ${#zoo[@]} -gt 0 ]; then set_aside "$got"; fi
  [ $status -eq 0 ] || return $status
  sniper_tool import-weights "$1" "$got" ${overwrite[@]+"${overwrite[@]}"}
}

get_recipe() {
  local_or_release pretrained_model.tar.gz \
    "take another start: mobilenetv2, resnet50, resnet101 (see --help)" || return
  sniper_tool place-weights "$got" --backbone ${member[@]+"${member[@]}"} ${overwrite[@]+"${overwrite[@]}"} --cfg "$cfg" --set ${own[@]+"${own[@]}"}
}

result=0
for network in "${networks[@]}"; do
  status=0
  echo "== $network"
  case $network in
    mobilenetv2) get_mobilenetv2 || status=$? ;;
    resnet50|resnet101) get_resnet "$network" || status=$? ;;
    recipe) get_recipe || status=$? ;;
    *) usage_error "unknown network '$network': mobilenetv2, resnet50, resnet101 or recipe" ;;
  esac
  [ $status -eq 0 ] || { result=$status; echo "== $network: NOT there (status $status)" >&2; }
done
exit $result
