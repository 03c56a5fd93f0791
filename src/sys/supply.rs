//! How many receive buffers the kernel should hold.
//!
//! It takes them in turn, so each that it holds comes through the cache: a few for each connection
//! are best for small requests, and far too few when every connection sends much at once. So the
//! supply doubles when the kernel has found none, and goes back slowly when it has found some for a
//! while.

/// Fewest bytes and buffers: enough for a burst on one connection.
const BYTES_MIN: usize = 256 << 10;
const BUFFERS_MIN: u16 = 2;

/// Bytes for each connection.
const CONNECTION_BYTES: usize = 8 << 10;

#[derive(Debug)]
pub(super) struct Supply {
    /// How many buffers there are.
    count: u16,
    buffer_bytes: u32,
    /// How many suit the connections that there are.
    usual: u16,
    wanted: u16,
    /// True when it has grown since the kernel was entered last.
    has_grown: bool,
    /// True when it has grown since the last look.
    is_short: bool,
}

impl Supply {
    pub(super) fn new(count: u16, buffer_bytes: u32) -> Supply {
        let mut this =
            Supply { count, buffer_bytes, usual: 0, wanted: 0, has_grown: false, is_short: false };
        this.resize(0);
        this
    }

    pub(super) fn wanted(&self) -> u16 {
        self.wanted
    }

    /// Takes notice of how many connections there are.
    pub(super) fn resize(&mut self, connections: usize) {
        let bytes = connections.saturating_mul(CONNECTION_BYTES).max(BYTES_MIN);
        let usual = u16::try_from(bytes / self.buffer_bytes as usize).unwrap_or(self.count);
        let usual = usual.clamp(BUFFERS_MIN.min(self.count), self.count);
        // What was grown stays; what is not needed any more goes at once.
        self.wanted = if self.wanted > self.usual { self.wanted.max(usual) } else { usual };
        self.usual = usual;
    }

    /// Takes notice that the kernel has found no buffer. Many connections may find the same.
    pub(super) fn grow(&mut self) {
        if !std::mem::replace(&mut self.has_grown, true) {
            self.wanted = self.wanted.saturating_mul(2).min(self.count);
        }
        self.is_short = true;
    }

    /// Takes notice that the kernel is about to get what there is.
    pub(super) fn handed_over(&mut self) {
        self.has_grown = false;
    }

    /// Looks, at every tick of the ring, whether fewer will do.
    pub(super) fn look(&mut self) {
        if !std::mem::replace(&mut self.is_short, false) {
            self.wanted = (self.wanted - self.wanted / 8).max(self.usual);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_suits_the_connections() {
        let mut supply = Supply::new(1024, 4096);
        assert_eq!(supply.wanted(), 64);
        for (connections, wanted) in [(10, 64), (100, 200), (100_000, 1024), (50, 100), (0, 64)] {
            supply.resize(connections);
            assert_eq!(supply.wanted(), wanted, "{connections} connections");
        }
        assert_eq!(Supply::new(1, 4096).wanted(), 1);
        assert_eq!(Supply::new(16, 1 << 20).wanted(), BUFFERS_MIN);
    }

    #[test]
    fn it_grows_once_an_entry_and_goes_back_when_that_is_long_ago() {
        let mut supply = Supply::new(1024, 4096);
        supply.resize(50);
        (0..50).for_each(|_| supply.grow());
        assert_eq!(supply.wanted(), 200);
        supply.look();
        assert_eq!(supply.wanted(), 200, "it was short a moment ago");
        for _ in 0..9 {
            supply.handed_over();
            supply.grow();
        }
        assert_eq!(supply.wanted(), 1024);
        supply.resize(51);
        assert_eq!(supply.wanted(), 1024, "who comes or goes changes nothing in it");
        supply.look();
        supply.look();
        assert_eq!(supply.wanted(), 1024 - 128);
        (0..100).for_each(|_| supply.look());
        assert_eq!(supply.wanted(), 102);
    }
}
