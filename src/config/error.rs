//! Why the server did not start.

use std::fmt;

/// A refusal to start: what was being done, to what, the cause, and what to do about it.
///
/// There is one kind on purpose. Nobody recovers from it; somebody reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartError {
    /// A verb and its object, after "cannot": "listen on".
    pub doing: &'static str,
    /// What it was done to: "0.0.0.0:11211".
    pub subject: String,
    pub cause: String,
    /// A sentence that tells the reader what to change.
    pub remedy: String,
}

impl StartError {
    pub fn new(
        doing: &'static str,
        subject: impl fmt::Display,
        cause: impl fmt::Display,
        remedy: impl Into<String>,
    ) -> StartError {
        StartError {
            doing,
            subject: subject.to_string(),
            cause: cause.to_string(),
            remedy: remedy.into(),
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let StartError { doing, subject, cause, remedy } = self;
        let remedy = remedy.replace('\n', "\n  ");
        write!(f, "cannot {doing} {subject}: {cause}\n  {remedy}")
    }
}

impl std::error::Error for StartError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_as_a_sentence_and_an_advice() {
        let remedy = "Use a port >1023.\nOr be root.";
        let error = StartError::new("listen on", "[::]:80", "Permission denied", remedy);
        let text =
            "cannot listen on [::]:80: Permission denied\n  Use a port >1023.\n  Or be root.";
        assert_eq!(error.to_string(), text);
    }
}
