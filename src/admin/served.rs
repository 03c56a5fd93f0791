//! The real server behind `Control`.

use std::os::fd::BorrowedFd;

use crate::server::start::Server;

use super::{ClassFigures, Control};

impl Control for Server {
    fn drain(&self) {
        Server::drain(self);
    }

    fn has_ended(&self) -> bool {
        Server::has_ended(self)
    }

    fn ended(&self) -> BorrowedFd<'_> {
        Server::ended(self)
    }

    fn figures(&self) -> Vec<(&'static str, u64)> {
        Server::figures(self)
    }

    fn classes(&self) -> Vec<ClassFigures> {
        Server::classes(self)
    }

    fn reload(&self) -> Option<Result<String, String>> {
        Server::reload(self).map(|result| result.map_err(|error| error.to_string()))
    }

    fn verbosity(&self) -> u8 {
        Server::verbosity(self)
    }

    fn heartbeats(&self) -> Vec<Option<u64>> {
        Server::heartbeats(self)
    }
}
