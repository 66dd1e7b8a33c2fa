//! Values that end: kept in a cell that requests read without waiting, fetched once for all who wait, renewed ahead of their
//! end.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::CredentialError;
use super::outside::{Errand, Outside};

/// How long ahead of its end a value is renewed. The metadata servers of the clouds have a new one by then, not earlier.
const AHEAD: Duration = Duration::from_secs(5 * 60);
/// A value of which no end is known is renewed after this.
const ENDLESS: Duration = Duration::from_secs(60 * 60);
/// Sleeps are no longer than this, so that a clock that was set is noticed.
const LONGEST_SLEEP: Duration = Duration::from_secs(5 * 60);
/// After a failure requests get the same error for so long, so that a token server in trouble is not stormed.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest wait between two tries in the background.
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

/// A value and its end.
pub(super) struct Lease<T> {
    pub(super) value: T,
    pub(super) ends: Option<SystemTime>,
}

struct Held<T> {
    lease: Lease<T>,
    /// When it should be renewed.
    due: SystemTime,
}

type Fetch<T> = Box<dyn Fn(Errand) -> Pin<Box<dyn Future<Output = Result<Lease<T>, CredentialError>> + Send>> + Send + Sync>;

/// The cell.
pub(super) struct Cell<T>(Arc<Inner<T>>);

struct Inner<T> {
    held: ArcSwapOption<Held<T>>,
    /// Held during a fetch; inside is when and how the last one failed, if it did.
    flight: Mutex<Option<(Instant, CredentialError)>>,
    fetch: Fetch<T>,
    outside: Outside,
}

impl<T: Clone + Send + Sync + 'static> Cell<T> {
    /// An empty cell that is filled by `fetch`.
    pub(super) fn new<F, R>(outside: Outside, fetch: F) -> Self
    where
        F: Fn(Errand) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Lease<T>, CredentialError>> + Send + 'static,
    {
        Cell(Arc::new(Inner { held: ArcSwapOption::empty(), flight: Mutex::new(None), fetch: Box::new(move |errand| Box::pin(fetch(errand))), outside }))
    }

    /// The value, if there is one that is valid now.
    pub(super) fn now(&self) -> Option<T> {
        self.0.valid()
    }

    /// The value, fetched if there is none. The fetch runs on even if its first asker goes away: others may wait for it.
    pub(super) async fn get(&self) -> Result<T, CredentialError> {
        let (inner, asked) = (self.0.clone(), Instant::now());
        match tokio::spawn(async move { inner.fill(asked, false).await }).await {
            Ok(result) => result,
            Err(_) => Err(CredentialError::Fetch("the fetch of a credential was cut off".to_owned())),
        }
    }

    /// Renews the value ahead of its end, for ever. A value that cannot be renewed stays in use while it is valid.
    pub(super) async fn keep_fresh(&self) {
        let mut failures = 0;
        loop {
            let wait = self.0.held.load().as_ref().and_then(|held| held.due.duration_since(self.0.outside.clock.now()).ok());
            if let Some(wait) = wait.filter(|w| !w.is_zero()) {
                tokio::time::sleep(wait.min(LONGEST_SLEEP)).await;
                continue;
            }
            match self.0.fill(Instant::now(), true).await {
                Ok(_) => failures = 0,
                Err(error) => {
                    failures += 1;
                    tracing::warn!(%error, failures, still_valid = self.0.valid().is_some(), "a credential could not be renewed");
                    tokio::time::sleep(backoff(failures)).await;
                }
            }
        }
    }
}

impl<T: Clone> Inner<T> {
    fn valid(&self) -> Option<T> {
        let held = self.held.load();
        let lease = &held.as_ref()?.lease;
        lease.ends.is_none_or(|ends| self.outside.clock.now() < ends).then(|| lease.value.clone())
    }

