//! Names of tools that a provider does not take: too long, with letters that it does not know, or kept for this gateway's own.
//! Where a request is translated such a tool goes by another name, which is told back in the answer under the client's own.

use std::collections::{BTreeSet, HashMap};

use memchr::{memchr, memmem};
use serde_json::Value;

use crate::answer::{Answer, Delta};
use crate::carry::short_id;
use crate::envelope::Envelope;
use crate::sse::Event;
use crate::wire::{ChatRequest, Message, Str};
use crate::{Error, Provider, Target, Transcoder};

/// Which names of tools a provider takes: those of letters and digits of ASCII, `_`, and what is said here.
#[derive(Debug, Clone, Copy)]
pub struct Naming {
    /// Most letters.
    pub longest: usize,
    /// What else may stand in a name.
    pub also: &'static str,
    /// Whether it has to begin with a letter or `_`.
    pub begins_as_word: bool,
    /// Names that are not the client's to give.
    pub reserved: &'static [&'static str],
}

impl Naming {
    /// OpenAI's, which is also that of most compatible hosts: DeepSeek, Mistral and DashScope answer 400 to more.
    pub const OPENAI: Naming = Naming { longest: 64, also: "-", begins_as_word: false, reserved: &[] };

    fn knows(&self, letter: char) -> bool {
        letter.is_ascii_alphanumeric() || letter == '_' || self.also.contains(letter)
    }

    /// Whether a name may stay as it is. One of nothing may: that it is missing is for the dialect to say.
    fn takes(&self, name: &str) -> bool {
        let begins = !self.begins_as_word || name.chars().next().is_none_or(begins_a_word);
        name.len() <= self.longest && begins && name.chars().all(|c| self.knows(c)) && !self.reserved.contains(&name)
    }

    /// Another name: the beginning of the tool's own, to be read by the model, and what stands for the whole of it. It is the
    /// same in every turn, for prompts are cached by their text. `again` tells names apart that would meet.
    fn other(&self, name: &str, again: usize) -> String {
        let hash = if again == 0 { short_id(name) } else { short_id(&format!("{name}\n{again}")) };
        let mut out = String::with_capacity(self.longest);
        if self.begins_as_word && !name.starts_with(begins_a_word) {
            out.push('_');
        }
        let room = self.longest - hash.len() - 1 - out.len();
        out.extend(name.chars().take(room).map(|c| if self.knows(c) { c } else { '_' }));
        out.push('_');
        out.push_str(&hash);
        out
    }
}

fn begins_a_word(letter: char) -> bool {
    letter.is_ascii_alphabetic() || letter == '_'
}

/// The names that a request's tools go by at a provider, where they are not the client's own.
#[derive(Debug, Clone, Default)]
pub struct Renamed {
    /// The client's own names, by those that are sent.
    own: HashMap<String, String>,
}

impl Renamed {
    /// The names of a request that `naming` does not take. No two tools meet in one name.
    fn of(request: &mut ChatRequest<'_>, naming: &Naming) -> Result<Self, Error> {
        let (mut kept, mut unfit) = (BTreeSet::new(), BTreeSet::new());
        let mut note = |name: &mut Str<'_>| {
            let known = if naming.takes(name) { &mut kept } else { &mut unfit };
            if !known.contains(&**name) {
                known.insert(name.to_string());
            }
        };
        offered(request, &mut note);
        request.messages.iter_mut().flatten().for_each(|message| called(message, &mut note));
        for (_, mut choice) in choices(request)? {
            chosen(&mut choice, &mut note);
        }
        let mut own = HashMap::with_capacity(unfit.len());
        for name in unfit {
            let mut others = (0..).map(|again| naming.other(&name, again));
            if let Some(other) = others.find(|other| !kept.contains(other) && !own.contains_key(other)) {
                own.insert(other, name);
            }
        }
        Ok(Renamed { own })
    }

    /// The client's own name of a tool. What a model made up is given out as it stands.
    fn own<'n>(&'n self, sent: &'n str) -> &'n str {
        self.own.get(sent).map_or(sent, String::as_str)
    }

    /// The answer under the client's own names.
    #[must_use]
    pub fn answer(&self, mut answer: Answer) -> Answer {
        for call in answer.choices.iter_mut().flat_map(|c| &mut c.calls) {
            if let Some(own) = self.own.get(&call.name) {
                call.name.clone_from(own);
            }
        }
        answer
    }

    /// A stream's reader that tells the client's own names.
    #[must_use]
    pub fn transcoder(&self, inner: Box<dyn Transcoder>) -> Box<dyn Transcoder> {
        if self.own.is_empty() { inner } else { Box::new(Back { inner, renamed: self.clone() }) }
    }
}

