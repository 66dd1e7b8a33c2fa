//! Names of tools for providers that take only letters, digits, `_` and `-`: a name with others is written so that it can be
//! read back from the answer alone, with no request at hand.

use std::borrow::Cow;
use std::fmt::Write as _;

/// What a name begins with that was rewritten.
const ENCODED: &str = "enc-";

/// A name as such providers take it: at most `longest` bytes, and none of those in `reserved`. `None` where there is no such
/// name.
pub(crate) fn encode<'a>(name: Cow<'a, str>, longest: usize, reserved: &[&str]) -> Option<Cow<'a, str>> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    let reserved = name.starts_with(ENCODED) || reserved.contains(&&*name);
    let name = if !name.is_empty() && !reserved && name.bytes().all(plain) {
        name
    } else {
        let mut out = String::from(ENCODED);
        for byte in name.bytes() {
            if byte.is_ascii_alphanumeric() || byte == b'_' {
                out.push(byte as char);
            } else {
                // Writing to a String cannot fail.
                let _ = write!(out, "-{byte:02x}");
            }
        }
        Cow::Owned(out)
    };
    (name.len() <= longest && *name != *ENCODED).then_some(name)
}

/// The client's own name of a tool.
pub(crate) fn decode(name: &str) -> Cow<'_, str> {
    let Some(encoded) = name.strip_prefix(ENCODED) else { return Cow::Borrowed(name) };
    let mut out = Vec::with_capacity(encoded.len());
    let mut rest = encoded.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'-' {
            out.push(byte);
            continue;
        }
        let hex = rest.split_at_checked(2).and_then(|(hex, after)| Some((u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()?, after)));
        // What a model made up is given out as it stands.
        let Some((byte, after)) = hex else { return Cow::Borrowed(name) };
        out.push(byte);
        rest = after;
    }
    String::from_utf8(out).map_or(Cow::Borrowed(name), Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_that_fits_comes_back() {
        for name in ["get_weather", "fs.read-file", "größe", "a b/c:d", "enc-x", "taken", "-"] {
            let sent = encode(name.into(), 64, &["taken"]).unwrap();
            assert!(sent.len() <= 64 && sent.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'), "{sent}");
            assert!(*sent != *"taken");
            assert_eq!(decode(&sent), name);
        }
        assert!(encode("a".repeat(65).into(), 64, &[]).is_none() && encode(".".repeat(21).into(), 64, &[]).is_none() && encode("".into(), 64, &[]).is_none());
        assert_eq!(encode("a".repeat(128).into(), 128, &[]).unwrap().len(), 128);
        assert_eq!(decode("enc-a-zz"), "enc-a-zz");
        assert_eq!(decode("enc-a-ff"), "enc-a-ff");
    }
}
