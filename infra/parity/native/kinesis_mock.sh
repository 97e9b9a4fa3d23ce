# kinesis-mock (package kinesis-local): every call of the Kinesis API, slow; writes its data down once a second.
# shellcheck shell=bash

kinesis_mock_tool=kinesis-local-$KINESIS_LOCAL_VERSION

kinesis_mock_install_into() { npm_install_into "$1" "kinesis-local@$KINESIS_LOCAL_VERSION"; }

kinesis_mock_install() {
  need_node
  once "$kinesis_mock_tool" kinesis_mock_install_into
}

kinesis_mock_start() {
  local folder package
  folder=$(folder_of kinesis_mock)
  package=$PARITY_TOOLS_DIR/$kinesis_mock_tool/node_modules/kinesis-local
  mkdir -p "$folder/data"
  launch kinesis_mock env KINESIS_MOCK_PLAIN_PORT="$PORT_KINESIS_MOCK" KINESIS_MOCK_TLS_PORT=$((PORT_KINESIS_MOCK + 1)) \
    KINESIS_MOCK_CERT_PATH="$package/server.json" SHARD_LIMIT=500 LOG_LEVEL=ERROR \
    CREATE_STREAM_DURATION=10ms DELETE_STREAM_DURATION=10ms UPDATE_SHARD_COUNT_DURATION=10ms \
    SPLIT_SHARD_DURATION=10ms MERGE_SHARDS_DURATION=10ms \
    SHOULD_PERSIST_DATA=true PERSIST_PATH="$folder/data" PERSIST_INTERVAL=1s \
    node --require "$scripts/native/loopback_only.js" "$package/main.js"
}

kinesis_mock_ready() { http_answers "$PORT_KINESIS_MOCK" /; }

kinesis_mock_stop_signal() { echo TERM; }
