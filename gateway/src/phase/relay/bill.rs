//! What a request has used and cost, once that is known.

use std::sync::Arc;

use providers::prices::Model;
use providers::usage::Usage;

use crate::ledger::Record;
use crate::rate::Rate;
use crate::rules::Rules;
use crate::stream::Seen;
use crate::target::InFlight;
use crate::weight::{DENSITY, Weight};

/// What is needed to settle a request once its usage is known.
pub(super) struct Bill {
    pub(super) rules: Arc<Rules>,
    pub(super) price: Option<Arc<Model>>,
    pub(super) rate: Rate,
    pub(super) weight: Weight,
    /// About how many tokens an answer has that nobody has counted or read.
    pub(super) answer: u64,
}

impl Bill {
    /// Writes usage, cost and finish into the record, and lets the routing know what the target has used.
    pub(super) fn settle(&mut self, record: &mut Record, seen: &Seen, flight: Option<&InFlight>) {
        let entry = &mut record.entry;
        entry.finish = seen.finish;
        let density = flight.map_or(DENSITY, InFlight::density);
        let usage = match seen.usage {
            // What was told in the middle of a stream does not know what came after.
            Some(mut usage) if !seen.done && seen.finish.is_none() && seen.text > seen.counted => {
                usage.output += Weight::of_text(seen.text - seen.counted).about(density);
                usage.estimated = true;
                Some(usage)
            }
            Some(usage) => Some(usage),
            None if entry.operation == "count_tokens" => None,
            // What was answered used something, even if nobody says how much.
            None => {
                let read = matches!(entry.operation, "chat" | "text_completion" | "generate_content");
                let output = if read { Weight::of_text(seen.text).about(density) } else { self.answer };
                Some(Usage { input: self.weight.about(density), output, estimated: true, ..Usage::default() })
            }
        };
        entry.usage = usage;
        if let (Some(usage), Some(flight)) = (&usage, flight) {
            flight.used(usage, &self.weight);
        }
        entry.cost = usage.zip(self.price.as_ref().filter(|_| self.rate.is_known())).map(|(usage, price)| price.cost(&usage, false));
    }
}
