//! What is looked at, and how: what keys and news change, and the screen shows.

use std::time::Duration;

use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::feed::News;
use super::view::{TABLES, View};
use crate::client::Reading;

/// Intervals that keys choose from.
const PACES_MS: [u64; 8] = [100, 250, 500, 1000, 2000, 5000, 10_000, 60_000];

/// What follows from a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "somebody may want to leave"]
pub(super) enum Act {
    Nothing,
    Quit,
    /// Ask at this interval from now on.
    Pace(Duration),
}

/// How the rows of a table are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Order {
    /// The column that rows are sorted by; `None` leaves them as the server has them.
    pub(super) column: Option<usize>,
    pub(super) descending: bool,
    /// Rows above the first that is shown.
    pub(super) offset: usize,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) server: String,
    pub(super) interval: Duration,
    /// The table that keys are about.
    pub(super) table: usize,
    pub(super) orders: [Order; TABLES],
    pub(super) is_paused: bool,
    /// The last that was known; it stays while the server is away.
    pub(super) view: Option<View>,
    /// What is wrong now, or has just happened.
    pub(super) trouble: Option<String>,
    last: Option<Reading>,
}

impl State {
    pub(super) fn new(server: &str, interval: Duration) -> State {
        State {
            server: server.to_owned(),
            interval,
            table: 0,
            orders: Default::default(),
            is_paused: false,
            view: None,
            trouble: None,
            last: None,
        }
    }

    /// Takes in what the server said, or did not.
    pub(super) fn learn(&mut self, news: News) {
        let now = match news {
            Ok(now) => now,
            Err(error) => {
                self.trouble = Some(error.to_string());
                return;
            }
        };
        let has_restarted =
            self.last.as_ref().is_some_and(|last| last.sample.boot_id != now.sample.boot_id);
        self.trouble = has_restarted.then(|| "the server has restarted".to_owned());
        let view = self.last.as_ref().and_then(|last| View::between(last, &now));
        if has_restarted {
            self.view = None;
        } else if view.is_some() && !self.is_paused {
            self.view = view;
        }
        self.last = Some(now);
    }

    pub(super) fn hear(&mut self, event: &Event) -> Act {
        match event {
            Event::Key(key) if key.kind != KeyEventKind::Release => self.press(*key),
            // A new size is looked at with the next picture.
            _ => Act::Nothing,
        }
    }

    fn press(&mut self, key: KeyEvent) -> Act {
        if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
            return Act::Quit;
        }
        let columns = self.view.as_ref().map_or(0, |view| view.tables[self.table].columns.len());
        let order = &mut self.orders[self.table];
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return Act::Quit,
            KeyCode::Tab => self.table = (self.table + 1) % TABLES,
            KeyCode::BackTab => self.table = (self.table + TABLES - 1) % TABLES,
            KeyCode::Right => order.step(1, columns),
            KeyCode::Left => order.step(columns, columns),
            KeyCode::Char('r') => order.descending = !order.descending,
            KeyCode::Down => order.offset = order.offset.saturating_add(1),
            KeyCode::Up => order.offset = order.offset.saturating_sub(1),
            KeyCode::PageDown => order.offset = order.offset.saturating_add(10),
            KeyCode::PageUp => order.offset = order.offset.saturating_sub(10),
            KeyCode::Home => order.offset = 0,
            KeyCode::Char('p' | ' ') => self.is_paused = !self.is_paused,
            KeyCode::Char('+') => return self.pace(|ms, other| other < ms, true),
            KeyCode::Char('-') => return self.pace(|ms, other| other > ms, false),
            _ => {}
        }
        // No more is hidden above than leaves one row to see.
        let rows = self.view.as_ref().map_or(0, |view| view.tables[self.table].rows.len());
        let order = &mut self.orders[self.table];
        order.offset = order.offset.min(rows.saturating_sub(1));
        Act::Nothing
    }

    /// The next interval that is shorter, or longer.
    fn pace(&mut self, is_beyond: fn(u128, u128) -> bool, last: bool) -> Act {
        let now = self.interval.as_millis();
        let mut beyond = PACES_MS.into_iter().filter(|ms| is_beyond(now, u128::from(*ms)));
        let next = if last { beyond.next_back() } else { beyond.next() };
        match next.map(Duration::from_millis) {
            None => Act::Nothing,
            Some(interval) => {
                self.interval = interval;
                Act::Pace(interval)
            }
        }
    }
}

impl Order {
    /// Goes so many columns on; before the first is "as the server has them".
    fn step(&mut self, by: usize, columns: usize) {
        let place = self.column.map_or(0, |column| column + 1);
        self.column = ((place + by) % (columns + 1)).checked_sub(1);
    }
}
