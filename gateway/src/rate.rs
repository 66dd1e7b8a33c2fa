//! Tiers, and hosts behind a provider, at another price than the table has. Whoever asks for one asks for an unknown price: it
//! is refused to who is held to dollars, and written down without a cost, unless the answer says that it was served in the
//! standard tier after all.

use http::StatusCode;
use providers::{Dialect, ErrorKind, Operation, rate};

use crate::config::UnknownPrice;
use crate::exchange::{Asked, Exchange};
use crate::fault::Fault;
use crate::rules::{ModelRule, Rules, TargetRule};

/// At which rate a request is billed, as far as is known.
#[derive(Debug, Default)]
pub struct Rate {
    /// The fields by which another one was asked for.
    asked: Vec<&'static str>,
    /// What the answer is written in.
    dialect: Option<Dialect>,
    /// What the answer says of it, by its last word: whether it was the standard one.
    standard: Option<bool>,
}

impl Rate {
    /// The rate at which a target is asked.
    #[must_use]
    pub fn at(x: &Exchange, target: &TargetRule, model: &str) -> Self {
        let dialect = match x.operation {
            Operation::Chat(dialect) => Some(dialect),
            _ => None,
        };
        Rate { asked: asked(&x.asked, target, &x.rules, model), dialect, standard: None }
    }

    /// Whether the price table says what is billed.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.asked.is_empty() || self.standard == Some(true)
    }

    /// Reads along what a client is given: a whole answer, or events that are whole.
    pub fn hear(&mut self, said: &[u8]) {
        let (Some(dialect), false) = (self.dialect, self.asked.is_empty()) else { return };
        let Ok(text) = std::str::from_utf8(said) else { return };
        let told = |text: &str| rate::served(dialect, &self.asked, text);
        let last = match text.trim_start().starts_with('{') {
            true => told(text),
            false => text.lines().filter_map(|line| told(line.strip_prefix("data:")?.trim())).next_back(),
        };
        self.standard = last.or(self.standard);
    }
}

/// The fields by which a request asks a target for another rate. What the operator's defaults ask for is known where the
/// operator has priced the model.
fn asked(asked: &Asked, target: &TargetRule, rules: &Rules, model: &str) -> Vec<&'static str> {
    let provider = &target.provider;
    if provider.base_url.is_empty() {
        return Vec::new();
    }
    let client = provider.dialect.other_rates(asked.operation, &asked.envelope);
    if client.is_empty() && asked.rewritten && !rules.prices.is_own(&provider.name, model) {
        return provider.dialect.other_rates(Operation::Chat(Dialect::Chat), asked.current());
    }
    client
}

/// A field by which a request asks one of a model's targets for another rate.
#[must_use]
pub fn other(x: &Exchange, model: &ModelRule, rest: &str) -> Option<&'static str> {
    model.targets.iter().chain(&model.fallback).find_map(|target| asked(&x.asked, target, &x.rules, &target.model_for(rest)).first().copied())
}

/// A rate without a price is refused to who has a limit of dollars, as a model without one is.
///
/// # Errors
/// 403, naming the field.
pub fn hold_to_known(x: &Exchange, field: Option<&'static str>) -> Result<(), Fault> {
    match field {
        Some(field) if x.rules.unknown_price == UnknownPrice::Deny => Err(unknown(field, "a limit of dollars").status_of(StatusCode::FORBIDDEN)),
        _ => Ok(()),
    }
}

/// That a rate has no known price, which `bound` has to be held by.
#[must_use]
pub fn unknown(field: &'static str, bound: &str) -> Fault {
    let message = format!("`{field}` asks for what has a price of its own, which is not known here, so {bound} could not be held; leave it out");
    Fault::client(StatusCode::PAYMENT_REQUIRED, ErrorKind::Permission, message).code("unknown_price").param(field)
}
