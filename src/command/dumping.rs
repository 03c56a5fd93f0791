//! `lru_crawler metadump` and `mgdump`: every key, as the walk through the table comes to it; and
//! `stats cachedump`: those of one class, as many as are asked for and fit a reply of 2 MiB.
//!
//! A dump is long work: where there are workers, they do it, as many keys at a time as a batch may
//! have requests. A peer that does not read stops its own dump, and nobody else's request: what has
//! been written waits, and the walk stands where it is.

use super::batch::{Batch, Step};
use super::costs::Work;
use super::session::{Dump, Left, State};
use super::{Switches, Verdict};
use crate::base::clock::Now;
use crate::base::output::Output;
use crate::protocol::memcache::{ClassDump, DumpForm, ProtocolError, reply};
use crate::store::{Cursor, Item, Participant, Visitor};

/// A set of size classes, by their numbers.
pub(super) type Classes = u128;

/// Bytes of the list of a class, its end included. memcached lists no more, either.
const CLASS_DUMP_BYTES_MAX: u64 = 2 << 20;

/// Which classes a dump, or a crawl, is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Selection {
    /// All of them: `all`.
    All,
    /// All of them, in the order of the index: `hash`.
    Hash,
    Some(Classes),
    None,
}

impl Selection {
    /// Reads numbers of classes, with commas between them. The error is a number that no class has.
    pub(super) fn parse(text: &[u8], class_count: u8) -> Result<Selection, ()> {
        match text {
            b"all" => return Ok(Selection::All),
            b"hash" => return Ok(Selection::Hash),
            _ => {}
        }
        let mut classes: Classes = 0;
        for word in text.split(|byte| *byte == b',').filter(|word| !word.is_empty()) {
            let class = std::str::from_utf8(word).ok().and_then(|word| word.parse().ok());
            let class = class.filter(|class: &u8| (1..=class_count).contains(class)).ok_or(())?;
            classes |= 1 << (class - 1);
        }
        Ok(if classes == 0 { Selection::None } else { Selection::Some(classes) })
    }

    fn classes(self) -> Classes {
        match self {
            Selection::All | Selection::Hash => Classes::MAX,
            Selection::Some(classes) => classes,
            Selection::None => 0,
        }
    }
}

/// What who asks for one class after the other is shown under this number: every key once. There
/// may be more classes than anybody asks for, so the last number stands for all behind it, too.
fn classes_from(class: u32) -> Classes {
    match class {
        0 => 0,
        1..ClassDump::CLASS_MAX => 1 << (class - 1),
        ClassDump::CLASS_MAX.. => Classes::MAX << (ClassDump::CLASS_MAX - 1),
    }
}

fn not_allowed(form: DumpForm) -> &'static [u8] {
    match form {
        DumpForm::Meta => reply::METADUMP_NOT_ALLOWED,
        DumpForm::Mg => reply::MGDUMP_NOT_ALLOWED,
        DumpForm::Item => reply::CACHEDUMP_NOT_ALLOWED,
    }
}

/// Writes each item of some classes; every key that it is asked about is a request.
struct Printer<'a, O> {
    output: &'a mut O,
    requests: &'a mut u32,
    participant: &'a Participant,
    switches: Switches,
    form: DumpForm,
    classes: Classes,
    left: &'a mut Left,
    now: Now,
}

impl<O: Output> Visitor for Printer<'_, O> {
    fn takes_more(&mut self) -> bool {
        let takes = *self.requests > 0 && !self.output.is_full() && !self.left.is_nothing();
        *self.requests -= u32::from(takes);
        takes
    }

    fn visit(&mut self, item: &Item<'_>) {
        let class = self.participant.table().class_of(item);
        // Another with the same hash may have been the last.
        if self.classes >> (class - 1) & 1 == 0 || self.left.is_nothing() {
            return;
        }
        match self.form {
            DumpForm::Mg => reply::mg_request(self.output, item.key()),
            DumpForm::Meta => {
                let row = reply::DumpRow {
                    key: item.key(),
                    expires_at: item.expiry().unix_s(self.now),
                    accessed_at: self
                        .now
                        .unix_s()
                        .saturating_sub(self.participant.table().idle_s(item, self.now)),
                    cas: self.switches.cas_of(item),
                    is_fetched: item.is_fetched(),
                    class,
                    item_bytes: item.item_bytes(),
                    flags: item.flags(),
                };
                reply::dump_row(self.output, &row);
            }
            DumpForm::Item => {
                let expires_at = item.expiry().unix_s(self.now);
                let value_bytes = item.value_bytes() as u64;
                let bytes = reply::item_row(self.output, item.key(), value_bytes, expires_at);
                self.left.rows -= u64::from(bytes > 0);
                self.left.bytes -= bytes as u64;
            }
        }
    }
}

