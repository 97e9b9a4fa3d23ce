# Every server of the native stack.
# shellcheck shell=bash
for parity_server in "${SERVERS[@]}"; do
  # shellcheck disable=SC1090
  source "$scripts/native/$parity_server.sh"
done
unset parity_server

install_server() { "${1}_install"; }
stop_server() { end_server "$1" "$("${1}_stop_signal")"; }
kill_server() { end_server "$1" KILL; }
