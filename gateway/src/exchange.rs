//! [`Exchange`]: the facts of one request, from the door to the relay.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};
use providers::door::{Meta, door};
use providers::envelope::Envelope;
use providers::prices::Model;
use providers::{Dialect, Error, Operation};

use crate::certificate::Peer;
use crate::fate::Fate;
use crate::fault::Fault;
use crate::form::Form;
use crate::ledger::{Entry, Record};
use crate::names;
use crate::principal::Principal;
use crate::purse::{Estimate, nanodollars};
use crate::rate::Rate;
use crate::rules::Rules;
use crate::state::State;
use crate::trace::{Trace, new_span, write_hex};
use crate::weight::Weight;

/// What is asked: the operation, the body as it came, and the request that the phases made of it. Knows nothing of who asks,
/// so that a request can be explained that nobody has sent.
pub struct Asked {
    /// What is asked.
    pub operation: Operation,
    /// The model asked for.
    pub model: String,
    /// Whether the answer is to be streamed.
    pub stream: bool,
    /// The body as it came.
    pub envelope: Envelope,
    /// The form, where the body is one.
    pub form: Option<Form>,
    /// The body as a hub request, once somebody has asked for it.
    hub: Option<Envelope>,
    /// What the door had to leave out for it.
    left_out: Vec<String>,
    /// Whether a phase has changed the request: from then on only the hub request counts.
    pub rewritten: bool,
    /// What the client is told was dropped or changed.
    pub warnings: Vec<String>,
    /// The client's own bound on the cost, in billionths of a dollar: the field `max_cost`, which no provider is shown.
    pub max_cost: Option<u64>,
}

/// One request.
pub struct Exchange {
    /// The process.
    pub state: Arc<State>,
    /// The rules in force when it came; they hold to its end.
    pub rules: Arc<Rules>,
    /// The client's method.
    pub method: Method,
    /// The client's headers.
    pub headers: HeaderMap,
    /// The certificate of the client's connection.
    pub peer: Option<Arc<Peer>>,
    /// Who is asking, once that is known.
    pub principal: Option<Arc<Principal>>,
    /// What is asked. Its fields and methods are those of the exchange.
    pub asked: Asked,
    /// How the limits stand, for the client.
    pub limit_headers: HeaderMap,
    /// What the prompt weighs.
    pub weight: Weight,
    /// About what the request may use.
    pub about: Estimate,
    /// What the request costs at worst, in billionths of a dollar, where prices are known.
    pub estimate: Option<u64>,
    /// What becomes of the request when its client leaves.
    pub fate: Option<Arc<Fate>>,
    /// What the target that is asked charges, where that is known.
    pub price: Option<Arc<Model>>,
    /// At which rate that target is asked.
    pub rate: Rate,
    /// What is written down. Moves into the answer's body, and is written when that is dropped.
    pub record: Option<Record>,
    /// Names everything about this request.
    pub id: String,
    /// The span of the try under way: what the upstream is told is its parent.
    pub span: u64,
}

impl Exchange {
    /// A request as it comes through the door, before its body is read.
    #[must_use]
    pub fn new(state: Arc<State>, rules: Arc<Rules>, method: Method, headers: HeaderMap, operation: Operation) -> Self {
        let id = request_id(&headers);
        let entry = Entry { time: state.now().as_secs_f64(), request_id: id.clone(), trace: Trace::read(&headers, rules.sample), operation: operation.name(), ..Entry::blank() };
        let record = Record::new(Box::new(entry), Instant::now(), state.clone());
        Exchange {
            state,
            rules,
            method,
            headers,
            peer: None,
            principal: None,
            asked: Asked::new(operation),
            limit_headers: HeaderMap::new(),
            weight: Weight::default(),
            about: Estimate::default(),
            estimate: None,
            fate: None,
            price: None,
            rate: Rate::default(),
            record: Some(record),
            id,
            span: new_span(),
        }
    }

    /// The entry in the ledger, as long as the answer has not taken it along.
    pub fn entry(&mut self) -> Option<&mut Entry> {
        self.record.as_mut().map(|r| &mut *r.entry)
    }

    /// What an answer's writer has to know.
    #[must_use]
    pub fn meta(&self) -> Meta {
        let include_usage = self.envelope.get("stream_options").is_some_and(|raw| serde_json::from_str::<providers::wire::StreamOptions>(raw).is_ok_and(|o| o.include_usage == Some(true)));
        Meta { id: self.id.clone(), created: self.state.now().as_secs(), model: self.model.clone(), include_usage, request: self.envelope.body().clone() }
    }
}

impl Deref for Exchange {
    type Target = Asked;

    fn deref(&self) -> &Asked {
        &self.asked
    }
}

