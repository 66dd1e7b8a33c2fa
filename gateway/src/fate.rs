//! What becomes of a request when its client leaves. hyper drops the work then; where a model's answers are to be read to
//! their end all the same (`on_disconnect: drain`), the work is a task of its own, and this decides whether it ends too.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tokio::task::{AbortHandle, JoinError};

/// Shared by a request's work and by who waits for it.
#[derive(Debug, Default)]
pub struct Fate {
    goes_on: AtomicBool,
    left: AtomicBool,
}

impl Fate {
    /// The work goes on without its client.
    pub fn go_on(&self) {
        self.goes_on.store(true, Relaxed);
    }

    /// Whether the client has left.
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.left.load(Relaxed)
    }
}

/// Waits for work that may outlive the wait.
///
/// # Errors
/// When the work panicked.
pub async fn outlive<T: Send + 'static>(fate: Arc<Fate>, work: impl Future<Output = T> + Send + 'static) -> Result<T, JoinError> {
    let task = tokio::spawn(work);
    let mut wait = Wait { fate, task: Some(task.abort_handle()) };
    let result = task.await;
    wait.task = None;
    result
}

/// The wait. Dropped before its end, the client has left.
struct Wait {
    fate: Arc<Fate>,
    task: Option<AbortHandle>,
}

impl Drop for Wait {
    fn drop(&mut self) {
        let Some(task) = &self.task else { return };
        self.fate.left.store(true, Relaxed);
        if !self.fate.goes_on.load(Relaxed) {
            task.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn work_ends_with_its_client_unless_it_goes_on() {
        for goes_on in [false, true] {
            let fate = Arc::new(Fate::default());
            let (done, finished) = tokio::sync::oneshot::channel();
            let (started, begun) = tokio::sync::oneshot::channel();
            let inner = fate.clone();
            let wait = tokio::spawn(outlive(fate.clone(), async move {
                if goes_on {
                    inner.go_on();
                }
                let _ = started.send(());
                tokio::time::sleep(Duration::from_millis(20)).await;
                let _ = done.send(inner.has_left());
            }));
            begun.await.unwrap();
            wait.abort();
            assert_eq!(finished.await.ok(), goes_on.then_some(true));
        }
    }

    #[tokio::test]
    async fn work_that_is_waited_for_gives_its_result() {
        let fate = Arc::new(Fate::default());
        assert_eq!(outlive(fate.clone(), async { 7 }).await.unwrap(), 7);
        assert!(!fate.has_left());
    }
}
