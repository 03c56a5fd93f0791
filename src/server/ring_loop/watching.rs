//! Connections that are told what happens: they are executed when there is something to tell, and
//! not when something comes from them.

use crate::base::slots::SlotId;
use crate::server::service::Service;
use crate::sys::ring::Ring;

use super::RingLoop;

impl<R: Ring, V: Service> RingLoop<R, V> {
    /// Notes a connection that watches from now on.
    pub(super) fn note_watcher(&mut self, id: SlotId) {
        self.watchers.push(id);
        self.make_runnable(id);
    }

    /// Makes those runnable that have something to be told, and room for it.
    pub(super) fn tell_watchers(&mut self) {
        if self.watchers.is_empty() {
            return;
        }
        self.watchers.retain(|id| self.connections.get(*id).is_some());
        for place in 0..self.watchers.len() {
            let id = self.watchers[place];
            if self.is_to_be_told(id) {
                self.make_runnable(id);
            }
        }
    }

    /// True when somebody could be told something at once.
    pub(super) fn has_news(&self) -> bool {
        self.watchers.iter().any(|id| self.is_to_be_told(*id))
    }

    fn is_to_be_told(&self, id: SlotId) -> bool {
        let told = self.connections.get(id).filter(|connection| connection.can_execute());
        told.is_some_and(|connection| self.service.has_news(&connection.session))
    }
}
