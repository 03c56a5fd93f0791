//! `ringcachedctl top`: what a server does, renewed at each interval.
//!
//! ```text
//!   client --Reading--> view (two readings: rates, shares) --+--> table --> text, JSON
//!      ^                                                     +--> screen (ratatui)
//!      +-- feed (a thread, so that keys are heard while a server is silent) --> state (keys)
//! ```

mod feed;
mod screen;
mod state;
mod table;
mod view;

use std::io::{self, IsTerminal};
use std::time::Duration;

use clap::Args;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event;

use crate::client::{Client, Error};
use crate::{Failure, seconds, watch};

use feed::Feed;
use state::{Act, State};
pub(crate) use view::View;

/// How long a look at the keyboard waits.
const PATIENCE: Duration = Duration::from_millis(100);

/// Readings that a restart in between may spoil until `once` gives up.
const TRIES: u32 = 4;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Seconds between two looks at the server
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub(crate) interval: Duration,
    /// Print one view, of one interval, and end
    #[arg(long)]
    pub(crate) once: bool,
    /// As one JSON object
    #[arg(long, requires = "once")]
    pub(crate) json: bool,
}

/// One view, of one interval of one process.
pub(crate) fn once(client: &mut Client, interval: Duration) -> Result<View, Error> {
    let mut last = client.reading()?;
    for _ in 0..TRIES {
        watch::pause(interval);
        let now = client.reading()?;
        match View::between(&last, &now) {
            Some(view) => return Ok(view),
            None => last = now,
        }
    }
    Err(Error::Confused)
}

/// Shows view after view until somebody wants no more.
pub(crate) fn run(client: Client, server: &str, interval: Duration) -> Result<(), Failure> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(Failure::Start("top needs a terminal; see --once".into()));
    }
    let feed = Feed::start(client, interval)?;
    let mut state = State::new(server, interval);
    let mut terminal = ratatui::try_init()?;
    let shown = show(&mut terminal, &feed, &mut state);
    ratatui::restore();
    Ok(shown?)
}

fn show(terminal: &mut DefaultTerminal, feed: &Feed, state: &mut State) -> io::Result<()> {
    loop {
        // Each time as large as the terminal is just now.
        terminal.draw(|frame| screen::draw(frame, state))?;
        if event::poll(PATIENCE)? {
            match state.hear(&event::read()?) {
                Act::Quit => return Ok(()),
                Act::Pace(interval) => feed.pace(interval),
                Act::Nothing => {}
            }
        }
        for news in feed.news() {
            state.learn(news);
        }
    }
}
