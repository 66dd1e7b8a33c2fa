//! Work in the background that ends with what it works for.

use std::future::Future;

/// A task that is ended when this is dropped.
pub struct Background(tokio::task::JoinHandle<()>);

impl Background {
    /// Starts it, where there is a runtime to run it.
    pub fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Option<Self> {
        let runtime = tokio::runtime::Handle::try_current().ok()?;
        Some(Background(runtime.spawn(work)))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.0.abort();
    }
}
