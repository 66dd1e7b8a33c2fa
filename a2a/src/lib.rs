//! The A2A protocol: agent cards, messages, tasks, signatures, 0.3 and 1.0. Filled by a later issue.
