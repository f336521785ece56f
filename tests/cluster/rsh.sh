#!/bin/bash
# rsh agent for mpirun: "rsh.sh [-x ...] HOST CMD..." -> run CMD through a shell inside the namespace host HOST.
while [ "${1#-}" != "$1" ]; do shift; done          # ignore ssh-style flags
h=$1; shift
exec "$(dirname "$(readlink -f "$0")")/hosts.sh" exec "$h" /bin/sh -c "$*"
