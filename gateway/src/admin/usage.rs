//! What was used and spent, by day, consumer, group, model and provider.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Query as Asked, State as Shared, rejection::QueryRejection};
use providers::prices::Nanodollars;
use serde::{Deserialize, Serialize};
use serde_json::Number;
use utoipa::{IntoParams, ToSchema};

use super::Context;
use super::refusal::{Refusal, Refused};
use crate::history::{By, Day, Error, Query, Report, Row};

/// How many days are told unless others are asked for.
const DAYS: u32 = 30;
/// Most days of one question.
const MOST_DAYS: u32 = 400;

/// What is asked.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
#[derive(Default)]
pub(super) struct Question {
    /// The last so many days, today included; 30 unless `from` is given.
    days: Option<u32>,
    /// The first day in UTC, such as `2027-01-31`.
    from: Option<String>,
    /// The last day; today unless it is given.
    to: Option<String>,
    /// What is told apart, with commas between: `day`, `consumer`, `group`, `model`, `provider`, `model_used`. `day` unless it is given.
    by: Option<String>,
    /// Only what this consumer used.
    consumer: Option<String>,
}

/// What was used.
#[derive(Serialize, ToSchema)]
pub(super) struct Usage {
    /// The first day.
    #[schema(value_type = String, example = "2027-01-02")]
    from: Day,
    /// The last day.
    #[schema(value_type = String, example = "2027-01-31")]
    to: Day,
    /// Why it is not all; empty if it is.
    gaps: Vec<String>,
    rows: Vec<UsageLine>,
}

/// What was used by those who have something in common. A consumer in two groups counts in each of them, so that sums over groups
/// may be more than there was.
#[derive(Serialize, ToSchema)]
pub(super) struct UsageLine {
    /// What they have in common, by the names of the question.
    #[serde(flatten)]
    #[schema(value_type = BTreeMap<String, Option<String>>)]
    of: BTreeMap<&'static str, Option<Arc<str>>>,
    requests: u64,
    /// Requests that ended with an error.
    failed: u64,
    /// Tokens, all buckets together.
    tokens: u64,
    /// Tokens by bucket; those with none are left out.
    #[schema(value_type = BTreeMap<String, u64>)]
    usage: BTreeMap<&'static str, u64>,
    /// Money, exact, where prices are known.
    #[schema(value_type = f64)]
    dollars: Number,
}

/// What was used and spent. Days are those of UTC. With Redis it is what all replicas have used.
#[utoipa::path(get, path = "/admin/usage", tag = "usage", params(Question),
    responses((status = 200, body = Usage), (status = 404, body = Refused, description = "No history is kept."), (status = 422, body = Refused)))]
pub(super) async fn list(Shared(context): Shared<Arc<Context>>, question: Result<Asked<Question>, QueryRejection>) -> Result<Json<Usage>, Refusal> {
    let Asked(question) = question.map_err(|e| Refusal::senseless("invalid_query", e.body_text()))?;
    let history = context.state.ledger.history();
    let history = history.ok_or_else(|| Refusal::unknown("no_history", "no history of usage is kept here: it begins with the first consumer or group, or with `usage: { keep: 90d }`"))?;
    let report = history.report(question.query(history.today())?).await.map_err(|e| match e {
        Error::TooMany => Refusal::senseless("too_many_rows", e.to_string()),
        Error::Unreadable(_) => Refusal::unavailable("history_unreadable", e.to_string()),
    })?;
    Ok(Json(report.into()))
}

impl Question {
    fn query(self, today: Day) -> Result<Query, Refusal> {
        let wrong = |message: String| Refusal::senseless("invalid_query", message);
        let day = |name: &str, text: Option<String>| text.map(|text| text.parse::<Day>().map_err(|e| wrong(format!("`{name}`: {e}")))).transpose();
        let (from, to) = (day("from", self.from)?, day("to", self.to)?.unwrap_or(today));
        if self.days.is_some() && from.is_some() {
            return Err(wrong("`days` and `from` are both given; one of them is enough".into()));
        }
        if self.days.is_some_and(|days| !(1..=MOST_DAYS).contains(&days)) {
            return Err(wrong(format!("`days` is a number from 1 to {MOST_DAYS}")));
        }
        let from = from.unwrap_or_else(|| to.before(self.days.unwrap_or(DAYS) - 1));
        if from > to || from < to.before(MOST_DAYS - 1) {
            return Err(wrong(format!("`from` must not be after `to`, nor more than {MOST_DAYS} days before it")));
        }
        let known = || By::ALL.map(By::name).join(", ");
        let mut by = Vec::new();
        for name in self.by.as_deref().unwrap_or("day").split(',').filter(|name| !name.is_empty()) {
            let heading = By::named(name.trim()).ok_or_else(|| wrong(format!("`by`: no {name:?}; known: {}", known())))?;
            if !by.contains(&heading) {
                by.push(heading);
            }
        }
        Ok(Query { from, to, by, consumer: self.consumer.map(Into::into) })
    }
}

impl From<Report> for Usage {
    fn from(report: Report) -> Self {
        Usage { from: report.from, to: report.to, gaps: report.gaps, rows: report.rows.into_iter().map(UsageLine::from).collect() }
    }
}

impl From<Row> for UsageLine {
    fn from(row: Row) -> Self {
        let buckets = row.sums.buckets();
        UsageLine {
            of: row.of.into_iter().map(|(by, text)| (by.name(), text.filter(|text| !text.is_empty()))).collect(),
            requests: row.sums.requests,
            failed: row.sums.failed,
            tokens: buckets.iter().fold(0, |sum, (_, n)| sum.saturating_add(*n)),
            usage: buckets.into_iter().filter(|(_, n)| *n > 0).collect(),
            dollars: serde_json::from_str(&Nanodollars(row.sums.nanodollars).to_string()).unwrap_or_else(|_| 0.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str) -> Result<Query, Refusal> {
        let uri: axum::http::Uri = format!("http://x/admin/usage?{text}").parse().unwrap();
        Asked::<Question>::try_from_uri(&uri).unwrap().0.query("2027-01-31".parse().unwrap())
    }

    #[test]
    fn questions_have_sensible_defaults_and_bounds() {
        let query = asked("").unwrap();
        assert_eq!((query.from.to_string(), query.to.to_string(), query.by), ("2027-01-02".into(), "2027-01-31".into(), vec![By::Day]));
        let query = asked("days=1&by=consumer,model,consumer&consumer=alice").unwrap();
        assert_eq!((query.from, query.by, query.consumer.as_deref()), (query.to, vec![By::Consumer, By::Model], Some("alice")));
        let query = asked("from=2026-12-31&to=2027-01-01&by=").unwrap();
        assert_eq!((query.from.to_string(), query.by.len()), ("2026-12-31".into(), 0));
        for wrong in ["days=0", "days=401", "from=yesterday", "from=2027-02-01", "from=2020-01-01", "days=3&from=2027-01-01", "by=colour"] {
            assert!(asked(wrong).is_err(), "{wrong}");
        }
    }
}
