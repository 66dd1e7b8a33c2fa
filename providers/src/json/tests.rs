//! What is JSON, what is not, and what of it a request may not have.

use super::*;

fn error(body: &str) -> JsonError {
    scan_request(body.as_bytes()).expect_err(body)
}

#[test]
fn reports_the_spans_of_top_level_fields() {
    let body = br#" { "model" : "m" , "n":[1,{"a":"}"}], "x\u00e9":null } "#;
    let fields = scan(body).unwrap();
    let texts: Vec<_> = fields.iter().map(|f| (std::str::from_utf8(&body[f.key.clone()]).unwrap(), std::str::from_utf8(&body[f.value.clone()]).unwrap())).collect();
    assert_eq!(texts, [("model", "\"m\""), ("n", "[1,{\"a\":\"}\"}]"), ("x\\u00e9", "null")]);
}

#[test]
fn agrees_with_serde_json_on_what_is_json() {
    for body in ["{}", r#"{"a":-0.5e+10}"#, r#"{"a":[[],{},[{}]],"b":"\\\"\n\ud83d\ude00"}"#, "{\"a\":\"é\u{7f}\"}", r#"{"a":1E5,"b":0}"#] {
        assert!(scan(body.as_bytes()).is_ok(), "{body}");
        assert!(serde_json::from_str::<serde_json::Value>(body).is_ok(), "{body}");
    }
    for body in [
        "{",
        "{]",
        "[}",
        r#"{"a"}"#,
        r#"{"a":}"#,
        r#"{"a":1,}"#,
        r#"{,}"#,
        r#"{"a":01}"#,
        r#"{"a":1.}"#,
        r#"{"a":.5}"#,
        r#"{"a":+1}"#,
        r#"{"a":NaN}"#,
        r#"{"a":Infinity}"#,
        r#"{"a":nul}"#,
        r#"{"a":"\x"}"#,
        "{\"a\":\"\n\"}",
        r#"{"a":1}}"#,
        r#"{"a":1}x"#,
        r#"{"a":[1 2]}"#,
        r#"{'a':1}"#,
        r#"{"a":"\u12G4"}"#,
        r#"{"a":1e}"#,
        r#"{"a":-}"#,
    ] {
        assert!(scan(body.as_bytes()).is_err(), "{body}");
        assert!(serde_json::from_str::<serde_json::Value>(body).is_err(), "{body}");
    }
}

#[test]
fn every_byte_is_seen_at_every_place() {
    for at in 0..40 {
        for byte in 0..=0x7f_u8 {
            let mut text = vec![b'a'; 40];
            text[at] = byte;
            let special = byte < 0x20 || byte == b'"' || byte == b'\\';
            assert_eq!(plain(&text), if special { at } else { 40 }, "{byte:#x} at {at}");
        }
        assert_eq!(plain(&"é".repeat(at).into_bytes()), at * 2);
    }
}

#[test]
fn every_truncation_is_an_error() {
    let body = r#"{"model":"m","messages":[{"role":"user","content":"h\u00e9\ud83d\ude00 \"x\""}],"n":1.5e3,"t":true}"#;
    for end in 0..body.len() {
        assert!(scan(&body.as_bytes()[..end]).is_err(), "{}", &body[..end]);
    }
    assert_eq!(scan(body.as_bytes()).unwrap().len(), 4);
}

#[test]
fn duplicate_keys_are_found_at_any_depth_and_through_escapes() {
    assert_eq!(error(r#"{"a":1,"b":2,"a":3}"#), JsonError::DuplicateKey { key: "a".into(), at: 14 });
    assert!(matches!(error(r#"{"m":[{"é":1,"\u00e9":2}]}"#), JsonError::DuplicateKey { key, .. } if key == "é"));
    assert!(scan(br#"{"a":{"a":{"a":1}},"b":[{"a":1},{"a":2}]}"#).is_ok());
    let mut many: Vec<String> = (0..5000).map(|i| format!("\"k{i}\":{i}")).collect();
    assert!(scan(format!("{{\"o\":{{{}}}}}", many.join(",")).as_bytes()).is_ok());
    many.push("\"k17\":0".into());
    assert!(matches!(error(&format!("{{\"o\":{{{}}}}}", many.join(","))), JsonError::DuplicateKey { key, .. } if key == "k17"));
    assert!(matches!(error(&format!("{{{}}}", many.join(","))), JsonError::DuplicateKey { key, .. } if key == "k17"));
}

#[test]
fn what_is_looked_for_cannot_be_disguised() {
    for body in [r#"{"\u006e":100}"#, r#"{"max_completion_token\u0073":1}"#, r#"{"a":[{"image_ur\u006C":1}]}"#, r#"{"a\u005fb":1}"#, r#"{"type":"im\u0061ge"}"#] {
        assert!(matches!(error(body), JsonError::Disguised(_)), "{body}");
        assert!(scan(body.as_bytes()).is_ok(), "it is JSON: {body}");
    }
    // What writers of JSON do escape, and texts.
    for body in [r#"{"\u00fcber\u003c\u0026\/":"\u003cb\u003e \u0027\u0000 \u00e9"}"#.to_owned(), format!(r#"{{"a":"\u0041 {}"}}"#, "text ".repeat(20))] {
        assert!(scan_request(body.as_bytes()).is_ok(), "{body}");
    }
}

#[test]
fn nesting_surrogates_and_odd_bodies() {
    assert_eq!(error(&format!("{{\"a\":{}", "[".repeat(10_000))), JsonError::TooDeep);
    assert_eq!(error(&"{\"a\":".repeat(10_000)), JsonError::TooDeep);
    let fits = format!("{{\"a\":{}{}}}", "[".repeat(MAX_DEPTH - 1), "]".repeat(MAX_DEPTH - 1));
    assert!(scan(fits.as_bytes()).is_ok());
    assert!(matches!(error(r#"{"a":"\ud800"}"#), JsonError::LoneSurrogate(_)));
    assert!(matches!(error(r#"{"a":"\udc00\ud800"}"#), JsonError::LoneSurrogate(_)));
    assert!(matches!(error(r#"{"a":"\ud800\u0041"}"#), JsonError::LoneSurrogate(_)));
    assert_eq!(error(""), JsonError::Empty);
    assert_eq!(error("  "), JsonError::Empty);
    assert_eq!(error("[1]"), JsonError::NotAnObject);
    assert!(matches!(scan(b"{\"a\":\"\xff\"}"), Err(JsonError::NotUtf8(6))));
}
