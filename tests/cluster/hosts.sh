#!/bin/bash
# hosts.sh - N throw-away "hosts" (net+uts+ipc+pid+mount namespaces) on one box, joined by a bridge.
#   hosts.sh up N [rate]     hosts h0..h(N-1), 10.77.0.(10+i)/24, bridge lives in its own netns "orsw"
#   hosts.sh exec hI CMD...  run CMD inside a host; "hd" is the login node (10.77.0.9), start mpirun there
#   hosts.sh shape RATE|off  tbf both ways on every link (e.g. 1gbit, 100mbit)
#   hosts.sh link hI up|down carrier of one host        hosts.sh drop hI on|off  silent black hole
#   hosts.sh crash hI        kill -9 the host's pid 1 (all its processes die, like a power cut)
#   hosts.sh down            stop and remove everything this script made
# Needs root and iproute2. Nothing outside $STATE, /run/netns and the new namespaces is touched.
set -u
STATE=${ORRERY_NS_STATE:-/tmp/orrery-hosts}
SELF=$(readlink -f "$0")
pidof_host(){ cat "$STATE/$1.pid" 2>/dev/null || { echo "hosts.sh: no such host $1" >&2; exit 255; }; }
in_host(){ local h=$1; shift; local p
  if [ "$h" = hd ]; then    # login node: own net+uts, but the root pid namespace, so that it can enter the others
    exec nsenter --net=/run/netns/orhd unshare --uts --mount \
      sh -c 'hostname hd; mount --bind "$0/hosts" /etc/hosts; exec "$@"' "$STATE" "$@"; fi
  p=$(pidof_host "$h") || exit 255
  exec nsenter -t "$p" -n -u -i -m -p -- "$@"; }
addlink(){ # addlink NAME PORT IP
  ip netns add "or$1"
  ip -n orsw link add "p$2" mtu "$mtu" type veth peer name eth0 netns "or$1"
  ip -n orsw link set "p$2" master br0 up
  ip -n "or$1" link set lo up; ip -n "or$1" link set eth0 mtu "$mtu" up; ip -n "or$1" addr add "$3/24" dev eth0
  # unacked data gives up after ~0.2*(2^(n+1)-1) s instead of ~15 min: without it mpirun hangs on a dead link
  nsenter --net="/run/netns/or$1" sysctl -q -w net.ipv4.tcp_retries2="${RETRIES2:-4}"; }
mtu=${MTU:-1500}
case ${1:-} in
up)
  n=$2; mkdir -p "$STATE"; [ -e "$STATE/n" ] && { echo "already up" >&2; exit 1; }
  echo "$n" >"$STATE/n"
  { echo "127.0.0.1 localhost"; echo "10.77.0.9 hd"; for ((i=0;i<n;i++)); do echo "10.77.0.$((10+i)) h$i"; done; } >"$STATE/hosts"
  ip netns add orsw && ip -n orsw link set lo up && ip -n orsw link add br0 type bridge \
    && ip -n orsw link set br0 mtu "$mtu" up
  addlink hd d 10.77.0.9
  for ((i=0;i<n;i++)); do h=h$i
    addlink "$h" "$i" "10.77.0.$((10+i))"
    # holder = pid 1 of the host: own hostname, pids, /dev/shm and /etc/hosts; /tmp stays shared (a "shared file system")
    rm -f "$STATE/$h.ready"
    setsid nsenter --net="/run/netns/or$h" unshare --uts --ipc --mount --pid --fork --mount-proc \
      bash -c "hostname $h; mount -t tmpfs -o size=4g shm /dev/shm; mount --bind '$STATE/hosts' /etc/hosts; \
               echo ok >'$STATE/$h.ready'; trap 'exit 0' TERM; while :; do sleep 3600 & wait; done" \
      </dev/null >/dev/null 2>&1 &
    parent=$!
    for ((t=0;t<100;t++)); do [ -s "$STATE/$h.ready" ] && break; sleep 0.02; done
    pgrep -P "$parent" | head -1 >"$STATE/$h.pid"; [ -s "$STATE/$h.pid" ] || { echo "host $h failed" >&2; exit 1; }
  done
  [ $# -ge 3 ] && "$SELF" shape "$3"; for ((i=0;i<n;i++)); do echo "h$i slots=${SLOTS:-1}"; done >"$STATE/hostfile" ;;
exec) h=$2; shift 2; in_host "$h" "$@" ;;
shape)
  n=$(cat "$STATE/n")
  for ((i=0;i<n;i++)); do
    if [ "$2" = off ]; then tc -n "orh$i" qdisc del dev eth0 root; tc -n orsw qdisc del dev "p$i" root
    else tc -n "orh$i" qdisc replace dev eth0 root tbf rate "$2" burst "${BURST:-80k}" latency "${LAT:-20ms}"
         tc -n orsw qdisc replace dev "p$i" root tbf rate "$2" burst "${BURST:-80k}" latency "${LAT:-20ms}"; fi
  done ;;
link) ip -n orsw link set "p${2#h}" "$3" ;;
drop) if [ "$3" = on ]; then ip -n orsw link set "p${2#h}" nomaster; else ip -n orsw link set "p${2#h}" master br0; fi ;;
crash) kill -9 "$(pidof_host "$2")" ;;
down)
  n=$(cat "$STATE/n" 2>/dev/null || echo 0)
  for ((i=0;i<n;i++)); do p=$(cat "$STATE/h$i.pid" 2>/dev/null) && kill -9 "$p" 2>/dev/null; done; sleep 0.1
  for ((i=0;i<n;i++)); do ip netns del "orh$i" 2>/dev/null; done; ip netns del orhd 2>/dev/null
  ip netns del orsw 2>/dev/null; rm -rf "$STATE" "/tmp/ompi.hd.$UID"
  for ((i=0;i<n;i++)); do rm -rf "/tmp/ompi.h$i.$UID"; done ;;
*) sed -n 2,10p "$0"; exit 2 ;;
esac
