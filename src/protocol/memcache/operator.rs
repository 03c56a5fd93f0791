//! Requests of operators: about the insides of the server, and about no single key.
//!
//! What only tunes memcached's own insides is checked as there, and becomes a `Tune`: numbers to be
//! shown where monitors look. A ratio is told in hundredths, as it is shown.

use super::error::ProtocolError;
use super::log::WatchKinds;
use super::number::{decimal, signed};
use super::words::Words;
use crate::base::limits::KEY_BYTES_MAX;

/// A request of an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator<'a> {
    /// All keys, of these classes: `all`, `hash`, or numbers with commas between them.
    Dump {
        form: DumpForm,
        classes: &'a [u8],
    },
    /// The keys of one class; or what is wrong with how they are asked for.
    DumpClass(std::result::Result<ClassDump, ProtocolError>),
    /// What has expired is to be looked for now, in these classes.
    Crawl {
        classes: &'a [u8],
    },
    /// What has expired is to be looked for, or not, from now on.
    Crawler {
        on: bool,
    },
    /// A page is to go from one class to another.
    Reassign {
        from: i32,
        to: i32,
    },
    MemoryLimit {
        megabytes: u32,
    },
    /// What begins so is to be deleted.
    DeletePrefix {
        prefix: &'a [u8],
    },
    /// The peer is to be told what happens; `None` is something that nobody knows.
    Watch {
        kinds: Option<WatchKinds>,
    },
    /// Certificates are to be read again.
    RefreshCertificates,
    Tune(Tune),
}

/// How each key of a dump is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DumpForm {
    /// With what is known of its item.
    Meta,
    /// As a request for it.
    Mg,
    /// With the size of its value, and when it expires.
    Item,
}

/// Which keys `stats cachedump` is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassDump {
    /// At most `CLASS_MAX`.
    pub class: u32,
    /// 0 is no limit.
    pub keys_max: u32,
}

impl ClassDump {
    /// The last class that libmemcached asks for, and memcached lists.
    pub const CLASS_MAX: u32 = CLASSES_MAX - 1;
}

/// What tunes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tune {
    CrawlerSleepUs(u32),
    CrawlerItems(u32),
    AutomoveLevel(u32),
    AutomoveRatio(Hundredths),
    AutomoveWindow(u32),
    /// Percents and factors of the hot and the warm list.
    Lists {
        percents: [u32; 2],
        factors: [Hundredths; 2],
    },
    Segmented(bool),
    /// Seconds, or no such list.
    TemporaryTtl(Option<u32>),
    /// It is shown nowhere.
    Other,
}

/// A number with two decimals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hundredths(pub i64);

const AUTOMOVE_LEVEL_MAX: u32 = 2;
const AUTOMOVE_WINDOW_S: std::ops::RangeInclusive<u32> = 3..=1800;
const CRAWLER_SLEEP_US_MAX: u32 = 1_000_000;
const LIST_PERCENTS_MAX: u64 = 80;
/// Classes of items have lower numbers in memcached.
const CLASSES_MAX: u32 = 64;
const LIMIT_MB_MIN: u32 = 8;
/// Who says more means bytes.
const LIMIT_MB_MAX: u32 = 1_000_000_000;

/// Options of `extstore`, but for two, which have a number each.
const EXTSTORE: &[&[u8]] = &[
    b"item_size",
    b"item_age",
    b"low_ttl",
    b"recache_rate",
    b"compact_under",
    b"drop_under",
    b"max_sleep",
    b"drop_unread",
];

type Result<'a> = std::result::Result<Operator<'a>, ProtocolError>;

/// Reads the request of an operator; `None` when it is no such request.
pub(super) fn parse_operator<'a>(line: &'a [u8], words: &Words<'a>) -> Option<Result<'a>> {
    Some(match words.at(0) {
        b"delete_prefix" => parse_delete_prefix(words),
        b"watch" => Ok(Operator::Watch { kinds: WatchKinds::parse(line) }),
        b"lru_crawler" => parse_crawler(words),
        b"slabs" => parse_slabs(words),
        b"lru" => parse_lru(words),
        b"extstore" => parse_extstore(words),
        b"cache_memlimit" => parse_memory_limit(words),
        b"refresh_certs" => Ok(Operator::RefreshCertificates),
        _ => return None,
    })
}

