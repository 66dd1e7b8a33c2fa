//! Benchmarks: mock upstream, load generator, nginx as the yardstick.
