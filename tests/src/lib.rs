//! End-to-end tests: harness, mock upstream and test client; one file per story below `tests/`.
