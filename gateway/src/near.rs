//! Names near to a name that is not known: for everyone who has mistyped one.

/// What other tools call what we call otherwise.
const ELSEWHERE: &[(&str, &str)] = &[
    ("api_base", "base_url"),
    ("endpoint", "base_url"),
    ("url", "base_url"),
    ("host", "base_url"),
    ("key", "api_key"),
    ("token", "api_key"),
    ("type", "kind"),
    ("dialect", "kind"),
    ("model", "target"),
    ("provider", "target"),
    ("upstream", "target"),
    ("fallbacks", "fallback"),
    ("retries", "retry"),
    ("num_retries", "retry"),
    ("strategy", "balance"),
    ("users", "consumers"),
    ("port", "listen"),
    ("address", "listen"),
    ("server", "listen"),
    ("routes", "models"),
    ("max_attempts", "attempts"),
    ("window", "per"),
];

/// The three names nearest to what was asked, by edit distance.
#[must_use]
pub fn nearest<'a>(asked: &str, known: &[&'a str]) -> Vec<&'a str> {
    let asked: String = asked.chars().take(64).collect();
    let mut ranked: Vec<(usize, &str)> = known.iter().map(|name| (distance(&asked, name), *name)).collect();
    ranked.sort_unstable();
    ranked.into_iter().take(3).map(|(_, name)| name).collect()
}

/// The one that was meant, if that can be guessed: the same but for hyphens and capitals, what other tools call it, or a slip.
#[must_use]
pub fn meant<'a>(asked: &str, known: &[&'a str]) -> Option<&'a str> {
    let plain = |name: &str| name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect::<String>();
    let wanted = plain(asked);
    if let Some(same) = known.iter().find(|k| plain(k) == wanted) {
        return Some(same);
    }
    let elsewhere = ELSEWHERE.iter().filter(|(theirs, _)| plain(theirs) == wanted).find_map(|(_, ours)| known.iter().find(|k| *k == ours));
    if elsewhere.is_some() {
        return elsewhere.copied();
    }
    let slip = nearest(asked, known).into_iter().next()?;
    (distance(asked, slip) <= (slip.len() / 3).clamp(1, 3)).then_some(slip)
}

fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = i;
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let next = (corner + usize::from(x != *y)).min(row[j] + 1).min(row[j + 1] + 1);
            corner = row[j + 1];
            row[j + 1] = next;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_come_first() {
        assert_eq!(nearest("gpt4o", &["claude", "gpt-4o", "gpt-4o-mini", "echo"])[0], "gpt-4o");
    }

    #[test]
    fn what_was_meant_is_guessed_and_nothing_else() {
        let known = ["kind", "base_url", "api_key", "headers", "target", "targets", "weight", "round_robin"];
        for (asked, guess) in [
            ("bas_url", Some("base_url")),
            ("baseUrl", Some("base_url")),
            ("api-key", Some("api_key")),
            ("endpoint", Some("base_url")),
            ("type", Some("kind")),
            ("model", Some("target")),
            ("wieght", Some("weight")),
            ("target_s", Some("targets")),
            ("round-robin", Some("round_robin")),
            ("colour", None),
            ("x", None),
        ] {
            assert_eq!(meant(asked, &known), guess, "{asked}");
        }
    }
}
