//! The transcripts of `tests/transcripts/`, in memory: whole, byte by byte, and in other cuts.

use crate::base::clock::TICKS_PER_S;
use crate::command::Switches;
use crate::command::fuzzing::{End, Manner, Rig};

#[path = "../../../tests/common/transcript.rs"]
#[allow(dead_code, reason = "versions and differences are the other runner's business")]
mod format;

use format::packet::{self, HEAD_BYTES, Names};
use format::{Step, matches, options, parse};

/// One file as one conversation.
struct Conversation {
    rig: Rig,
    manner: Manner,
    unsent: Vec<u8>,
    /// Replies that no line of the transcript has matched yet.
    replies: Vec<u8>,
    names: Names,
}

impl Conversation {
    /// The error names the line.
    fn run(text: &str, manner: Manner) -> Result<(), String> {
        let Some(switches) = switches(&options(text)) else { return Ok(()) };
        let rig = Rig::switched(switches);
        let (unsent, replies) = (Vec::new(), Vec::new());
        let mut talk = Conversation { rig, manner, unsent, replies, names: Names::new() };
        for exchange in parse(text)? {
            for (line, step) in &exchange.steps {
                talk.take(step).map_err(|error| format!("{line}: {error}"))?;
            }
            talk.deliver();
            talk.expect_silence()?;
        }
        Ok(())
    }

    fn deliver(&mut self) {
        let unsent = std::mem::take(&mut self.unsent);
        self.replies.extend(self.rig.send(&unsent, self.manner));
    }

    fn take(&mut self, step: &Step) -> Result<(), String> {
        if !matches!(step, Step::Send(_) | Step::SendPacket(_)) {
            self.deliver();
        }
        match step {
            Step::Send(bytes) => {
                self.unsent.extend_from_slice(bytes);
                Ok(())
            }
            Step::Expect(wanted) => self.expect(wanted, b"\r\n", |line| line == wanted),
            Step::Match(pattern) => self.expect(pattern, b"\r\n", |line| matches(pattern, line)),
            Step::MatchBare(pattern) => self.expect(pattern, b"\n", |line| matches(pattern, line)),
            Step::SendPacket(packet) => {
                let bytes = packet.to_send(&self.names).ok_or("a name means nothing yet")?;
                self.unsent.extend(bytes);
                Ok(())
            }
            Step::ExpectPacket(packet) => {
                let got = self.packet();
                match packet.is(&got, &mut self.names) {
                    true => Ok(()),
                    false => Err(format!("wanted {packet:?}, got {}", packet::show(&got))),
                }
            }
            Step::ExpectRows(last) => loop {
                let got = self.packet();
                if last.is(&got, &mut self.names) {
                    return Ok(());
                } else if got.len() <= HEAD_BYTES || got[..2] != [0x81, 0x10] {
                    return Err(format!("wanted rows, got {}", packet::show(&got)));
                }
            },
            Step::Close => {
                self.expect_silence()?;
                if self.rig.end() != End::Closed {
                    return Err("not closed".into());
                }
                self.rig.reconnect();
                Ok(())
            }
            Step::Pass(seconds) => {
                self.rig.pass_ticks(u64::from(*seconds) * TICKS_PER_S);
                self.expect_silence()
            }
        }
    }

    fn expect(
        &mut self,
        wanted: &[u8],
        line_end: &[u8],
        is_it: impl Fn(&[u8]) -> bool,
    ) -> Result<(), String> {
        // A value may hold line ends, so that what is expected decides where the line ends.
        let mut ends =
            (0..self.replies.len()).filter(|at| self.replies[*at..].starts_with(line_end));
        let end = ends.next().unwrap_or(self.replies.len());
        let rest = self.replies.split_off((end + line_end.len()).min(self.replies.len()));
        let line = std::mem::replace(&mut self.replies, rest);
        match is_it(&line[..end]) {
            true => Ok(()),
            false => Err(format!(
                "wanted {:?}, got {:?}",
                String::from_utf8_lossy(wanted),
                String::from_utf8_lossy(&line)
            )),
        }
    }

    /// The next packet, or what there is of one.
    fn packet(&mut self) -> Vec<u8> {
        let head = self.replies.get(..HEAD_BYTES);
        let len = head.map_or(HEAD_BYTES, |head| HEAD_BYTES + packet::body_bytes(head));
        let rest = self.replies.split_off(len.min(self.replies.len()));
        std::mem::replace(&mut self.replies, rest)
    }

    fn expect_silence(&self) -> Result<(), String> {
        match self.replies.is_empty() {
            true => Ok(()),
            false => Err(format!("too much: {:?}", String::from_utf8_lossy(&self.replies))),
        }
    }
}

/// What options mean to this room; `None` where some mean nothing to it.
fn switches(options: &[&str]) -> Option<Switches> {
    let mut switches = Switches::default();
    let mut words = options.iter();
    while let Some(word) = words.next() {
        match *word {
            "-A" => switches.shutdown = true,
            "-C" => switches.cas = false,
            "-F" => switches.flush = false,
            "-W" => switches.watch = false,
            "-X" => switches.dumping = false,
            "-D" => {
                switches.prefix_delimiter = words.next()?.as_bytes()[0];
                switches.detail = true;
            }
            _ => return None,
        }
    }
    Some(switches)
}

#[test]
fn transcripts_hold_in_any_cut() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/transcripts");
    let mut failures = Vec::new();
    let mut files = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ext| ext != "txt") {
            continue;
        }
        files += 1;
        let text = std::fs::read_to_string(&path).unwrap();
        let seeded = (1..=8).map(Manner::Seeded);
        for manner in [Manner::Whole, Manner::Bytewise].into_iter().chain(seeded) {
            if let Err(error) = Conversation::run(&text, manner) {
                failures.push(format!("{}:{error} ({manner:?})", path.display()));
            }
        }
    }
    assert!(files > 12, "only {files} transcripts: the walk is broken");
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

#[test]
fn a_transcript_that_is_wrong_is_noticed() {
    for text in [
        "> version\n< VERSION\n",
        "> version\n! close\n",
        "> get none\n",
        "> get none\n< END\n< END\n",
        "> quit\n< OK\n",
        "> set k 0 0 1\n> x\n< STORED\n@ +1\n> get k\n< END\n",
    ] {
        for manner in [Manner::Whole, Manner::Bytewise] {
            assert!(Conversation::run(text, manner).is_err(), "{text}");
        }
    }
}
