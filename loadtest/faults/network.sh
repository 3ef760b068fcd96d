# Sourced by ../faults.sh: a network namespace in which the clients live, with two ways to the nodes, one of which can lose
# every packet in both directions without anybody being told.
# shellcheck shell=bash disable=SC2034,SC2154

net_name=''

network_up() {
  [ "$(id -u)" = 0 ] || skip 'network namespaces need root'
  # The second half of TEST-NET-2 and a number of this run: no address of anybody.
  local number=$(($$ % 32))
  local here_1=198.51.100.$((number * 8 + 1)) here_2=198.51.100.$((number * 8 + 5))
  net_here=$here_1
  net_there_1=198.51.100.$((number * 8 + 2))
  net_there_2=198.51.100.$((number * 8 + 6))
  net_name=parley-$$
  ip netns add "$net_name" 2>"$work/ip.log" || {
    net_name=''
    skip "network namespaces are not permitted here: $(cat "$work/ip.log")"
  }
  ip -n "$net_name" link set lo up
  network_way 1 "$here_1" "$net_there_1"
  network_way 2 "$here_2" "$net_there_2"
  # What comes from the second address goes the second way.
  ip -n "$net_name" rule add from "$net_there_2" table 2
  ip -n "$net_name" route add "$here_1" via "$here_2" dev there2 table 2
}

network_way() {
  ip link add "par$1-$$" type veth peer name "there$1" netns "$net_name"
  ip addr add "$2/30" dev "par$1-$$"
  ip link set "par$1-$$" up
  ip -n "$net_name" addr add "$3/30" dev "there$1"
  ip -n "$net_name" link set "there$1" up
}

# From now on packets of the second way carry a hardware address that nobody has.
network_lose() {
  ip neigh replace "$net_there_2" lladdr 02:00:00:00:00:01 dev "par2-$$" nud permanent
  ip -n "$net_name" neigh replace "${net_there_2%.*}.$((${net_there_2##*.} - 1))" lladdr 02:00:00:00:00:01 dev there2 nud permanent
}

network_mend() {
  ip neigh del "$net_there_2" dev "par2-$$"
  ip -n "$net_name" neigh del "${net_there_2%.*}.$((${net_there_2##*.} - 1))" dev there2
}

# The links go with the namespace.
undo_network() {
  [ -z "$net_name" ] || ip netns del "$net_name" 2>/dev/null || true
}
