#!/bin/sh
# Starts a server once every tenant is migrated, and refuses to when one isn't.
#
#   entrypoint.sh COMMAND [ARGUMENT]...
#
# Run it in the folder of manage.py. In the environment:
#   DATABASE_WAIT            seconds to wait for the database, 30 by default
#   MIGRATE_ON_START         "true": repair what isn't ready first, each schema under a lock of its own
#   DISABLE_MIGRATION_CHECK  "true": in an emergency, start although tenants aren't ready, and serve them
#
# It becomes COMMAND, or ends with 1 when tenants aren't ready, 2 when that can't be found out, 143 after SIGTERM.
set -eu

here=$(dirname "$0")
child=
status=0

say() {
    printf '%s\n' "entrypoint: $*" >&2
}

is_true() {
    case $1 in [Tt][Rr][Uu][Ee]) ;; *) return 1 ;; esac
}

# A shell that waits for a program hears no signal before it ends; for one in the background it does.
run() {
    "$@" &
    child=$!
    status=0
    wait "$child" || status=$?
    child=
}

stop() {
    trap '' INT TERM
    if [ -n "$child" ]; then
        kill -TERM "$child" 2>/dev/null || :
        wait "$child" || :
    fi
    say "stopped before the server was started."
    exit 143
}

if [ $# -eq 0 ]; then
    say "no command was given to start the server with."
    exit 2
fi
trap stop INT TERM

run python "$here/wait_for_database.py" "${DATABASE_WAIT:-30}"
if [ "$status" -ne 0 ]; then
    say "not started: the database can't be reached."
    exit 2
fi

if is_true "${MIGRATE_ON_START:-}"; then
    run python manage.py verify_tenant_migrations --fix
else
    run python manage.py verify_tenant_migrations
fi

case $status in
    0) ;;
    1) say "tenants are not ready. Repair them: python manage.py verify_tenant_migrations --fix" ;;
    *)
        say "it couldn't be found out whether the tenants are ready."
        status=2
        ;;
esac
if [ "$status" -ne 0 ]; then
    if ! is_true "${DISABLE_MIGRATION_CHECK:-}"; then
        say "not started. In an emergency, DISABLE_MIGRATION_CHECK=true starts it all the same."
        exit "$status"
    fi
    say "started all the same, because of DISABLE_MIGRATION_CHECK=true."
fi

trap - INT TERM
exec "$@"