impl DerefMut for Exchange {
    fn deref_mut(&mut self) -> &mut Asked {
        &mut self.asked
    }
}

impl Asked {
    /// Nothing yet: only what will be asked.
    #[must_use]
    pub fn new(operation: Operation) -> Self {
        Asked { operation, model: String::new(), stream: false, envelope: Envelope::empty(), form: None, hub: None, left_out: Vec::new(), rewritten: false, warnings: Vec::new(), max_cost: None }
    }

    /// Reads the body.
    ///
    /// # Errors
    /// When it is not strict JSON, or its head has wrong types.
    pub fn read(&mut self, body: Bytes) -> Result<(), Error> {
        self.envelope = Envelope::read(body)?;
        if let Some(amount) = self.envelope.get("max_cost") {
            let wrong = || Error::invalid("max_cost", "`max_cost` must be an amount of dollars, such as 0.05");
            self.max_cost = Some(nanodollars(amount).ok_or_else(wrong)?);
            let mut edit = self.envelope.edit();
            edit.remove("max_cost");
            self.envelope = Envelope::read(edit.finish().into_bytes())?;
        }
        if self.model.is_empty() {
            self.model = self.envelope.model().to_owned();
            self.stream = self.envelope.stream();
        }
        Ok(())
    }

    /// The client's dialect, for chats and for errors.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        dialect_of(self.operation)
    }

    /// The request in the hub's words; translated when first asked for. Every target that is asked in them has to tell what
    /// the door left out; one that gets the client's bytes has not.
    ///
    /// # Errors
    /// When the request is wrong in its own dialect.
    pub fn hub(&mut self) -> Result<&Envelope, Fault> {
        if self.hub.is_none() {
            let mut left_out = Vec::new();
            self.hub = Some(match self.operation {
                Operation::Chat(Dialect::Chat) | Operation::Embeddings | Operation::Rerank => self.envelope.clone(),
                Operation::Chat(dialect) => {
                    let hub = match dialect {
                        // Gemini has the model and the stream in the path.
                        Dialect::Generate => {
                            let mut edit = self.envelope.edit();
                            edit.set_text("model", &self.model);
                            edit.set("stream", self.stream.to_string());
                            door(dialect).read(&Envelope::read(edit.finish().into_bytes())?, &mut left_out)?
                        }
                        _ => door(dialect).read(&self.envelope, &mut left_out)?,
                    };
                    Envelope::read(hub.into())?
                }
                _ => return Err(Fault::gateway("this operation has no form in the hub")),
            });
            self.left_out = left_out;
        }
        for text in &self.left_out {
            if !self.warnings.contains(text) {
                self.warnings.push(text.clone());
            }
        }
        self.hub.as_ref().ok_or_else(|| Fault::gateway("there is no hub request"))
    }

    /// The body as it counts by now: as it came, or as a phase has changed it.
    #[must_use]
    pub fn current(&self) -> &Envelope {
        self.hub.as_ref().filter(|_| self.rewritten).unwrap_or(&self.envelope)
    }

    /// The operation in whose words [`Asked::current`] is.
    #[must_use]
    pub fn current_operation(&self) -> Operation {
        match self.operation {
            Operation::Chat(_) if self.rewritten => Operation::Chat(Dialect::Chat),
            other => other,
        }
    }

    /// Puts another hub request in the place of the one before: the client's bytes count no more.
    pub fn rewrite(&mut self, hub: Envelope) {
        self.hub = Some(hub);
        self.rewritten = true;
    }
}

/// In whose shape errors of an operation are told.
#[must_use]
pub fn dialect_of(operation: Operation) -> Dialect {
    match operation {
        Operation::Chat(dialect) => dialect,
        Operation::CountMessages => Dialect::Messages,
        Operation::CountGenerate | Operation::EmbedContent | Operation::BatchEmbedContents => Dialect::Generate,
        _ => Dialect::Chat,
    }
}

/// The client's own id for the request if it is fit to be repeated, else a new one.
#[must_use]
pub fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(&names::REQUEST_ID).and_then(|v| v.to_str().ok());
    match given.filter(|id| (1..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic())) {
        Some(id) => id.to_owned(),
        None => {
            let mut digits = vec![0; 24];
            write_hex(fastrand::u128(..), &mut digits);
            String::from_utf8(digits).unwrap_or_default()
        }
    }
}

/// Names the request in a response's headers, in the words of the dialect's SDKs too.
pub fn name_request(headers: &mut HeaderMap, dialect: Dialect, id: &str) {
    let Ok(value) = HeaderValue::try_from(id) else { return };
    if dialect == Dialect::Messages {
        headers.insert(names::ANTHROPIC_REQUEST_ID.clone(), value.clone());
    }
    headers.insert(names::REQUEST_ID.clone(), value);
}
