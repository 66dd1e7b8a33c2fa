//! Texts in, verdicts out: pattern, topic, injection and PII guards, and the services that some of them ask.
//! Knows neither where a text came from nor whose it is. Filled by a later issue.
