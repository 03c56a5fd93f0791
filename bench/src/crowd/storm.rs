//! Storms: connect, one get, close.

use std::io;

use ringcached_load::clock::{Clock, NS_PER_S};
use ringcached_load::cpu;
use ringcached_load::report::CpuUse;
use serde::{Deserialize, Serialize};

use super::sockets::{Question, connect_from_next};
use crate::servers::Server;

/// Connections that are there at a time.
const AT_A_TIME: u32 = 64;

/// One slice. Its requests are connections.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Storm {
    pub connections: u32,
    pub wall_s: f64,
    pub server: CpuUse,
    pub client: CpuUse,
}

/// Connects, asks, hears and closes, `connections` times. `first` is the number of the first of
/// them, so that storms that follow each other come from other ports.
pub fn measure(
    server: &Server,
    question: &Question,
    (connections, first): (u32, u32),
) -> io::Result<Storm> {
    let mut question = question.clone();
    let before = (cpu::of_process(server.pid())?, cpu::of_thread()?);
    let clock = Clock::start();
    let mut done = 0;
    while done < connections {
        let count = AT_A_TIME.min(connections - done);
        let mut crowd = (done..done + count)
            .map(|number| connect_from_next(server.address, first.wrapping_add(number)))
            .collect::<io::Result<Vec<_>>>()?;
        crowd.iter_mut().try_for_each(|stream| question.ask(stream))?;
        crowd.iter_mut().try_for_each(|stream| question.hear(stream))?;
        done += count;
    }
    let wall_s = clock.ns() as f64 / NS_PER_S;
    let used = (cpu::of_process(server.pid())?, cpu::of_thread()?);
    let of =
        |used: cpu::CpuTime, before| CpuUse::of(used.since(before), wall_s, connections.into());
    Ok(Storm { connections, wall_s, server: of(used.0, before.0), client: of(used.1, before.1) })
}
