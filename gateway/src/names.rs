//! Names of headers that this gateway reads or writes on every request, made once: from text they would be parsed each time.

use http::HeaderName;

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        $($(#[$doc])* pub static $name: HeaderName = HeaderName::from_static($text);)*
    };
}

names! {
    /// The request's id, in and out.
    REQUEST_ID = "x-request-id";
    /// The same in the words of Anthropic's SDKs.
    ANTHROPIC_REQUEST_ID = "request-id";
    /// W3C trace context.
    TRACEPARENT = "traceparent";
    /// What tracing systems add to it.
    TRACESTATE = "tracestate";
    /// The stages of a request, for browsers.
    SERVER_TIMING = "server-timing";
    /// Tells nginx not to hold a stream back.
    ACCEL_BUFFERING = "x-accel-buffering";
    /// Who answered.
    PROVIDER = "x-trivium-provider";
    /// With which model.
    MODEL = "x-trivium-model";
    /// What it cost, in dollars.
    COST = "x-trivium-cost";
    /// What it would cost at worst, in dollars.
    COST_ESTIMATE = "x-trivium-cost-estimate";
    /// The client's own bound on that, in dollars.
    MAX_COST = "x-trivium-max-cost";
    /// What was dropped or changed.
    WARNING = "x-trivium-warning";
}
