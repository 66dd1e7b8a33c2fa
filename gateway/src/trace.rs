//! W3C trace context: read from the client, handed on to the upstream, written into the ledger.

use http::HeaderMap;
use serde::Serialize;

/// Where a request stands in a distributed trace. Hex, as the header has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Trace {
    /// 16 bytes.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub trace_id: String,
    /// Our own span, 8 bytes.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub span_id: String,
    /// The client's span, if it sent one.
    #[serde(skip)]
    pub parent: Option<String>,
    /// Whether the trace is recorded.
    #[serde(skip)]
    pub sampled: bool,
}

impl Trace {
    /// Continues the client's trace, or begins one. A header that is not well formed begins one.
    #[must_use]
    pub fn read(headers: &HeaderMap) -> Self {
        let span_id = format!("{:016x}", fastrand::u64(1..));
        let given = headers.get("traceparent").and_then(|v| v.to_str().ok()).and_then(parse);
        match given {
            Some((trace_id, parent, sampled)) => Trace { trace_id, span_id, parent: Some(parent), sampled },
            None => Trace { trace_id: format!("{:016x}{:016x}", fastrand::u64(1..), fastrand::u64(..)), span_id, parent: None, sampled: true },
        }
    }

    /// The header for the upstream.
    #[must_use]
    pub fn header(&self) -> String {
        format!("00-{}-{}-0{}", self.trace_id, self.span_id, u8::from(self.sampled))
    }
}

fn parse(text: &str) -> Option<(String, String, bool)> {
    let mut parts = text.split('-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |s: &str, n: usize| s.len() == n && s.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let zero = |s: &str| s.bytes().all(|b| b == b'0');
    let good = hex(version, 2) && version != "ff" && hex(trace, 32) && !zero(trace) && hex(parent, 16) && !zero(parent) && hex(flags, 2);
    good.then(|| (trace.to_owned(), parent.to_owned(), u8::from_str_radix(flags, 16).unwrap_or(0) & 1 == 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_continued_and_a_broken_one_begun_anew() {
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().unwrap());
        let trace = Trace::read(&headers);
        assert_eq!(trace.trace_id, "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(trace.parent.as_deref(), Some("b7ad6b7169203331"));
        assert!(trace.header().starts_with("00-0af7651916cd43dd8448eb211c80319c-") && trace.header().ends_with("-01"));
        assert!(!trace.header().contains("b7ad6b7169203331"));
        for bad in [
            "",
            "00-0",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            headers.insert("traceparent", bad.parse().unwrap());
            assert_eq!(Trace::read(&headers).parent, None, "{bad}");
        }
    }
}
