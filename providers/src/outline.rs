//! Where a few top-level fields of a passing answer stand. The answer is the provider's own and goes on as it came, so this
//! looks for its outline only: strings are stepped over, brackets are counted, and nothing is read that nobody asked for.
//! Requests are read strictly instead ([`crate::json`]).

use crate::Error;

/// The values of the top-level fields of these names, in their order; of a name that occurs twice, the last.
///
/// # Errors
/// When the body is not text, or not one JSON object as far as its outline shows.
pub fn outline<'b, const N: usize>(body: &'b [u8], names: [&str; N]) -> Result<[Option<&'b str>; N], Error> {
    let wrong = |what: &str| Error::answer(format!("it is not a JSON object: {what}"));
    let text = simdutf8::basic::from_utf8(body).map_err(|_| wrong("it is not UTF-8"))?;
    let mut found = [None; N];
    let mut at = space(body, 0);
    if body.get(at) != Some(&b'{') {
        return Err(wrong("it does not begin with `{`"));
    }
    at = space(body, at + 1);
    if body.get(at) == Some(&b'}') {
        return whole(body, at + 1, found).ok_or_else(|| wrong("something follows after it"));
    }
    loop {
        let key = space(body, at);
        let value = string(body, key).map(|end| (end, space(body, end))).filter(|(_, colon)| body.get(*colon) == Some(&b':'));
        let Some((end, colon)) = value else { return Err(wrong("a field has no name")) };
        let start = space(body, colon + 1);
        let stop = skip(body, start).ok_or_else(|| wrong("it ends in the middle, or its brackets do not fit"))?;
        let name = &body[key + 1..end - 1];
        if let Some(slot) = names.iter().position(|n| n.as_bytes() == name) {
            found[slot] = Some(&text[start..stop]);
        }
        at = space(body, stop);
        match body.get(at) {
            Some(b',') => at += 1,
            Some(b'}') => return whole(body, at + 1, found).ok_or_else(|| wrong("something follows after it")),
            _ => return Err(wrong("it ends in the middle")),
        }
    }
}

fn whole<T>(body: &[u8], at: usize, found: T) -> Option<T> {
    (space(body, at) == body.len()).then_some(found)
}

fn space(body: &[u8], mut at: usize) -> usize {
    while matches!(body.get(at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
        at += 1;
    }
    at
}

/// Where the string that begins here ends.
fn string(body: &[u8], at: usize) -> Option<usize> {
    if body.get(at) != Some(&b'"') {
        return None;
    }
    let mut at = at + 1;
    loop {
        at += memchr::memchr2(b'"', b'\\', body.get(at..)?)?;
        if body[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// Where the value that begins here ends. Brackets are counted together: a `]` where a `}` belongs is not this reader's concern.
fn skip(body: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 0_usize;
    loop {
        match body.get(at)? {
            b'"' => at = string(body, at)?,
            b'{' | b'[' => {
                depth += 1;
                at += 1;
                continue;
            }
            b'}' | b']' => {
                depth = depth.checked_sub(1)?;
                at += 1;
            }
            b',' | b':' | b' ' | b'\n' | b'\r' | b'\t' if depth > 0 => {
                at += 1;
                continue;
            }
            _ => {
                let start = at;
                while body.get(at).is_some_and(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'+' | b'.')) {
                    at += 1;
                }
                if at == start {
                    return None;
                }
            }
        }
        if depth == 0 {
            return Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found<'a>(text: &'a str, name: &str) -> Result<Option<&'a str>, String> {
        outline(text.as_bytes(), [name]).map(|[value]| value).map_err(|e| e.to_string())
    }

    #[test]
    fn top_level_fields_are_found_and_deeper_ones_are_not() {
        let text = r#" { "a" : {"usage": 1, "b": ["]", "\\\"}", {}]} , "usage":{"prompt_tokens":-1.5e3},"text":"\"usage\": 2" , "n":null}
"#;
        assert_eq!(found(text, "usage"), Ok(Some(r#"{"prompt_tokens":-1.5e3}"#)));
        assert_eq!(found(text, "a"), Ok(Some(r#"{"usage": 1, "b": ["]", "\\\"}", {}]}"#)));
        assert_eq!(found(text, "n"), Ok(Some("null")));
        assert_eq!(found(text, "b"), Ok(None));
        assert_eq!(found("{}", "b"), Ok(None));
    }

    #[test]
    fn what_is_no_object_or_not_whole_is_refused() {
        let text = r#"{"a":{"b":["x\"y",1,true]},"usage":{"p":1}}"#;
        for end in 0..text.len() {
            assert!(found(&text[..end], "usage").is_err(), "{}", &text[..end]);
        }
        for text in ["<html>", "[]", "\"a\"", "{\"a\":1} x", "{\"a\" 1}", "{a:1}", "{\"a\":}", "{\"a\":1,}", "{\"a\":]}"] {
            assert!(found(text, "a").is_err(), "{text}");
        }
        assert!(outline(b"{\"a\":\"\xff\"}", ["a"]).is_err());
    }
}