/// An unsigned number of 32 bits.
fn number(word: &[u8]) -> Option<u32> {
    decimal(word).and_then(|number| u32::try_from(number).ok())
}

fn integer(word: &[u8]) -> Option<i32> {
    signed(word).and_then(|number| i32::try_from(number).ok())
}

fn real(word: &[u8]) -> Option<f64> {
    std::str::from_utf8(word).ok()?.parse().ok().filter(|number: &f64| number.is_finite())
}

#[allow(clippy::cast_possible_truncation, reason = "what is out of bounds becomes the bound")]
fn hundredths(number: f64) -> Hundredths {
    Hundredths((number * 100.0).round() as i64)
}

//= protocol.txt "LRU_Crawler"
fn parse_crawler<'a>(words: &Words<'a>) -> Result<'a> {
    let sleep = |sleep_us| match sleep_us {
        ..=CRAWLER_SLEEP_US_MAX => Ok(Operator::Tune(Tune::CrawlerSleepUs(sleep_us))),
        _ => Err(ProtocolError::SleepTooLong),
    };
    let asked = words.at(2);
    match (words.count(), words.at(1)) {
        (2, b"enable") => Ok(Operator::Crawler { on: true }),
        (2, b"disable") => Ok(Operator::Crawler { on: false }),
        (3, b"crawl") => Ok(Operator::Crawl { classes: asked }),
        (3, b"metadump") => Ok(Operator::Dump { form: DumpForm::Meta, classes: asked }),
        (3, b"mgdump") => Ok(Operator::Dump { form: DumpForm::Mg, classes: asked }),
        (3, b"sleep") => number(asked).ok_or(ProtocolError::BadFormat).and_then(sleep),
        (3, b"tocrawl") => {
            let items = number(asked).ok_or(ProtocolError::BadFormat)?;
            Ok(Operator::Tune(Tune::CrawlerItems(items)))
        }
        _ => Err(ProtocolError::UnknownCommand),
    }
}

/// Reads what follows `stats cachedump`. Whether that is allowed matters more than what is wrong.
pub(super) fn parse_class_dump<'a>(words: &Words<'a>) -> Operator<'a> {
    let both = || number(words.at(2)).zip(number(words.at(3))).ok_or(ProtocolError::BadFormat);
    Operator::DumpClass(match words.count() {
        ..4 => Err(ProtocolError::TooFewWords),
        _ => both().and_then(|(class, keys_max)| match class {
            ..CLASSES_MAX => Ok(ClassDump { class, keys_max }),
            _ => Err(ProtocolError::IllegalClass),
        }),
    })
}

//= protocol.txt "Slabs Reassign", "Slabs Automove"
fn parse_slabs<'a>(words: &Words<'a>) -> Result<'a> {
    match (words.count(), words.at(1)) {
        (4, b"reassign") => {
            let both = integer(words.at(2)).zip(integer(words.at(3)));
            let (from, to) = both.ok_or(ProtocolError::BadFormat)?;
            Ok(Operator::Reassign { from, to })
        }
        (3.., b"automove") => parse_automove(words).map(Operator::Tune),
        _ => Err(ProtocolError::UnknownCommand),
    }
}

fn parse_automove(words: &Words<'_>) -> std::result::Result<Tune, ProtocolError> {
    let ratio = || real(words.at(3)).map(hundredths).ok_or(ProtocolError::UnknownCommand);
    match words.at(2) {
        b"ratio" => ratio().map(Tune::AutomoveRatio),
        b"freeratio" => ratio().map(|_| Tune::Other),
        b"window" => match number(words.at(3)).ok_or(ProtocolError::BadFormat)? {
            window if AUTOMOVE_WINDOW_S.contains(&window) => Ok(Tune::AutomoveWindow(window)),
            _ => Err(ProtocolError::BadAutomoveWindow),
        },
        level => match number(level).ok_or(ProtocolError::BadFormat)? {
            level @ ..=AUTOMOVE_LEVEL_MAX => Ok(Tune::AutomoveLevel(level)),
            _ => Err(ProtocolError::UnknownCommand),
        },
    }
}

