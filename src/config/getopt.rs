//! A command line as getopt_long(3) reads it, which is how memcached reads its own.
//!
//! Unit files, scripts and container images rely on more of that than on what is written down:
//! letters in one word (`-vvu nobody`), values at once or in the next word, white space before a
//! value (`["-m 64"]` in a list of arguments is one word), long names cut short
//! (`--memory-l=64`), words that belong to no option and are passed over, numbers that end where
//! their digits do. What comes out says the same in one form, `--name=value`; whether it makes
//! sense is not asked here.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use clap::{ArgAction, Command};

/// Letters of options whose values are numbers: memcached reads their digits with atoi(3).
const NUMBERS: &str = "pUmctRbnN";

/// What is known of an option.
#[derive(Clone, Debug)]
struct Known {
    letter: Option<char>,
    names: Vec<String>,
    takes_value: bool,
    /// memcached has it, too: its name may be cut short as if it were alone.
    is_memcacheds: bool,
}

/// The words of a command line in one form.
#[derive(Debug, Default)]
pub(super) struct Words {
    pub(super) words: Vec<OsString>,
    /// What was passed over, or not read to its end: to be printed.
    pub(super) notes: Vec<String>,
}

impl Words {
    /// Reads words by the options of `command`; those under `heading` are not memcached's. A word
    /// that is wrong is handed on as it is, to be refused.
    pub(super) fn read(
        words: impl IntoIterator<Item = OsString>,
        command: &Command,
        heading: &str,
    ) -> Words {
        let table = Table::of(command, heading);
        let mut read = Words::default();
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            match word.as_bytes() {
                b"--" => break,
                [b'-', b'-', ..] => read.long(&table, &word, &mut words),
                [b'-', _, ..] => read.cluster(&table, &word, &mut words),
                _ => read.pass_over(&word),
            }
        }
        words.for_each(|word| read.pass_over(&word));
        read
    }

    fn pass_over(&mut self, word: &OsStr) {
        let word = word.to_string_lossy();
        self.notes.push(format!("{word:?} belongs to no option and is passed over"));
    }

    /// `--name`, `--name=value` or `--name value`.
    fn long(&mut self, table: &Table, word: &OsStr, rest: &mut impl Iterator<Item = OsString>) {
        let bytes = &word.as_bytes()[2..];
        let (name, value) = match bytes.iter().position(|byte| *byte == b'=') {
            Some(at) => (&bytes[..at], Some(OsStr::from_bytes(&bytes[at + 1..]).to_owned())),
            None => (bytes, None),
        };
        let name = String::from_utf8_lossy(name);
        let Some(known) = table.named(&name) else { return self.words.push(word.to_owned()) };
        match (known.takes_value, value) {
            (true, Some(value)) => self.option(known, Some(&value)),
            (true, None) => match rest.next() {
                Some(value) => self.option(known, Some(&value)),
                None => self.words.push(word.to_owned()),
            },
            (false, None) => self.option(known, None),
            // memcached takes a value for this one, and does nothing with it.
            (false, Some(_)) if known.letter == Some('v') => self.option(known, None),
            (false, Some(_)) => self.words.push(word.to_owned()),
        }
    }

    /// Letters, of which the last may have a value.
    fn cluster(&mut self, table: &Table, word: &OsStr, rest: &mut impl Iterator<Item = OsString>) {
        let letters = &word.as_bytes()[1..];
        for (at, letter) in letters.iter().enumerate() {
            let Some(known) = table.lettered(char::from(*letter)) else {
                let unknown = OsStr::from_bytes(&letters[at..]).to_string_lossy();
                return self.words.push(format!("-{unknown}").into());
            };
            if !known.takes_value {
                self.option(known, None);
                continue;
            }
            let after = OsStr::from_bytes(&letters[at + 1..]);
            let value = if after.is_empty() { rest.next() } else { Some(after.to_owned()) };
            return match value {
                Some(value) => self.option(known, Some(&value)),
                None => self.words.push(format!("-{}", char::from(*letter)).into()),
            };
        }
    }

    fn option(&mut self, known: &Known, value: Option<&OsStr>) {
        let name = &known.names[0];
        let Some(value) = value else { return self.words.push(format!("--{name}").into()) };
        let mut value = value.as_bytes().trim_ascii_start();
        if known.letter.is_some_and(|letter| NUMBERS.contains(letter))
            && let Some(digits) = digits(value)
        {
            let (whole, read) = (String::from_utf8_lossy(value), String::from_utf8_lossy(digits));
            self.notes.push(format!("--{name}={whole} is read as {read}, as memcached does"));
            value = digits;
        }
        let word = [format!("--{name}=").as_bytes(), value].concat();
        self.words.push(OsString::from_vec(word));
    }
}

