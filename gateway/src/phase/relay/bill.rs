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
        // Nought for an answer that says something is not a figure.
        let told = seen.usage.filter(|usage| usage.total() > 0 || seen.text == 0);
        let usage = match told {
            Some(mut usage) => {
                // What was told in the middle of a stream does not know what came after, and some tell the prompt's only.
                let untold = if usage.completion() == 0 { seen.text } else { seen.text.saturating_sub(seen.counted) };
                if untold > 0 {
                    usage.output = usage.output.saturating_add(Weight::of_text(untold).about(density));
                    usage.estimated = true;
                }
                Some(usage)
            }
            None if entry.operation == "count_tokens" => None,
            // What was answered used something, even if nobody says how much.
            None => {
                let read = matches!(entry.operation, "chat" | "text_completion" | "generate_content");
                let output = if read { Weight::of_text(seen.text).about(density) } else { self.answer };
                Some(Usage { input: self.weight.about(density), output, estimated: true, ..Usage::default() })
            }
        };
        if let (Some(usage), Some(flight)) = (&usage, flight) {
            flight.used(usage, &self.weight);
        }
        let price = self.price.as_ref().filter(|_| self.rate.is_known());
        record.charge(usage, usage.zip(price).map(|(usage, price)| price.cost(&usage, false)));
    }
}