//= protocol.txt "LRU Tuning"
fn parse_lru<'a>(words: &Words<'a>) -> Result<'a> {
    let tune = match (words.count(), words.at(1), words.at(2)) {
        (6.., b"tune", _) => parse_lists(words)?,
        (3.., b"mode", b"flat") => Tune::Segmented(false),
        (3.., b"mode", b"segmented") => Tune::Segmented(true),
        (3.., b"temp_ttl", ttl) => {
            let ttl = integer(ttl).ok_or(ProtocolError::UnknownCommand)?;
            Tune::TemporaryTtl(u32::try_from(ttl).ok())
        }
        _ => return Err(ProtocolError::UnknownCommand),
    };
    Ok(Operator::Tune(tune))
}

fn parse_lists(words: &Words<'_>) -> std::result::Result<Tune, ProtocolError> {
    let percents = number(words.at(2)).zip(number(words.at(3)));
    let factors = real(words.at(4)).zip(real(words.at(5)));
    let both = percents.zip(factors).ok_or(ProtocolError::UnknownCommand)?;
    let ((hot, warm), (hot_factor, warm_factor)) = both;
    if u64::from(hot) + u64::from(warm) > LIST_PERCENTS_MAX {
        return Err(ProtocolError::ListsTooLarge);
    }
    if hot_factor <= 0.0 || warm_factor <= 0.0 {
        return Err(ProtocolError::BadListFactors);
    }
    let factors = [hot_factor, warm_factor].map(hundredths);
    Ok(Tune::Lists { percents: [hot, warm], factors })
}

fn parse_extstore<'a>(words: &Words<'a>) -> Result<'a> {
    let (value, more) = (words.at(2), words.at(3));
    let is_good = match (words.count(), words.at(1)) {
        (4.., b"free_memchunks") => {
            number(value).is_some_and(|class| class < CLASSES_MAX) && number(more).is_some()
        }
        (3.., b"max_frag") => real(value).is_some(),
        (3.., option) => EXTSTORE.contains(&option) && number(value).is_some(),
        _ => false,
    };
    let is_good = is_good.then_some(Operator::Tune(Tune::Other));
    is_good.ok_or(ProtocolError::UnknownCommand)
}

/// A request that is only ours.
fn parse_delete_prefix<'a>(words: &Words<'a>) -> Result<'a> {
    let prefix = words.at(1);
    let is_alone = words.count() - usize::from(words.noreply()) == 2;
    let is_good = is_alone && prefix.len() <= KEY_BYTES_MAX;
    is_good.then_some(Operator::DeletePrefix { prefix }).ok_or(ProtocolError::BadFormat)
}

