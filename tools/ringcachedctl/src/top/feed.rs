//! A thread that asks the server at each interval: a silent server takes seconds to be given up,
//! and keys are to be heard meanwhile.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use crate::client::{Client, Error, Reading};

/// What the server said, or why it said nothing.
pub(super) type News = Result<Reading, Error>;

#[derive(Debug)]
pub(super) struct Feed {
    news: Receiver<News>,
    /// The thread ends when this is gone.
    pace: Sender<Duration>,
}

impl Feed {
    pub(super) fn start(client: Client, interval: Duration) -> io::Result<Feed> {
        let (tell, news) = channel();
        let (pace, paces) = channel();
        let run = move || ask_on(client, interval, &tell, &paces);
        std::thread::Builder::new().name("feed".into()).spawn(run)?;
        Ok(Feed { news, pace })
    }

    /// What has come since the last call.
    pub(super) fn news(&self) -> impl Iterator<Item = News> {
        self.news.try_iter()
    }

    /// Asks at another interval from now on.
    pub(super) fn pace(&self, interval: Duration) {
        // A thread that is gone has said so.
        let _ = self.pace.send(interval);
    }
}

fn ask_on(
    mut client: Client,
    mut interval: Duration,
    tell: &Sender<News>,
    paces: &Receiver<Duration>,
) {
    while tell.send(client.reading()).is_ok() {
        match paces.recv_timeout(interval) {
            Ok(other) => interval = other,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
