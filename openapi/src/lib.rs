//! OpenAPI documents into tools; a tool's arguments into an HTTP request; its response into content.
//! Knows neither MCP nor the network. Filled by a later issue.
