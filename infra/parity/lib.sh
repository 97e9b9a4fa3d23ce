# What the scripts beside it share: folders, ports, credentials, processes. Sourced, never run.
#
# Everything of a stack lies in PARITY_DIR: one folder per server (pid, log, data), the first port, the
# credentials and parity.env. Downloaded programs lie in PARITY_TOOLS_DIR and are shared by all stacks.
# shellcheck shell=bash
set -euo pipefail

scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository=$(cd "$scripts/../.." && pwd)
PARITY_DIR=$(readlink -m "${PARITY_DIR:-$repository/runs/parity-stack}")
PARITY_TOOLS_DIR=$(readlink -m "${PARITY_TOOLS_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/wellspring/parity-tools}")
PARITY_START_SECONDS=${PARITY_START_SECONDS:-120}
PARITY_DISK_MB=${PARITY_DISK_MB:-2048}
PARITY_ENV=$PARITY_DIR/parity.env
SERVERS=(s3 kinesis kinesis_mock postgres)
BUCKETS=(fraud-platform oracle-store)

# shellcheck source=versions.env
source "$scripts/versions.env"

say() { printf 'parity: %s\n' "$*" >&2; }

# fail CODE WORDS...: ends the script; the code stands in docs/runbooks/parity.md.
fail() {
  local code=$1
  shift
  printf 'parity: %s: %s\n' "$code" "$*" >&2
  exit 1
}

folder_of() { printf '%s/%s' "$PARITY_DIR" "$1"; }

# One script changes a stack at a time; started servers do not hold the lock. What is made from here on belongs to
# its owner alone; the folder itself can be entered, because PostgreSQL may run as another user.
take_lock() {
  mkdir -p "$PARITY_DIR"
  chmod 711 "$PARITY_DIR"
  umask 077
  exec 9>"$PARITY_DIR/.lock"
  flock -w 300 9 || fail PARITY_BUSY "another script has been changing $PARITY_DIR for five minutes"
}

# Servers with a full disk answer errors that say nothing about it.
need_disk() {
  local free
  mkdir -p "$PARITY_DIR"
  free=$(df --output=avail -B 1M "$PARITY_DIR" | tail -n 1)
  ((free >= PARITY_DISK_MB)) || fail PARITY_DISK_FULL \
    "$PARITY_DIR has ${free// /} MiB free and a stack needs $PARITY_DISK_MB; free some, or set PARITY_DIR"
}

known_server() {
  local server
  for server in "${SERVERS[@]}"; do
    [[ $server == "$1" ]] && return 0
  done
  fail PARITY_SERVER_UNKNOWN "no server is called '$1'; there are: ${SERVERS[*]}"
}

# --- ports: one block of 15, chosen once and remembered --------------------------------------------------------

port_listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

block_is_free() {
  local port
  for port in $(seq "$1" $(($1 + 14))); do
    ! port_listens "$port" || return 1
  done
}

choose_ports() {
  local file=$PARITY_DIR/port_base base attempt
  if [[ ! -s $file ]]; then
    base=${PARITY_PORT_BASE:-}
    if [[ -z $base ]]; then
      for attempt in $(seq 200); do
        base=$((18800 + (RANDOM % 600) * 20)) # below the ports outgoing connections take
        block_is_free "$base" && break
        [[ $attempt != 200 ]] || fail PARITY_PORT_TAKEN "no free block of 15 ports; set PARITY_PORT_BASE"
      done
    fi
    block_is_free "$base" || fail PARITY_PORT_TAKEN "a port of $base-$((base + 14)) is in use; set another PARITY_PORT_BASE"
    echo "$base" >"$file"
  fi
  load_ports
}

load_ports() {
  [[ -s $PARITY_DIR/port_base ]] || fail PARITY_STACK_MISSING "no stack in $PARITY_DIR; infra/parity/up makes one"
  PORT_BASE=$(<"$PARITY_DIR/port_base")
  # SeaweedFS takes +0 to +3 and +11 to +14.
  PORT_S3=$PORT_BASE
  PORT_KINESIS=$((PORT_BASE + 5))
  PORT_KINESIS_MOCK=$((PORT_BASE + 6)) # and the next, for TLS
  PORT_POSTGRES=$((PORT_BASE + 8))
  PORT_GATE=$((PORT_BASE + 9))
}

port_of() {
  local name=PORT_${1^^}
  printf '%s' "${!name}"
}

# --- credentials: generated once, mode 0600, never printed ------------------------------------------------------

