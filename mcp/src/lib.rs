//! The Model Context Protocol: messages, versions, sessions, the catalogue of tools and upstream servers.
//! Knows nothing of LLMs, tenants or guards. Filled by a later issue.
