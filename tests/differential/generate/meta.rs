//! Requests of the meta commands.

use super::{Dialect, Effect, Request, Source, WITH_SPACE};

/// Flags of all commands, with tokens that are fine. `*` stands for the cas of the key, `E#` for
/// one of the peer's own.
const ALL: &[&str] = &[
    "c", "f", "h", "k", "q", "s", "t", "u", "v", "I", "x", "C*", "D3", "E#", "F9", "J7", "L1",
    "N1000000", "O123", "P1", "R500", "T1000000", "MI", "MS",
];

/// Words that are no flags, or have no proper token.
const WRONG: &[&str] = &[
    "!",
    "~",
    "z",
    "A",
    "Mz",
    "M",
    "Tx",
    "T",
    "Nx",
    "Rx",
    "D-1",
    "Dx",
    "C-1",
    "Cx",
    "Jx",
    "F-1",
    "Fx",
    "F4294967296",
    "v v",
    "k k",
    "O012345678901234567890123456789012",
    "vv",
    "D1x",
];

/// Those of them that older originals look at.
const WRONG_SINCE_LONG: &[&str] = &["!", "z", "Mz", "Tx", "v v", "k k"];

impl Source {
    pub(super) fn meta(&mut self) -> Request {
        match self.below(100) {
            0..=34 => self.meta_command("mg"),
            35..=61 => self.meta_set(),
            62..=73 => self.meta_command("md"),
            74..=92 => self.meta_command("ma"),
            // Older ones tell exptimes of numbers wrongly.
            93..=96 if self.is_new() => self.meta_debug(),
            _ => self.meta_junk(),
        }
    }

    /// A verb and a key; whether it is in base64.
    fn meta_start(&mut self, verb: &str) -> (Request, bool) {
        let is_coded = self.happens(8);
        let (mut plain, mut coded) = self.key();
        if is_coded && (self.happens(3) || coded.is_empty()) {
            (plain, coded) = super::KEYS[6];
        }
        if verb == "ma" && !self.happens(3) {
            (plain, coded) = super::KEYS[3];
        }
        let mut request = Request::about(Dialect::Meta, plain);
        request.effect = match verb {
            "mg" => Effect::Reads,
            "ma" => Effect::Counts,
            _ => Effect::Other,
        };
        request.push(format!("{verb} "));
        request.push(if is_coded { coded } else { plain });
        assert!(is_coded || plain != WITH_SPACE);
        (request, is_coded)
    }

    fn meta_command(&mut self, verb: &str) -> Request {
        let (mut request, is_coded) = self.meta_start(verb);
        self.flags(&mut request, verb, is_coded);
        request.push("\r\n");
        request
    }

    fn meta_set(&mut self) -> Request {
        let (mut request, is_coded) = self.meta_start("ms");
        let key = request.keys[0].clone();
        let value = self.value(&key);
        let bytes = match self.below(40) {
            // What is no length may have its value taken for requests.
            0 if value.len() < 200 => self.one_of(&["x", "-1", "", "2x"]).to_owned(),
            1 => value.len().saturating_sub(2).to_string(),
            _ => value.len().to_string(),
        };
        request.push(format!(" {bytes}"));
        self.flags(&mut request, "ms", is_coded);
        request.push("\r\n");
        request.push(value);
        request.push("\r\n");
        request
    }

    fn meta_debug(&mut self) -> Request {
        let (plain, _) = self.key();
        let mut request = Request::about(Dialect::Meta, plain);
        request.push("me ");
        request.push(plain);
        request.push("\r\n");
        request
    }

    fn meta_junk(&mut self) -> Request {
        let mut request = Request::new(Dialect::Meta);
        let line = self.one_of(&[
            "mg",
            "ms",
            "md",
            "ma",
            "me",
            "mx a",
            "ms a",
            "ms a S2",
            "mg  a v",
            "MG a v",
            "m",
            "mnx",
            "md ",
            "ma  number",
            "mg a  v  k",
            "mg a v ",
            "me a b c",
        ]);
        request.keys.extend([b"number".to_vec(), b"a".to_vec()]);
        match self.below(4) {
            0 => {
                request.push(self.one_of(&["mg ", "md ", "ma ", "me "]));
                request.push([b'k'; 251]);
                request.push(self.one_of(&["", " v", " k q"]));
            }
            1 => {
                request.push(self.one_of(&["mg", "md", "ma"]));
                request.push(self.one_of(&[" a b", " abc b", " Zm9 b", " ==== b"]));
            }
            _ if line.starts_with("ma ") => {
                request.keys.truncate(1);
                request.effect = Effect::Counts;
                request.push(line);
            }
            _ => request.push(line),
        }
        request.push("\r\n");
        request
    }

    /// Flags in any order, most of them of this command.
    fn flags(&mut self, request: &mut Request, verb: &str, is_coded: bool) {
        let mut flags: Vec<&str> = if is_coded { vec!["b"] } else { Vec::new() };
        let own = self.own_flags(verb);
        for _ in 0..self.below(6) {
            let is_own = !self.is_new() || !self.happens(10);
            let flag = if is_own { self.one_of(&own) } else { self.one_of(ALL) };
            // Repeated ones are among those that are wrong.
            if !flags.iter().any(|other| other.as_bytes()[0] == flag.as_bytes()[0]) {
                flags.push(flag);
            }
        }
        if self.happens(25) {
            flags.push(self.one_of(if self.is_new() { WRONG } else { WRONG_SINCE_LONG }));
        }
        for place in (1..flags.len()).rev() {
            flags.swap(place, self.below(place + 1));
        }
        let key = request.keys[0].clone();
        for flag in flags {
            match flag {
                "C*" => {
                    request.push(" C");
                    let choice = self.choice();
                    request.push_cas(&key, choice);
                }
                "E#" if self.chooses_cas => {
                    let cas = 1_000_000_000_000_000 + self.below(1_000_000);
                    request.push(format!(" E{cas}"));
                }
                "E#" => {}
                _ => request.push(format!(" {flag}")),
            }
        }
    }

    fn own_flags(&mut self, verb: &str) -> Vec<&'static str> {
        let exptime = self.one_of(&["T1000000", "T0", "T-1", "T2592000"]);
        let mut flags = match verb {
            "mg" => vec![
                "v", "v", "f", "c", "c", "k", "s", "q", "O123", "h", "t", "l", "u", "N1000000",
                "R500", "R1500000", "R0", exptime,
            ],
            "ms" => vec![
                "F5",
                "F4294967295",
                exptime,
                "c",
                "k",
                "q",
                "Oabc",
                "I",
                "C*",
                "ME",
                "MA",
                "MP",
                "MR",
                "MS",
                "Me",
                "Ma",
            ],
            "md" => vec!["q", "O9", "k", "I", "C*", exptime],
            _ => vec![
                "N1000000",
                "J7",
                "D3",
                "D18446744073709551615",
                exptime,
                "q",
                "v",
                "c",
                "t",
                "k",
                "Ox",
                "C*",
                "MI",
                "MD",
                "M+",
                "M-",
            ],
        };
        if self.is_new() {
            flags.extend_from_slice(match verb {
                "mg" => &["E#", "C*"],
                "ms" => &["E#", "s", "N1000000", "b"][..3],
                "md" => &["E#", "x", "F6"],
                _ => &["E#"],
            });
        }
        flags
    }
}
