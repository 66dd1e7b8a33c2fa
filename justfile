# Short names for what one does often. Nothing needs just: each line can be typed as it stands.

# Formatting and lints.
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings

# All tests, as CI runs them.
test:
    bash tests/run

# Rewrites what is generated and what fixtures expect. Read the diff before you commit it.
bless:
    BLESS=1 cargo test -p providers
    BLESS=1 cargo test -p gateway --test house --test table

# End to end alone.
e2e:
    cargo test -p tests

# What can be more or less right, measured. Nothing is measured yet.
evals:
    cargo test -p evals

# The benchmark; see tests/load.
bench:
    cargo build --release -p gateway -p load
    cargo run --release -p load --bin bench

# Budgets while gateways are killed and Redis is away, by seed; see tests/load.
chaos:
    cargo run -p tests --bin chaos

# The gateway with Redis, Qdrant, Prometheus and Grafana, in containers.
up:
    docker compose -f docker/compose.yaml up --build

# Licences, advisories and banned crates; needs cargo-deny.
deny:
    cargo deny check