    /// Waits for the fetch under way or makes one. `ahead` asks for a new value although the old one is still valid.
    async fn fill(&self, asked: Instant, ahead: bool) -> Result<T, CredentialError> {
        let mut failed = self.flight.lock().await;
        let wanted = !ahead || self.held.load().as_ref().is_some_and(|held| held.due > self.outside.clock.now());
        if let Some(value) = self.valid().filter(|_| wanted) {
            return Ok(value);
        }
        if let Some((at, error)) = &*failed
            && (*at >= asked || (!ahead && at.elapsed() < PAUSE))
        {
            return Err(error.clone());
        }
        let begun = self.outside.clock.now();
        let fetched = (self.fetch)(Errand::begin(self.outside.clone())).await.and_then(|lease| match lease.ends {
            Some(ends) if ends <= self.outside.clock.now() => {
                Err(CredentialError::Fetch(format!("a credential was handed out that had ended already ({}); check this machine's clock", Ago(ends, begun))))
            }
            _ => Ok(lease),
        });
        match fetched {
            Ok(lease) => {
                *failed = None;
                let value = lease.value.clone();
                self.held.store(Some(Arc::new(Held { due: due(begun, lease.ends), lease })));
                Ok(value)
            }
            Err(error) => {
                *failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }
}

/// When to renew: five minutes ahead of the end, or at half of a short life; a little earlier by chance, so that many gateways do
/// not ask in the same second.
fn due(now: SystemTime, ends: Option<SystemTime>) -> SystemTime {
    let left = ends.map_or(ENDLESS, |ends| ends.duration_since(now).unwrap_or_default());
    let ahead = AHEAD.min(left / 2);
    let jitter = (left / 10).min(Duration::from_secs(60)).mul_f64(fastrand::f64());
    now + left.saturating_sub(ahead + jitter).max(Duration::from_millis(500))
}

fn backoff(failures: u32) -> Duration {
    let full = Duration::from_secs(1 << failures.saturating_sub(1).min(6)).min(LONGEST_BACKOFF);
    full.mul_f64(0.75 + fastrand::f64() / 4.0)
}

/// How long ago something was.
struct Ago(SystemTime, SystemTime);

impl fmt::Display for Ago {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} s ago", self.1.duration_since(self.0).unwrap_or_default().as_secs())
    }
}

/// Reads `2026-01-02T03:04:05Z`, with or without a fraction (which is dropped).
pub(super) fn rfc3339(text: &str) -> Option<SystemTime> {
    let (date, time) = text.strip_suffix(['Z', 'z']).or_else(|| text.strip_suffix("+00:00"))?.split_once(['T', 't'])?;
    let time = time.split('.').next()?;
    let three = |text: &str, by: char| {
        let mut parts = text.split(by).map(|part| part.parse::<u32>().ok());
        let found = (parts.next()??, parts.next()??, parts.next()??);
        parts.next().is_none().then_some(found)
    };
    let ((year, month, day), (hour, minute, second)) = (three(date, '-')?, three(time, ':')?);
    if !(1970..10000).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Days since 1970 by the count of years that begin in March, so that the leap day comes last.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = u64::from(y) * 365 + u64::from(y / 4 - y / 100 + y / 400) + u64::from((153 * m + 2) / 5 + day - 1) - 719_468;
    Some(UNIX_EPOCH + Duration::from_secs(days * 86_400 + u64::from(hour * 3600 + minute * 60 + second)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        let at = |text| rfc3339(text).map(|t| t.duration_since(UNIX_EPOCH).unwrap().as_secs());
        assert_eq!(at("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(at("2000-02-29T12:00:00Z"), Some(951_825_600));
        assert_eq!(at("2026-03-01T00:00:00.123Z"), Some(1_772_323_200));
        assert_eq!(at("2024-12-31T23:59:59+00:00"), Some(1_735_689_599));
        for wrong in ["", "2026-03-01", "2026-13-01T00:00:00Z", "2026-03-01T00:00Z", "2026-03-01T00:00:00", "x-03-01T00:00:00Z", "2026-03-01T00:00:00+02:00"] {
            assert_eq!(at(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn renewal_is_due_ahead_of_the_end() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        for _ in 0..100 {
            let at = |secs| due(now, Some(now + Duration::from_secs(secs))).duration_since(now).unwrap().as_secs_f64();
            assert!((3600.0 - 360.0..=3600.0 - 300.0).contains(&at(3600)), "an hour");
            assert!((40.0..=50.0).contains(&at(100)), "a short life");
            assert!(at(0) >= 0.5, "never at once");
            assert!(due(now, None) > now + Duration::from_secs(3000));
            assert!(backoff(1) <= Duration::from_secs(1) && backoff(40) <= LONGEST_BACKOFF && backoff(40) >= LONGEST_BACKOFF.mul_f64(0.7));
        }
    }
}
