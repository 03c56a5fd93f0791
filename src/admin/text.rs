//! The answers to people: `echo stats | nc -u -w1 127.0.0.1 PORT`.

use crate::base::hot::Of;
use crate::base::metrics::Distribution;

use super::figures::{Figure, Figures};

/// Bytes of a datagram of text at most.
const DATAGRAM_BYTES_MAX: usize = 1400;

/// Answers a line of text with datagrams, cut between lines. `None` is silence.
pub(super) fn answer(question: &[u8], figures: &Figures) -> Option<Vec<Vec<u8>>> {
    let mut datagrams = Datagrams::default();
    match question.trim_ascii() {
        b"stats" => {
            for figure in figures.all() {
                datagrams.line(&format!("STAT {} {}\r\n", figure.name, shown(figure)));
            }
        }
        b"stats rings" | b"stats threads" => {
            for counters in figures.threads() {
                let owner = counters.owner.replace(' ', "_");
                for figure in Figures::of_thread(&counters).filter(|figure| figure.value != 0) {
                    let line = format!("STAT {owner}:{} {}\r\n", figure.name, shown(figure));
                    datagrams.line(&line);
                }
            }
        }
        b"stats latency" => {
            for distribution in Distribution::ALL {
                for (row, number) in figures.spread(*distribution).rows() {
                    let name = distribution.row_name(row);
                    datagrams.line(&format!("STAT {name} {number}\r\n"));
                }
            }
        }
        b"stats hotkeys" if figures.tells_keys => datagrams.hottest(figures, Of::Keys),
        b"stats hotprefixes" if figures.tells_keys => datagrams.hottest(figures, Of::Prefixes),
        _ => return None,
    }
    datagrams.line("END\r\n");
    Some(datagrams.0)
}

/// A gauge of one thread may be below zero: another thread took off what this one put on.
fn shown(figure: Figure) -> String {
    if figure.is_gauge { figure.value.cast_signed().to_string() } else { figure.value.to_string() }
}

#[derive(Default)]
struct Datagrams(Vec<Vec<u8>>);

impl Datagrams {
    fn hottest(&mut self, figures: &Figures, of: Of) {
        let ranking = figures.hottest(of);
        self.line(&format!("STAT requests_per_s {}\r\n", ranking.per_s));
        for (place, name) in (1..).zip(&ranking.names) {
            for (row, value) in ranking.rows(name, of) {
                self.line(&format!("STAT {place}:{row} {value}\r\n"));
            }
        }
    }

    fn line(&mut self, line: &str) {
        match self.0.last_mut() {
            Some(last) if last.len() + line.len() <= DATAGRAM_BYTES_MAX => {
                last.extend(line.as_bytes());
            }
            Some(_) | None => self.0.push(line.into()),
        }
    }
}