impl<O: Output> Batch<'_, O> {
    /// Begins a dump, if it is allowed and about something.
    pub(super) fn start_dump(&mut self, form: DumpForm, classes: &[u8], state: &mut State) {
        let table = self.executor.table();
        if !table.sweeps() {
            return self.output.put(reply::CRAWLER_DISABLED);
        }
        if !self.executor.shared.facts.switches.dumping {
            return self.output.put(not_allowed(form));
        }
        match Selection::parse(classes, table.class_count()) {
            Err(()) => self.output.put(reply::BAD_CLASS),
            Ok(Selection::None) => self.output.put(reply::NOTHING_TO_CRAWL),
            Ok(selection) => {
                self.output.put(reply::OK);
                let (classes, cursor) = (selection.classes(), Cursor::default());
                let dump = Dump { form, classes, cursor, left: Left::NO_LIMIT };
                *state = State::Dumping(Box::new(dump));
            }
        }
    }

    /// Begins a dump of one class, if it is allowed.
    pub(super) fn start_class_dump(
        &mut self,
        asked: Result<ClassDump, ProtocolError>,
        state: &mut State,
    ) {
        if !self.executor.shared.facts.switches.dumping {
            return self.output.put(not_allowed(DumpForm::Item));
        }
        let ClassDump { class, keys_max } = match asked {
            Ok(asked) => asked,
            Err(error) => return self.output.put(error.reply()),
        };
        let classes = classes_from(class);
        if classes == 0 {
            return self.output.put(reply::END);
        }
        let rows = if keys_max == 0 { u64::MAX } else { keys_max.into() };
        let left = Left { rows, bytes: CLASS_DUMP_BYTES_MAX - reply::END.len() as u64 };
        let (form, cursor) = (DumpForm::Item, Cursor::default());
        *state = State::Dumping(Box::new(Dump { form, classes, cursor, left }));
    }

    /// Goes on with a dump, key by key.
    pub(super) fn dump(&mut self, state: &mut State) -> Step {
        let State::Dumping(dump) = state else { unreachable!() };
        if self.must_defer(Work::Table) {
            return Some(Verdict::Defer);
        }
        let Dump { form, classes, cursor, left } = dump.as_mut();
        loop {
            if let Some(verdict) = self.obstacle() {
                return Some(verdict);
            }
            let participant = &self.executor.participant;
            if participant.table().is_at_end(cursor) || left.is_nothing() {
                break;
            }
            let mut printer = Printer {
                output: &mut *self.output,
                requests: &mut self.budget.requests,
                participant,
                switches: self.executor.shared.facts.switches,
                form: *form,
                classes: *classes,
                left: &mut *left,
                now: self.now,
            };
            participant.walk(cursor, self.now, &mut printer);
            // A step that shows nothing costs something, too.
            self.budget.requests = self.budget.requests.saturating_sub(1);
        }
        let end = match form {
            DumpForm::Meta | DumpForm::Item => reply::END,
            DumpForm::Mg => reply::EN,
        };
        self.output.put(end);
        *state = State::Idle;
        None
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn classes_are_named_by_number() {
        let parse = |text: &str| Selection::parse(text.as_bytes(), 128);
        assert_eq!(parse("all"), Ok(Selection::All));
        assert_eq!(parse("hash"), Ok(Selection::Hash));
        assert_eq!(parse("1,3,,128,3"), Ok(Selection::Some(0b101 | 1 << 127)));
        assert_eq!(parse(","), Ok(Selection::None));
        for bad in ["0", "129", "x", "1,x", "-1", "256", "1 2", "ALL"] {
            assert_eq!(parse(bad), Err(()), "{bad}");
        }
        assert_eq!(Selection::parse(b"9", 8), Err(()));
    }

    #[test]
    fn each_class_has_one_number_to_be_asked_for() {
        let sets = (0..=ClassDump::CLASS_MAX).map(classes_from);
        let all = sets.fold(0, |seen: Classes, classes| {
            assert_eq!(seen & classes, 0);
            seen | classes
        });
        assert_eq!((all, classes_from(0), classes_from(1)), (Classes::MAX, 0, 1));
    }
}
