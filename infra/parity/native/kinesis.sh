# kinesalite: the Kinesis API on LevelDB; what it acknowledged survives a kill.
# shellcheck shell=bash

kinesis_tool=kinesalite-$KINESALITE_VERSION

npm_install_into() { # FOLDER PACKAGE@VERSION
  npm install --prefix "$1" --no-audit --no-fund --loglevel=error "$2"
}

need_node() {
  if ! command -v node >/dev/null || ! command -v npm >/dev/null; then apt_install nodejs npm; fi
}

kinesis_install_into() { npm_install_into "$1" "kinesalite@$KINESALITE_VERSION"; }

kinesis_install() {
  need_node
  once "$kinesis_tool" kinesis_install_into
}

kinesis_start() {
  local folder
  folder=$(folder_of kinesis)
  launch kinesis node --require "$scripts/native/loopback_only.js" \
    "$PARITY_TOOLS_DIR/$kinesis_tool/node_modules/kinesalite/cli.js" --port "$PORT_KINESIS" --path "$folder/data" \
    --createStreamMs 10 --updateStreamMs 10 --deleteStreamMs 10 --shardLimit 5000
}

kinesis_ready() { http_answers "$PORT_KINESIS" /; }

kinesis_stop_signal() { echo TERM; }