/// A hub request with names that the provider takes, and the names that had to be others. Costs a look where all may stay.
///
/// # Errors
/// When it is no chat request.
pub fn fit(provider: &dyn Provider, target: &Target<'_>, hub: Envelope) -> Result<(Envelope, Renamed), Error> {
    let naming = provider.naming(target);
    if !has_unfit(hub.body(), &naming) {
        return Ok((hub, Renamed::default()));
    }
    let mut request = hub.chat()?;
    let renamed = Renamed::of(&mut request, &naming)?;
    if renamed.own.is_empty() {
        return Ok((hub, renamed));
    }
    let body = rename(&hub, request, &renamed)?;
    Ok((Envelope::read(body.into())?, renamed))
}

/// Whether a body has a field `name` whose text `naming` does not take: a cheap look before it is parsed.
fn has_unfit(body: &[u8], naming: &Naming) -> bool {
    const KEY: &[u8] = b"\"name\"";
    memmem::find_iter(body, KEY).any(|at| {
        let value = body[at + KEY.len()..].trim_ascii_start().strip_prefix(b":").map(<[u8]>::trim_ascii_start);
        let text = value.and_then(|v| v.strip_prefix(b"\"")).and_then(|text| Some(&text[..memchr(b'"', text)?]));
        // A backslash is no letter of a name: what is written with one is looked at closer.
        text.is_some_and(|text| std::str::from_utf8(text).map_or(true, |text| !naming.takes(text)))
    })
}

/// The body with the other names, all else as it stood.
fn rename(hub: &Envelope, mut request: ChatRequest<'_>, renamed: &Renamed) -> Result<Vec<u8>, Error> {
    let others: HashMap<&str, &str> = renamed.own.iter().map(|(other, own)| (&**own, &**other)).collect();
    let mut give = |name: &mut Str<'_>| {
        if let Some(other) = others.get(&**name) {
            *name = (*other).to_owned().into();
        }
    };
    offered(&mut request, &mut give);
    request.messages.iter_mut().flatten().for_each(|message| called(message, &mut give));
    let mut edit = hub.edit();
    let json = |value: Result<String, serde_json::Error>| value.map_err(Error::answer);
    if let Some(tools) = &request.tools {
        edit.set("tools", json(serde_json::to_string(tools))?);
    }
    if let Some(functions) = &request.functions {
        edit.set("functions", json(serde_json::to_string(functions))?);
    }
    if let Some(messages) = &request.messages {
        edit.set("messages", json(serde_json::to_string(messages))?);
    }
    for (field, mut choice) in choices(&request)? {
        chosen(&mut choice, &mut give);
        edit.set(field, choice.to_string());
    }
    Ok(edit.finish().into_bytes().to_vec())
}

/// Every name of a tool on offer.
fn offered<'a>(request: &mut ChatRequest<'a>, each: &mut dyn FnMut(&mut Str<'a>)) {
    let tools = request.tools.iter_mut().flatten().flat_map(|tool| {
        let function = tool.function.as_mut().and_then(|f| f.name.as_mut());
        function.into_iter().chain(tool.custom.as_mut().and_then(|c| c.name.as_mut()))
    });
    tools.chain(request.functions.iter_mut().flatten().filter_map(|f| f.name.as_mut())).for_each(each);
}

/// Every name of a tool in a message of the history.
fn called<'a>(message: &mut Message<'a>, each: &mut dyn FnMut(&mut Str<'a>)) {
    for call in message.tool_calls.iter_mut().flatten() {
        let function = call.function.as_mut().and_then(|f| f.name.as_mut());
        function.into_iter().chain(call.custom.as_mut().and_then(|c| c.name.as_mut())).for_each(&mut *each);
    }
    if let Some(name) = message.function_call.as_mut().and_then(|call| call.name.as_mut()) {
        each(name);
    }
    // Whoever else has a name is a participant.
    if let (Some("tool" | "function"), Some(name)) = (message.role.as_deref(), &mut message.name) {
        each(name);
    }
}

/// The choice of a tool, in the present form and in the older one.
fn choices(request: &ChatRequest<'_>) -> Result<Vec<(&'static str, Value)>, Error> {
    let given = [("tool_choice", request.tool_choice), ("function_call", request.function_call)].into_iter().filter_map(|(field, raw)| Some((field, raw?)));
    given.map(|(field, raw)| Ok((field, serde_json::from_str(raw.get()).map_err(|_| Error::invalid(field, format!("`{field}` cannot be read")))?))).collect()
}

