//! W3C trace context: read from the client, handed on to the upstream, written into the ledger.

use http::HeaderMap;

use crate::names;

/// Where a request stands in a distributed trace. Numbers: they are written out only where somebody reads them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Trace {
    /// 16 bytes; 0 for none.
    pub trace_id: u128,
    /// Our own span, 8 bytes; 0 for none.
    pub span_id: u64,
    /// The client's span, if it sent one.
    pub parent: Option<u64>,
    /// Whether the trace is recorded.
    pub sampled: bool,
}

impl Trace {
    /// Continues the client's trace, or begins one, of which this share is recorded. A header that is not well formed begins
    /// one. A client that has decided whether its trace is recorded is followed: half a trace is of no use.
    #[must_use]
    pub fn read(headers: &HeaderMap, share: f64) -> Self {
        let span_id = new_span();
        let given = headers.get(&names::TRACEPARENT).and_then(|v| v.to_str().ok()).and_then(parse);
        match given {
            Some((trace_id, parent, sampled)) => Trace { trace_id, span_id, parent: Some(parent), sampled },
            None => {
                let low = fastrand::u64(..);
                Trace { trace_id: u128::from(fastrand::u64(1..)) << 64 | u128::from(low), span_id, parent: None, sampled: chosen(low, share) }
            }
        }
    }

    /// The header for an upstream: its parent is the try that calls it.
    #[must_use]
    pub fn header(&self, span: u64) -> [u8; 55] {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        write_hex(self.trace_id, &mut text[3..35]);
        write_hex(span.into(), &mut text[36..52]);
        text[54] = b'0' + u8::from(self.sampled);
        text
    }
}

/// A number's last hex digits, as many as there is room for. The formatting machinery of the standard library would cost a
/// request more than its translation.
pub fn write_hex(number: u128, out: &mut [u8]) {
    let mut left = number;
    for digit in out.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(left & 15) as usize];
        left >>= 4;
    }
}

/// A new span's id.
#[must_use]
pub fn new_span() -> u64 {
    fastrand::u64(1..)
}

/// Whether a trace is of the share that is recorded: by its id, so that every service with the same share chooses the same.
fn chosen(low: u64, share: f64) -> bool {
    share >= 1.0 || ((low >> 1) as f64) < share * (1_u64 << 63) as f64
}

fn parse(text: &str) -> Option<(u128, u64, bool)> {
    let mut parts = text.split('-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |s: &str, n: usize| s.len() == n && s.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let good = hex(version, 2) && version != "ff" && hex(trace, 32) && hex(parent, 16) && hex(flags, 2);
    let (trace, parent) = good.then(|| Some((u128::from_str_radix(trace, 16).ok()?, u64::from_str_radix(parent, 16).ok()?)))??;
    (trace != 0 && parent != 0).then(|| (trace, parent, u8::from_str_radix(flags, 16).unwrap_or(0) & 1 == 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_continued_and_a_broken_one_begun_anew() {
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().unwrap());
        let trace = Trace::read(&headers, 0.0);
        assert_eq!((trace.trace_id, trace.parent), (0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c, Some(0xb7ad_6b71_6920_3331)));
        assert_eq!(trace.header(0xab), *b"00-0af7651916cd43dd8448eb211c80319c-00000000000000ab-01");
        for bad in [
            "",
            "00-0",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            headers.insert("traceparent", bad.parse().unwrap());
            assert_eq!(Trace::read(&headers, 1.0).parent, None, "{bad}");
        }
    }

    #[test]
    fn a_share_of_traces_is_recorded_unless_the_client_has_decided() {
        let none = HeaderMap::new();
        assert!((0..100).all(|_| Trace::read(&none, 1.0).sampled && !Trace::read(&none, 0.0).sampled));
        let half = (0..1000).filter(|_| Trace::read(&none, 0.5).sampled).count();
        assert!((300..700).contains(&half), "{half}");
        assert!(chosen(1, 0.5) && !chosen(u64::MAX, 0.5));
        let mut unsampled = HeaderMap::new();
        unsampled.insert("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00".parse().unwrap());
        assert!(!Trace::read(&unsampled, 1.0).sampled);
    }
}
