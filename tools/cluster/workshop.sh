#!/bin/sh
# workshop.sh COMMAND...: called in fresh mount, network and process namespaces, serve the
# packages in REPOSITORY on NODE_ADDRESS:PORT while the command runs.

set -eu

ip link set lo up
ip address add "$NODE_ADDRESS/32" dev lo
python3 -m http.server --bind "$NODE_ADDRESS" --directory "$REPOSITORY" "$PORT" >/dev/null 2>&1 &
tries=0
until python3 -c 'import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])))' \
    "$NODE_ADDRESS" "$PORT" 2>/dev/null; do
    tries=$((tries + 1))
    [ "$tries" -lt 50 ] || { echo 'workshop: error: the packages are not served' >&2 && exit 1; }
    sleep 0.1
done
status=0
"$@" || status=$?
# Process 1 of this namespace ends here, and with it all others.
exit "$status"
