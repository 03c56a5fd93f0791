//! Several clients, each on a thread of its own, and what they found as one.
//!
//! They share the clock and nothing else, so that one more thread costs the others nothing.

use std::io;
use std::thread;

use socket2::Socket;

use crate::client::{Client, Findings, Orders, Share};
use crate::clock::Clock;
use crate::cores;
use crate::tally::Mark;
use crate::values::mix;
use crate::workload::{Mix, Workload};
use crate::world::{Patience, Sockets};

/// The clients of a run, one for each thread.
pub struct Crew {
    clients: Vec<Client<Sockets>>,
    /// Where they run, in turn; anywhere when there are none.
    cores: Vec<usize>,
}

impl Crew {
    /// Deals connected sockets to `threads` clients.
    pub fn new(
        sockets: Vec<Socket>,
        threads: u32,
        cores: &[usize],
        (asked, seed): (&Mix, u64),
        depth: usize,
        patience: Patience,
    ) -> io::Result<Crew> {
        let connections = u32::try_from(sockets.len()).map_err(io::Error::other)?;
        let mut hands: Vec<Vec<Socket>> = (0..threads).map(|_| Vec::new()).collect();
        let places = (0..hands.len()).cycle();
        for (place, socket) in places.zip(sockets) {
            socket.set_nonblocking(true)?;
            hands[place].push(socket);
        }
        let clock = Clock::start();
        let mut clients = Vec::with_capacity(hands.len());
        for (index, hand) in (0..threads).zip(hands) {
            // The first thread draws what a single one would.
            let seed = if index == 0 { seed } else { mix(seed ^ u64::from(index)) };
            let workload = Workload::new(asked.clone(), seed).map_err(io::Error::other)?;
            let share = Share { index, of: threads, connections };
            clients.push(Client::new(
                Sockets::new(clock, patience)?,
                hand,
                workload,
                share,
                depth,
            )?);
        }
        Ok(Crew { clients, cores: cores.to_vec() })
    }

    /// Stores every key once, `depth` at a time on each connection.
    pub fn fill(&mut self, depth: usize, orders: &Orders) -> io::Result<Findings> {
        let timeout = orders.bounds.timeout;
        self.each(move |client| client.fill(depth, timeout))
    }

    pub fn run(&mut self, orders: Orders) -> io::Result<Findings> {
        self.each(move |client| client.run(orders))
    }

    fn each(
        &mut self,
        work: impl Fn(&mut Client<Sockets>) -> io::Result<Findings> + Copy + Send,
    ) -> io::Result<Findings> {
        let cores = &self.cores;
        let on_its_core = move |index: usize, client: &mut Client<Sockets>| {
            if !cores.is_empty() {
                cores::pin(cores[index % cores.len()])?;
            }
            work(client)
        };
        if let [only] = self.clients.as_mut_slice() {
            return on_its_core(0, only);
        }
        let all: Vec<io::Result<Findings>> = thread::scope(|scope| {
            let threads: Vec<_> = self
                .clients
                .iter_mut()
                .enumerate()
                .map(|(index, client)| scope.spawn(move || on_its_core(index, client)))
                .collect();
            let ended = threads.into_iter().map(|thread| {
                thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
            });
            ended.collect()
        });
        let mut all = all.into_iter();
        let mut merged = all.next().ok_or(io::ErrorKind::InvalidInput)??;
        for findings in all {
            merge(&mut merged, findings?)?;
        }
        Ok(merged)
    }
}

/// Adds what another thread found. The marks become the outermost ones.
fn merge(all: &mut Findings, one: Findings) -> io::Result<()> {
    all.tally.merge(one.tally).map_err(io::Error::other)?;
    all.lost += one.lost;
    all.busiest_share = all.busiest_share.max(one.busiest_share);
    let outer = |a: Mark, b: Mark, is_b: bool| Mark {
        ns: if is_b { b.ns } else { a.ns },
        server: if is_b { b.server } else { a.server },
        counts: a.counts + b.counts,
        client: a.client + b.client,
    };
    all.from = outer(all.from, one.from, one.from.ns < all.from.ns);
    all.to = outer(all.to, one.to, one.to.ns > all.to.ns);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::CpuTime;
    use crate::tally::{Counts, Tally};

    fn findings(from_ns: u64, to_ns: u64, replies: u64) -> Findings {
        let cpu = |total_ns| CpuTime { total_ns, waited_ns: 1, user: 2, system: 3 };
        let mark = |ns: u64, replies| Mark {
            ns,
            counts: Counts { replies, ..Counts::default() },
            client: cpu(ns / 10),
            server: Some(cpu(ns)),
        };
        Findings {
            from: mark(from_ns, 5),
            to: mark(to_ns, 5 + replies),
            tally: Tally::new().unwrap(),
            lost: 1,
            busiest_share: to_ns as f64 / 1000.0,
        }
    }

    #[test]
    fn marks_of_two_threads_become_the_outermost() {
        let mut all = findings(100, 900, 40);
        merge(&mut all, findings(200, 1000, 60)).unwrap();
        assert_eq!((all.from.ns, all.to.ns, all.lost), (100, 1000, 2));
        assert_eq!((all.to.counts - all.from.counts).replies, 100);
        assert_eq!(all.to.server.unwrap().since(all.from.server.unwrap()).total_ns, 900);
        assert_eq!(all.to.client.since(all.from.client).total_ns, 80 + 80);
        assert_eq!(all.busiest_share, 1.0);
    }
}
