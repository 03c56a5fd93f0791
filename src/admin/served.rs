//! The real server behind `Control`: its handle, and what the table tells of itself.

use crate::server::launch::Handle;

use super::Control;

/// A launched server. `figures` must always return the same names in the same order.
pub struct Served<S, F> {
    pub handle: Handle<S>,
    pub figures: F,
}

impl<S, F> Control for Served<S, F>
where
    S: Send,
    F: Fn() -> Vec<(&'static str, u64)> + Send + Sync,
{
    fn drain(&self) {
        self.handle.drain();
    }

    fn has_ended(&self) -> bool {
        self.handle.has_ended()
    }

    fn figures(&self) -> Vec<(&'static str, u64)> {
        (self.figures)()
    }

    fn heartbeats(&self) -> Vec<Option<u64>> {
        self.handle.heartbeats()
    }
}