/// Every name of a tool in a choice, whatever its form.
fn chosen(choice: &mut Value, each: &mut dyn FnMut(&mut Str<'_>)) {
    match choice {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::String(text) if key == "name" => {
                        let mut name = Str::from(std::mem::take(text));
                        each(&mut name);
                        *text = name.0.into_owned();
                    }
                    value => chosen(value, each),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|value| chosen(value, each)),
        _ => {}
    }
}

/// Reads a stream, and tells the client's own names.
struct Back {
    inner: Box<dyn Transcoder>,
    renamed: Renamed,
}

impl Transcoder for Back {
    fn event(&mut self, event: &Event<'_>, out: &mut dyn FnMut(Delta<'_>)) -> Result<(), Error> {
        let renamed = &self.renamed;
        self.inner.event(event, &mut |delta| told(renamed, delta, out))
    }

    fn end(&mut self, out: &mut dyn FnMut(Delta<'_>)) -> Result<(), Error> {
        let renamed = &self.renamed;
        self.inner.end(&mut |delta| told(renamed, delta, out))
    }
}

fn told(renamed: &Renamed, delta: Delta<'_>, out: &mut dyn FnMut(Delta<'_>)) {
    match delta {
        Delta::Call { choice, index, id, name } => out(Delta::Call { choice, index, id, name: renamed.own(name) }),
        other => out(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOGLE: Naming = Naming { also: "-.:", begins_as_word: true, ..Naming::OPENAI };

    #[test]
    fn what_fits_stays_and_the_rest_fits_then() {
        for (name, openai, google) in [
            ("get_weather", true, true),
            ("fs.read:v1", false, true),
            ("größe", false, false),
            ("a b/c", false, false),
            ("1password", true, false),
            ("-", true, false),
            ("", true, true),
            (&"a".repeat(64), true, true),
            (&"a".repeat(65), false, false),
            (&"日".repeat(80), false, false),
        ] {
            for (naming, takes) in [(Naming::OPENAI, openai), (GOOGLE, google)] {
                assert_eq!(naming.takes(name), takes, "{name}");
                for again in 0..3 {
                    let other = naming.other(name, again);
                    assert!(naming.takes(&other) && other == naming.other(name, again), "{other}");
                }
                assert_ne!(naming.other(name, 0), naming.other(name, 1));
            }
        }
        assert!(!Naming { reserved: &["taken"], ..Naming::OPENAI }.takes("taken"));
        assert!(Naming::OPENAI.other("fs.read", 0).starts_with("fs_read_"));
    }

    fn renamed(names: &[&str]) -> HashMap<String, String> {
        let tools: Vec<Value> = names.iter().map(|name| serde_json::json!({ "type": "function", "function": { "name": name } })).collect();
        let body = serde_json::json!({ "tools": tools }).to_string();
        Renamed::of(&mut serde_json::from_str(&body).unwrap(), &Naming::OPENAI).unwrap().own
    }

    #[test]
    fn no_two_names_meet() {
        let (long, longer) = ("tool_".repeat(20), "tool_".repeat(21));
        // A client may offer what the other name would be, even twice over.
        let (first, second) = (Naming::OPENAI.other(&long, 0), Naming::OPENAI.other(&long, 1));
        let own = renamed(&[&first, &long, &second, &longer, &long]);
        assert_eq!(own.get(&Naming::OPENAI.other(&long, 2)), Some(&long));
        assert_eq!((own.len(), own.get(&Naming::OPENAI.other(&longer, 0))), (2, Some(&longer)));
        assert!(renamed(&["a", "b"]).is_empty());
    }

    #[test]
    fn only_names_that_do_not_fit_make_work() {
        let unfit = |body: &str| has_unfit(body.as_bytes(), &Naming::OPENAI);
        assert!(unfit(r#"{"tools":[{"function":{"name" : "a.b"}}]}"#) && unfit(r#"{"name":"\u0061"}"#) && unfit(&format!(r#"{{"name":"{}"}}"#, "a".repeat(65))));
        assert!(!unfit(r#"{"name":"a","content":"\"name\":\"a.b\"","properties":{"name":{"type":"name"}},"list":["name","a.b"],"name":null}"#) && !unfit(r#"{"name""#) && !unfit(r#"{"name":"a."#));
    }
}
