//! The room against transcripts, a model, and itself in other cuts.

mod cuts;
mod login;
mod meta;
mod model;
mod oracle;
mod transcripts;
mod verdicts;

use super::fuzzing::{Manner, Rig};

/// Sends text whose line feeds stand for line ends, and returns the replies likewise.
fn talk(rig: &mut Rig, text: &str) -> String {
    let replies = rig.send(text.replace('\n', "\r\n").as_bytes(), Manner::Whole);
    String::from_utf8(replies).unwrap().replace("\r\n", "\n")
}
