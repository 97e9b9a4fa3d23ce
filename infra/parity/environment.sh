# Writes parity.env: everything the profile local_parity, the Scenario Runner and the parity tests read.
# Plain KEY=value lines without quotes, for a shell, for make and for containers alike.
# shellcheck shell=bash

write_environment() {
  local dsn="postgresql://platform:$DATABASE_PASSWORD@127.0.0.1:$PORT_POSTGRES/platform"
  local s3="http://127.0.0.1:$PORT_S3" kinesis="http://127.0.0.1:$PORT_KINESIS"
  cat >"$PARITY_ENV.new" <<LINES
# The parity stack in $PARITY_DIR. Holds passwords: keep it to yourself.
PARITY_DIR=$PARITY_DIR
WELLSPRING_PROFILE=local_parity
PLATFORM_STORE_ROOT=s3://${BUCKETS[0]}
OBJECT_STORE_ENDPOINT=$s3
OBJECT_STORE_REGION=us-east-1
ORACLE_ROOT=s3://${BUCKETS[1]}
ORACLE_ENGINE_RUN_ROOT=s3://${BUCKETS[1]}/local_full_run-5
ORACLE_SCENARIO_ID=baseline_v1
ORACLE_STREAM_VIEW_ROOT=s3://${BUCKETS[1]}/local_full_run-5/stream_view/ts_utc
IG_INGEST_URL=http://127.0.0.1:$PORT_GATE
WELLSPRING_WIRING_GATE_BIND_PORT=$PORT_GATE
IG_ADMISSION_DSN=$dsn
WSP_CHECKPOINT_DSN=$dsn
SR_AUTHORITY_STORE_DSN=$dsn
SR_WIRING=config/platform/sr/wiring_local_parity.yaml
EVENT_BUS_STREAM=auto
EVENT_BUS_REGION=us-east-1
EVENT_BUS_ENDPOINT_URL=$kinesis
CONTROL_BUS_STREAM=sr-control-bus
CONTROL_BUS_REGION=us-east-1
CONTROL_BUS_ENDPOINT_URL=$kinesis
AWS_ACCESS_KEY_ID=$S3_ACCESS_KEY_ID
AWS_SECRET_ACCESS_KEY=$S3_SECRET_ACCESS_KEY
AWS_DEFAULT_REGION=us-east-1
AWS_EC2_METADATA_DISABLED=true
WELLSPRING_TEST_S3_ENDPOINT=$s3
WELLSPRING_TEST_KINESIS_ENDPOINT=$kinesis
WELLSPRING_TEST_KINESIS_MOCK_ENDPOINT=http://127.0.0.1:$PORT_KINESIS_MOCK
WELLSPRING_TEST_POSTGRES_DSN=$dsn
LINES
  mv "$PARITY_ENV.new" "$PARITY_ENV"
}
