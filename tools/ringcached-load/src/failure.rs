//! Ways to fail, each with its counter.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    NotStored,
    /// The server does not know the command.
    Error,
    ClientError,
    ServerError,
    /// Key, length or content of a value is wrong.
    Content,
    /// The bytes are no reply to the request; the connection is given up.
    Framing,
    /// The connection was closed or failed.
    Closed,
    /// No reply came in time.
    Unanswered,
}

/// Failures by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failures {
    pub not_stored: u64,
    pub error: u64,
    pub client_error: u64,
    pub server_error: u64,
    pub content: u64,
    pub framing: u64,
    pub closed: u64,
    pub unanswered: u64,
}

impl Failures {
    pub fn add(&mut self, failure: Failure, count: u64) {
        *match failure {
            Failure::NotStored => &mut self.not_stored,
            Failure::Error => &mut self.error,
            Failure::ClientError => &mut self.client_error,
            Failure::ServerError => &mut self.server_error,
            Failure::Content => &mut self.content,
            Failure::Framing => &mut self.framing,
            Failure::Closed => &mut self.closed,
            Failure::Unanswered => &mut self.unanswered,
        } += count;
    }

    /// Adds those of another run beside this one.
    pub fn merge(&mut self, other: Failures) {
        self.not_stored += other.not_stored;
        self.error += other.error;
        self.client_error += other.client_error;
        self.server_error += other.server_error;
        self.content += other.content;
        self.framing += other.framing;
        self.closed += other.closed;
        self.unanswered += other.unanswered;
    }

    pub fn rows(&self) -> [(&'static str, u64); 8] {
        [
            ("NOT_STORED", self.not_stored),
            ("ERROR (unknown command)", self.error),
            ("CLIENT_ERROR", self.client_error),
            ("SERVER_ERROR", self.server_error),
            ("wrong content", self.content),
            ("wrong framing", self.framing),
            ("connection closed", self.closed),
            ("unanswered", self.unanswered),
        ]
    }

    pub fn total(&self) -> u64 {
        self.rows().iter().map(|(_, count)| count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_of_two_runs_add_up_kind_by_kind() {
        let kinds = [
            Failure::NotStored,
            Failure::Error,
            Failure::ClientError,
            Failure::ServerError,
            Failure::Content,
            Failure::Framing,
            Failure::Closed,
            Failure::Unanswered,
        ];
        let (mut one, mut two) = (Failures::default(), Failures::default());
        for (count, kind) in (1..).zip(kinds) {
            one.add(kind, count);
            two.add(kind, count * 10);
        }
        one.merge(two);
        let counts = one.rows().map(|(_, count)| count);
        assert_eq!(counts, [11, 22, 33, 44, 55, 66, 77, 88]);
        assert_eq!(one.total(), 396);
    }
}
