#!/usr/bin/env bash
# The gateway beside nginx as a plain reverse proxy, on the same machine, with the same instances: small
# answers over 64 connections. Needs nginx, wrk, h2load (nghttp2-client) and python3. Everything is on
# loopback and ends by itself.
#
#   gateway/benches/proxy.sh [ROUNDS [SECONDS]]
set -euo pipefail
cd "$(dirname "$0")/../.."

rounds=${1:-5} seconds=${2:-5}
connections=64
idle=10000
registry=17510 gateway=18080 admin=18081 proxy=18090
instances=(18101 18102 18103)

cargo build --quiet --release -p waypost -p waypost-gateway
bin=$(cargo metadata --format-version 1 --no-deps |
  python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')/release
work=$(mktemp -d)
pids=()
finish() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  rm -rf "$work"
}
trap finish EXIT
ulimit -n "$(ulimit -Hn)"

nginx_conf() { # what, where it runs, its servers
  cat <<EOF
worker_processes 1;

pid $work/$1.pid;
error_log $work/$1.log crit;
events { worker_connections 32768; }
http {
  access_log $2;
  keepalive_requests 1000000000;
  client_body_temp_path $work/$1-body; proxy_temp_path $work/$1-proxy;
  fastcgi_temp_path $work/$1-f; uwsgi_temp_path $work/$1-u; scgi_temp_path $work/$1-s;
  $3
}
EOF
}
servers=$(for port in "${instances[@]}"; do
  echo "server { listen 127.0.0.1:$port reuseport; location / { return 200 'a small answer of some forty bytes, say'; } }"
done)
nginx_conf instances off "$servers" > "$work/instances.conf"
upstreams=$(for port in "${instances[@]}"; do echo "server 127.0.0.1:$port;"; done)
nginx_conf proxy "$work/access.log" "
  upstream orders { $upstreams keepalive 256; keepalive_requests 1000000000; }
  server {
    listen 127.0.0.1:$proxy;
    location /orders/ {
      proxy_pass http://orders/;
      proxy_http_version 1.1;
      proxy_set_header Connection '';
      proxy_set_header X-Forwarded-For \$remote_addr;
    }
  }" > "$work/proxy.conf"
for what in instances proxy; do
  nginx -g 'daemon off;' -c "$work/$what.conf" 2>/dev/null & pids+=($!)
done
"$bin/waypost" serve --listen "127.0.0.1:$registry" --store memory --log error 2>/dev/null & pids+=($!)
sleep 0.5
for port in "${instances[@]}"; do
  "$bin/waypost" register --registry "http://127.0.0.1:$registry" --service orders --id "orders-$port" \
    --address "127.0.0.1:$port" -- sleep 100000 >/dev/null 2>&1 & pids+=($!)
done
"$bin/waypost-gateway" --listen "127.0.0.1:$gateway" --admin-listen "127.0.0.1:$admin" \
  --registry "http://127.0.0.1:$registry" --head-timeout 60s --log error > "$work/gateway-access.log" & pids+=($!)
gateway_pid=$!
until curl -sf "http://127.0.0.1:$gateway/orders/7" >/dev/null; do sleep 0.1; done

direct=http://127.0.0.1:${instances[0]}/7
rate() { # URL: requests a second
  wrk -t1 -c"$connections" -d"$seconds" "$1" | awk '/^Requests\/sec/ { print int($2) }
    /Non-2xx/ { print "answers other than 2xx" > "/dev/stderr"; exit 1 }'
}
p99() { # URL, requests a second: milliseconds
  local each=$(( $2 / connections ))
  h2load --h1 -t1 -c"$connections" --rps="$each" -D"$seconds" --log-file="$work/log" "$1" >/dev/null
  sort -n -k3 "$work/log" | awk '{ took[NR] = $3 } END { printf "%.2f\n", took[int(NR * 0.99)] / 1000 }'
  rm "$work/log"
}
spread() { sort -n | awk '{ v[NR] = $1 } END { printf "%s (%s to %s)\n", v[int((NR + 1) / 2)], v[1], v[NR] }'; }

for round in $(seq "$rounds"); do
  ours=$(rate "http://127.0.0.1:$gateway/orders/7") theirs=$(rate "http://127.0.0.1:$proxy/orders/7")
  echo "$ours" >> "$work/ours"; echo "$theirs" >> "$work/theirs"
  awk -v a="$ours" -v b="$theirs" 'BEGIN { printf "%.2f\n", a / b }' >> "$work/ratio"
  half=$((ours / 2))
  none=$(p99 "$direct" "$half") a=$(p99 "http://127.0.0.1:$gateway/orders/7" "$half")
  b=$(p99 "http://127.0.0.1:$proxy/orders/7" "$half")
  echo "$a $none" | awk '{ printf "%.2f\n", $1 - $2 }' >> "$work/added"
  echo "$b $none" | awk '{ printf "%.2f\n", $1 - $2 }' >> "$work/their-added"
done
echo "$connections connections, $rounds rounds of $seconds s: median (least to most)"
echo "requests/s: gateway $(spread < "$work/ours"), nginx $(spread < "$work/theirs"), ratio $(spread < "$work/ratio")"
echo "p99 added at half of the gateway's load, ms: gateway $(spread < "$work/added"), nginx $(spread < "$work/their-added")"
python3 - "$gateway" "$gateway_pid" "$idle" <<'EOF'
import socket, sys
port, pid, count = map(int, sys.argv[1:])
def resident():
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmRSS"))
before = resident()
sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]
silent = resident()
for one in sockets:
    one.sendall(b"GET /orders/7 HTTP/1.1\r\nHost: gateway\r\n\r\n")
    while b"\r\n\r\n" not in one.recv(4096):
        pass
print(f"memory, MiB: {before} before, {silent} with {count} idle connections, {resident()} once each has asked")
EOF
