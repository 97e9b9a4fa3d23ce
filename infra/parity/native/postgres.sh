# PostgreSQL: a private cluster on loopback with a password, run by an unprivileged user.
# shellcheck shell=bash

postgres_programs=/usr/lib/postgresql/$POSTGRES_VERSION/bin
postgres_user=postgres # the owner of the cluster when a stack is started by root

postgres_install() {
  [[ -x $postgres_programs/postgres ]] || apt_install "postgresql-$POSTGRES_VERSION"
}

# as_owner COMMAND...: PostgreSQL refuses to run as root.
as_owner() {
  if [[ $(id -u) == 0 ]]; then
    setpriv --reuid="$postgres_user" --regid="$postgres_user" --init-groups env -u HOME -C / "$@"
  else
    "$@"
  fi
}

# Where the cluster lies: in the stack's folder, unless its owner cannot get there (a clone in a closed home).
postgres_cluster() {
  local folder mark=$PARITY_DIR/postgres/cluster_is_at
  folder=$(folder_of postgres)
  if [[ ! -s $mark ]]; then
    mkdir -p "$folder"
    chmod 711 "$folder"
    if as_owner test -x "$folder"; then
      echo "$folder/cluster" >"$mark"
    else
      echo "/var/tmp/wellspring-parity-$(cksum <<<"$folder" | cut -d' ' -f1)/cluster" >"$mark"
      say "$postgres_user cannot enter $folder: its cluster is in $(dirname "$(<"$mark")")"
    fi
  fi
  printf '%s' "$(<"$mark")"
}

postgres_create() {
  local cluster=$1 parent words
  parent=$(dirname "$cluster")
  words=$parent/initial_password
  mkdir -p "$parent"
  chmod 711 "$parent"
  rm -rf "$cluster.new"
  install -d -m 0700 "$cluster.new"
  printf '%s\n' "$DATABASE_PASSWORD" >"$words"
  [[ $(id -u) != 0 ]] || chown "$postgres_user" "$cluster.new" "$words"
  as_owner "$postgres_programs/initdb" --pgdata="$cluster.new" --username=platform --pwfile="$words" \
    --auth=scram-sha-256 --encoding=UTF8 --locale=C --no-sync >>"$(folder_of postgres)/log" 2>&1 ||
    { rm -f "$words"; fail PARITY_DATABASE_NOT_MADE "initdb failed; see $(folder_of postgres)/log"; }
  rm -f "$words"
  mv "$cluster.new" "$cluster"
}

# A killed server nobody waited for still has a process id, and PostgreSQL would take it for alive.
postgres_forget_the_dead() {
  local lock=$1/postmaster.pid pid
  [[ -f $lock ]] || return 0
  read -r pid <"$lock"
  started_at "$pid" >/dev/null || rm -f "$lock"
}

postgres_start() {
  local cluster
  cluster=$(postgres_cluster)
  [[ -f $cluster/PG_VERSION ]] || postgres_create "$cluster"
  postgres_forget_the_dead "$cluster"
  # No Unix socket: its path could be too long, and every client here speaks TCP.
  local command=("$postgres_programs/postgres" -D "$cluster" -p "$PORT_POSTGRES" -c "unix_socket_directories=" -c listen_addresses=127.0.0.1
    -c shared_buffers="${PARITY_POSTGRES_MEMORY:-256MB}" -c max_wal_size=4GB -c checkpoint_timeout=30min -c wal_level=minimal
    -c max_wal_senders=0 -c max_connections=100 -c jit=off -c random_page_cost=1.1 -c maintenance_work_mem=128MB)
  if [[ $(id -u) == 0 ]]; then
    command=(setpriv --reuid="$postgres_user" --regid="$postgres_user" --init-groups env -u HOME -C / "${command[@]}")
  fi
  launch postgres "${command[@]}"
}

psql_as_platform() { # DATABASE ARGUMENTS...
  local database=$1
  shift
  PGPASSWORD=$DATABASE_PASSWORD "$postgres_programs/psql" -X -q -A -t -h 127.0.0.1 -p "$PORT_POSTGRES" -U platform -d "$database" "$@"
}

# Ready once the database of the platform is there.
postgres_ready() {
  "$postgres_programs/pg_isready" -q -h 127.0.0.1 -p "$PORT_POSTGRES" || return 1
  psql_as_platform platform -c 'select 1' >/dev/null 2>&1 ||
    psql_as_platform postgres -c 'create database platform' 2>>"$(folder_of postgres)/log"
}

# Fast shutdown: sessions are ended, what is committed is kept.
postgres_stop_signal() { echo INT; }