/// The number at the start of a value, if there is one and something follows it.
fn digits(value: &[u8]) -> Option<&[u8]> {
    let sign = usize::from(value.starts_with(b"-") || value.starts_with(b"+"));
    let count = value[sign..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    (count > 0 && sign + count < value.len()).then(|| &value[..sign + count])
}

struct Table {
    options: Vec<Known>,
}

impl Table {
    fn of(command: &Command, heading: &str) -> Table {
        let known = |arg: &clap::Arg| {
            let aliases = arg.get_all_aliases().unwrap_or_default();
            let names = arg.get_long().into_iter().chain(aliases).map(String::from).collect();
            let takes_value = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
            let is_memcacheds = arg.get_help_heading() != Some(heading);
            Known { letter: arg.get_short(), names, takes_value, is_memcacheds }
        };
        Table { options: command.get_arguments().map(known).collect() }
    }

    fn lettered(&self, letter: char) -> Option<&Known> {
        self.options.iter().find(|known| known.letter == Some(letter))
    }

    /// By its whole name, or by the start of one that no other name has: of memcached's names
    /// first, so that ours make none of them ambiguous.
    fn named(&self, name: &str) -> Option<&Known> {
        let is_it = |known: &&Known| known.names.iter().any(|each| each == name);
        if let Some(known) = self.options.iter().find(is_it) {
            return Some(known);
        }
        let start_of = |known: &&Known| known.names.iter().any(|each| each.starts_with(name));
        for is_memcacheds in [true, false] {
            let group = self.options.iter().filter(|known| known.is_memcacheds == is_memcacheds);
            let mut found = group.filter(start_of);
            match (found.next(), found.next()) {
                (Some(known), None) => return Some(known),
                (Some(_), Some(_)) => return None,
                (None, _) => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::options::{OWN, Options};
    use super::*;
    use clap::CommandFactory;

    fn read(words: &[&str]) -> (String, usize) {
        let words = words.iter().map(OsString::from);
        let Words { words, notes } = Words::read(words, &Options::command(), OWN);
        let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
        (words.join(" "), notes.len())
    }

    #[test]
    fn one_form_for_every_way_to_say_it() {
        for (words, wanted) in [
            (&["-m64"][..], "--memory-limit=64"),
            (&["-m", "64"], "--memory-limit=64"),
            (&["-m 64"], "--memory-limit=64"),
            (&["-m", " 64"], "--memory-limit=64"),
            (&["--memory-limit", "64"], "--memory-limit=64"),
            (&["--memory-limit=64"], "--memory-limit=64"),
            (&["--memory-l=64"], "--memory-limit=64"),
            (&["--max-r", "5"], "--max-reqs-per-event=5"),
            (
                &["-vvkMu", "nobody"],
                "--verbose --verbose --lock-memory --disable-evictions --user=nobody",
            ),
            (&["-vvunobody", "-A"], "--verbose --verbose --user=nobody --enable-shutdown"),
            (&["--verbose=2"], "--verbose"),
            (&["-p", "-1", "-s", "-x"], "--port=-1 --unix-socket=-x"),
            (&["--pid", "f"], "--pidfile=f"),
            (&["--pi=never"], "--pidfile=never"),
            (&["--pin=never"], "--pin=never"),
            (&["--dis", "-x"], "--dis -x"),
            (&["--disp=inline"], "--dispatch=inline"),
            (&["--napi_ids=1", "--napi-ids", "2"], "--napi-ids=1 --napi-ids=2"),
            (&["-l", ""], "--listen="),
        ] {
            assert_eq!(read(words), (wanted.to_owned(), 0), "{words:?}");
        }
    }

    #[test]
    fn what_is_passed_over_is_noted() {
        for (words, wanted, notes) in [
            (&["memcached", "-m", "64"][..], "--memory-limit=64", 1),
            (&["-k", "-", "--", "-m", "64"], "--lock-memory", 3),
            (&["-m", "64m", "-c1024x"], "--memory-limit=64 --conn-limit=1024", 2),
            (&["-p", "-1x", "-t", "+3."], "--port=-1 --threads=+3", 2),
            (&["-I", "1m", "-m", "m"], "--max-item-size=1m --memory-limit=m", 0),
        ] {
            assert_eq!(read(words), (wanted.to_owned(), notes), "{words:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_handed_on() {
        for (words, wanted) in [
            (&["--nothing=5"][..], "--nothing=5"),
            (&["--nothing", "--daemon=5"], "--nothing --daemon=5"),
            (&["-vQ5"], "--verbose -Q5"),
            (&["-m"], "-m"),
            (&["--memory-limit"], "--memory-limit"),
            (&["--ver"], "--ver"),
        ] {
            assert_eq!(read(words).0, wanted, "{words:?}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_kept() {
        let word = OsString::from_vec(b"-s/tmp/\xff".to_vec());
        let Words { words, .. } = Words::read([word], &Options::command(), OWN);
        assert_eq!(words[0].as_bytes(), b"--unix-socket=/tmp/\xff");
    }
}