//= protocol.txt "cache_memlimit"
fn parse_memory_limit<'a>(words: &Words<'a>) -> Result<'a> {
    match number(words.at(1)).ok_or(ProtocolError::UnknownCommand)? {
        ..LIMIT_MB_MIN => Err(ProtocolError::LimitTooSmall),
        megabytes @ ..=LIMIT_MB_MAX => Ok(Operator::MemoryLimit { megabytes }),
        _ => Err(ProtocolError::LimitNotMegabytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<'_> {
        parse_operator(line.as_bytes(), &Words::of(line.as_bytes())).unwrap()
    }

    #[test]
    fn what_is_asked_for() {
        let tune = Operator::Tune;
        let lists = Tune::Lists { percents: [10, 70], factors: [Hundredths(1), Hundredths(250)] };
        let both = [
            ("lru_crawler enable", Operator::Crawler { on: true }),
            ("lru_crawler crawl 1,2", Operator::Crawl { classes: b"1,2" }),
            ("lru_crawler mgdump hash", Operator::Dump { form: DumpForm::Mg, classes: b"hash" }),
            ("lru_crawler sleep 1000000", tune(Tune::CrawlerSleepUs(1_000_000))),
            ("lru_crawler tocrawl 4294967295", tune(Tune::CrawlerItems(u32::MAX))),
            ("slabs reassign -1 2", Operator::Reassign { from: -1, to: 2 }),
            ("cache_memlimit 1000000000", Operator::MemoryLimit { megabytes: 1_000_000_000 }),
            ("delete_prefix a:", Operator::DeletePrefix { prefix: b"a:" }),
            ("delete_prefix noreply noreply", Operator::DeletePrefix { prefix: b"noreply" }),
            ("watch", Operator::Watch { kinds: Some(WatchKinds::FETCHERS) }),
            ("watch all", Operator::Watch { kinds: None }),
            ("refresh_certs x", Operator::RefreshCertificates),
            ("slabs automove 2 x", tune(Tune::AutomoveLevel(2))),
            ("slabs automove ratio 0.805", tune(Tune::AutomoveRatio(Hundredths(81)))),
            ("slabs automove freeratio 1", tune(Tune::Other)),
            ("slabs automove window 1800", tune(Tune::AutomoveWindow(1800))),
            ("lru tune 10 70 0.01 2.5 noreply", tune(lists)),
            ("lru mode flat", tune(Tune::Segmented(false))),
            ("lru temp_ttl 61", tune(Tune::TemporaryTtl(Some(61)))),
            ("lru temp_ttl -7", tune(Tune::TemporaryTtl(None))),
            ("extstore low_ttl 5", tune(Tune::Other)),
            ("extstore free_memchunks 63 1", tune(Tune::Other)),
        ];
        for (line, wanted) in both {
            assert_eq!(parsed(line), Ok(wanted), "{line}");
        }
    }

    #[test]
    fn what_is_wrong() {
        use ProtocolError::*;
        for (error, lines) in [
            (
                UnknownCommand,
                "lru_crawler,lru_crawler enable x,lru_crawler metadump,lru,lru tune 1 2 3,\
                 lru tune 1 2 x 4,lru tune 1 2 NaN 4,lru mode,lru mode x,lru temp_ttl x,slabs,\
                 slabs automove,slabs automove 3,slabs automove ratio,slabs reassign 1,\
                 slabs reassign 1 2 3,extstore,extstore low_ttl,extstore low_ttl x,\
                 extstore nonsense 1,extstore free_memchunks 64 1,cache_memlimit,\
                 cache_memlimit -1,cache_memlimit 4294967296",
            ),
            (
                BadFormat,
                "delete_prefix,delete_prefix noreply,delete_prefix a b,lru_crawler sleep x,\
                 lru_crawler tocrawl -1,slabs reassign x 1,\
                 slabs automove x,slabs automove window,slabs automove window x",
            ),
            (LimitTooSmall, "cache_memlimit 7,cache_memlimit 0"),
            (LimitNotMegabytes, "cache_memlimit 1000000001,cache_memlimit 4294967295"),
            (SleepTooLong, "lru_crawler sleep 1000001"),
            (BadAutomoveWindow, "slabs automove window 2,slabs automove window 1801"),
            (ListsTooLarge, "lru tune 41 40 1 1,lru tune 4294967295 4294967295 1 1"),
            (BadListFactors, "lru tune 1 1 0 1,lru tune 1 1 1 -1"),
        ] {
            for line in lines.split(',') {
                assert_eq!(parsed(line), Err(error), "{line}");
            }
        }
        assert_eq!(parse_operator(b"get k", &Words::of(b"get k")), None);
    }

    #[test]
    fn a_class_by_its_number() {
        let asked = |line: &str| {
            let operator = parse_class_dump(&Words::of(line.as_bytes()));
            let Operator::DumpClass(asked) = operator else { panic!("{operator:?}") };
            asked
        };
        let all = ClassDump { class: 0, keys_max: 0 };
        assert_eq!(asked("stats cachedump 0 0"), Ok(all));
        let most = ClassDump { class: ClassDump::CLASS_MAX, keys_max: u32::MAX };
        assert_eq!(asked("stats  cachedump 63 4294967295 x y z"), Ok(most));
        for line in ["stats cachedump", "stats cachedump 1", "stats cachedump x"] {
            assert_eq!(asked(line), Err(ProtocolError::TooFewWords), "{line}");
        }
        for line in ["stats cachedump 64 0", "stats cachedump 4294967295 0"] {
            assert_eq!(asked(line), Err(ProtocolError::IllegalClass), "{line}");
        }
        for line in ["-1 0", "0 -1", "x 1", "1 x", "4294967296 0"] {
            let line = format!("stats cachedump {line}");
            assert_eq!(asked(&line), Err(ProtocolError::BadFormat), "{line}");
        }
    }
}