random_text() {
  local text=
  while ((${#text} < $1)); do
    text+=$(head -c 128 /dev/urandom | base64 -w0 | tr -dc 'A-Za-z0-9')
  done
  printf '%s' "${text:0:$1}"
}

load_credentials() {
  local file=$PARITY_DIR/credentials
  if [[ ! -s $file ]]; then
    printf 'S3_ACCESS_KEY_ID=WS%s\nS3_SECRET_ACCESS_KEY=%s\nDATABASE_PASSWORD=%s\n' \
      "$(random_text 18)" "$(random_text 40)" "$(random_text 32)" >"$file.new"
    mv "$file.new" "$file"
  fi
  # shellcheck disable=SC1090
  source "$file"
}

# --- processes: ended only when pid and start time are those of the process that was started ---------------------

# Clock ticks after boot at which a living process started; nothing for one that is gone.
started_at() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  stat=${stat##*) }
  read -ra stat <<<"$stat"
  # The first thread of a killed process is a zombie while others still hold its sockets.
  [[ ${stat[0]} != Z ]] || other_threads "$1" || return 1
  printf '%s' "${stat[19]}"
}

other_threads() {
  local threads=("/proc/$1/task/"*)
  ((${#threads[@]} > 1))
}

# The pid of a server of this stack that is alive.
pid_of() {
  local file pid at now
  file=$(folder_of "$1")/pid
  [[ -s $file ]] && read -r pid at <"$file" && now=$(started_at "$pid") && [[ $now == "$at" ]] && printf '%s' "$pid"
}

runs() { pid_of "$1" >/dev/null; }

# launch SERVER COMMAND...: starts it apart from this terminal, its words in the log, and remembers it.
launch() {
  local server=$1 folder
  folder=$(folder_of "$1")
  shift
  setsid "$@" >>"$folder/log" 2>&1 </dev/null 9>&- &
  printf '%s %s\n' "$!" "$(started_at "$!" || echo 0)" >"$folder/pid"
}

# Whether a server on this machine answers HTTP at a port and path; any answer counts without a third word.
http_answers() {
  (
    exec 3<>"/dev/tcp/127.0.0.1/$1" || exit 1
    printf 'GET %s HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n' "$2" >&3
    read -r -t 5 line <&3 && [[ $line == HTTP/1.*"${3:-}"* ]]
  ) 2>/dev/null
}

# start_server SERVER: nothing when it runs; otherwise starts it and waits until it answers.
start_server() {
  local server=$1 folder deadline
  folder=$(folder_of "$server")
  if runs "$server"; then
    "${server}_ready" && say "$server runs already, port $(port_of "$server")" && return 0
  else
    ! port_listens "$(port_of "$server")" || fail PARITY_PORT_TAKEN \
      "$server wants port $(port_of "$server"), which another process has; end that, or give the stack other ports: infra/parity/down, remove $PARITY_DIR/port_base, infra/parity/up"
    mkdir -p "$folder"
    "${server}_start"
  fi
  deadline=$((SECONDS + PARITY_START_SECONDS))
  until "${server}_ready"; do
    runs "$server" || { tail -n 15 "$folder/log" >&2; fail PARITY_SERVER_ENDED "$server ended while starting; its last words are above ($folder/log)"; }
    ((SECONDS < deadline)) || fail PARITY_SERVER_SLOW "$server does not answer after $PARITY_START_SECONDS s; see $folder/log"
    sleep 0.1
  done
  say "$server runs, port $(port_of "$server")"
}

# end_server SERVER SIGNAL: sends it to the process this stack started, if that lives, and waits for the end.
end_server() {
  local server=$1 signal=$2 pid waited children child
  if ! pid=$(pid_of "$server"); then
    rm -f "$(folder_of "$server")/pid"
    return 0
  fi
  children=$(cat "/proc/$pid/task/$pid/children" 2>/dev/null || true)
  kill -s "$signal" "$pid"
  for ((waited = 0; waited < 300; waited++)); do
    runs "$server" || break
    sleep 0.1
  done
  if runs "$server"; then
    say "$server did not end within 30 s and is killed"
    kill -s KILL "$pid"
    while runs "$server"; do sleep 0.05; done
  fi
  # Workers of a killed server hold its data for a moment.
  for child in $children; do
    for ((waited = 0; waited < 100; waited++)); do
      started_at "$child" >/dev/null || break
      sleep 0.05
    done
  done
  rm -f "$(folder_of "$server")/pid"
  say "$server ended"
}

# in_parallel TASK SERVER...: runs the task for all servers at once; fails when one failed.
in_parallel() {
  local jobs=() job failed=0
  local task=$1 server
  shift
  for server in "$@"; do
    "$task" "$server" &
    jobs+=("$!")
  done
  for job in "${jobs[@]}"; do
    wait "$job" || failed=1
  done
  return "$failed"
}

# --- installing ---------------------------------------------------------------------------------------------------

# apt_install PACKAGE...: as root on Debian; elsewhere a sentence that says what to install.
apt_install() {
  if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
    fail PARITY_TOOL_MISSING "please install: $* (as root: apt-get install $*)"
  fi
  say "installing $*"
  (
    flock 8
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@"
  ) 8>"$PARITY_TOOLS_DIR/.apt-lock" >>"$PARITY_TOOLS_DIR/apt.log" 2>&1 || {
    tail -n 15 "$PARITY_TOOLS_DIR/apt.log" >&2
    fail PARITY_INSTALL_FAILED "apt-get could not install $*"
  }
}

# once NAME FUNCTION: installs into a folder of its own; a half done one is done anew.
once() {
  local folder=$PARITY_TOOLS_DIR/$1
  mkdir -p "$PARITY_TOOLS_DIR"
  (
    flock 7
    [[ ! -e $folder/.complete ]] || exit 0
    say "installing $1"
    rm -rf "$folder"
    mkdir -p "$folder"
    "$2" "$folder" >"$folder/install.log" 2>&1 || {
      tail -n 15 "$folder/install.log" >&2
      fail PARITY_INSTALL_FAILED "could not install $1 ($folder/install.log)"
    }
    touch "$folder/.complete"
  ) 7>"$PARITY_TOOLS_DIR/.$1.lock"
}
