# Sourced by the run scripts of the SDKs' tests. Starts what they talk to, on loopback ports that the system chooses, and
# ends it by its pid when the script ends:
#   ECHO_URL     a gateway as someone finds it who has nothing: no configuration, no keys, no Ollama
#   GATEWAY_URL  a gateway with gateway.yaml, whose providers are all the mock
#   LIMITED_URL  a gateway with limits.yaml, whose consumers have little to spend
#   MOCK_URL     the mock of every dialect
# TRIVIUM and TRIVIUM_MOCK name binaries to use instead of building them.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
work=$(mktemp -d)
pids=()

end() {
  local status=$?
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null; done
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null; done
  if [ "$status" -ne 0 ]; then
    for log in "$work"/{echo,mock,gateway,limited}.log; do
      [ -s "$log" ] || continue
      echo "── the end of $(basename "$log")" >&2
      tail -n 20 "$log" | cut -c 1-400 >&2
    done
  fi
  rm -rf "$work"
  exit "$status"
}
trap end EXIT
trap 'exit 130' INT TERM

# start NAME PATTERN COMMAND...: starts it in an empty environment and sets `url` by the address in the first line with the
# pattern that it prints.
start() {
  local name=$1 pattern=$2
  shift 2
  mkdir -p "$work/$name"
  (cd "$work/$name" && exec env -i PATH="$PATH" HOME="$work/$name" OLLAMA_HOST=127.0.0.1:1 MOCK_URL="${MOCK_URL:-}" "$@") >"$work/$name.log" 2>&1 &
  local pid=$!
  pids+=("$pid")
  for _ in $(seq 600); do
    url=$(grep -m1 "$pattern" "$work/$name.log" | grep -o '127\.0\.0\.1:[0-9]*' | head -n 1)
    if [ -n "$url" ]; then
      url=http://$url
      return
    fi
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
  done
  echo "$name did not start" >&2
  exit 1
}

target=${CARGO_TARGET_DIR:-$root/target}
if [ -z "${TRIVIUM:-}" ]; then
  (cd "$root" && cargo build --quiet -p gateway) || exit 1
  TRIVIUM=$target/debug/trivium
fi
if [ -z "${TRIVIUM_MOCK:-}" ]; then
  (cd "$root" && cargo build --quiet -p tests --bin mock-providers) || exit 1
  TRIVIUM_MOCK=$target/debug/mock-providers
fi
start echo 'an OpenAI SDK' "$TRIVIUM" serve --listen 127.0.0.1:0 --admin off
export ECHO_URL=$url
start mock 127.0.0.1 "$TRIVIUM_MOCK"
export MOCK_URL=$url
start gateway 'an OpenAI SDK' "$TRIVIUM" serve --listen 127.0.0.1:0 --admin off --config "$root/tests/sdk/gateway.yaml"
export GATEWAY_URL=$url
start limited 'an OpenAI SDK' "$TRIVIUM" serve --listen 127.0.0.1:0 --admin off --config "$root/tests/sdk/limits.yaml"
export LIMITED_URL=$url
