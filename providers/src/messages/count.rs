//! The answer to `count_tokens`, where the count is the gateway's own.

/// The body of the answer.
#[must_use]
pub fn count_answer(input_tokens: u64) -> Vec<u8> {
    format!("{{\"input_tokens\":{input_tokens}}}").into_bytes()
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_is_what_the_sdks_read() {
        assert_eq!(super::count_answer(2095), br#"{"input_tokens":2095}"#);
    }
}
