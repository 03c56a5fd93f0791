//! The server is killed while it works: clients see it end, and the next one starts in its place.

use crate::common::client::{Client, set_request};
use crate::common::server::{Kind, OURS, Server};
use crate::common::{PATIENCE, wait_until};
use std::io::{Error, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicU64, Ordering};

const SIGKILL: i32 = 9;
const VALUE_BYTES: usize = 50_000;
const OPTIONS: [&str; 2] = ["-m", "64"];
/// Exchanges after which the load is under way.
const EXCHANGES: u64 = 300;

/// Stores and reads until that fails, and says how.
fn work(address: SocketAddr, name: usize, exchanges: &AtomicU64) -> Error {
    let (mut client, value) = (Client::connect(address).unwrap(), vec![b'v'; VALUE_BYTES]);
    let mut exchange = |key: &str| -> Result<(), Error> {
        client.try_send([set_request(key, &value), b"delete nobody\r\n".to_vec()].concat())?;
        assert_eq!(client.try_line()?, "STORED");
        assert_eq!(client.try_line()?, "NOT_FOUND");
        Ok(())
    };
    for number in 0.. {
        if let Err(error) = exchange(&format!("{name}:{}", number % 20)) {
            return error;
        }
        exchanges.fetch_add(1, Ordering::Relaxed);
    }
    unreachable!("it is killed before")
}

/// Kills the server when all are at work, and says how they learnt of it.
fn kill_at_work(server: &mut Server) -> Vec<Error> {
    let (address, exchanges) = (server.address(), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let work = |name| {
            scope.spawn({
                let exchanges = &exchanges;
                move || work(address, name, exchanges)
            })
        };
        let workers: Vec<_> = (0..4).map(work).collect();
        let is_busy = wait_until(PATIENCE, || exchanges.load(Ordering::Relaxed) > EXCHANGES);
        server.signal("KILL");
        let status = server.wait(PATIENCE).expect("nothing outlives this");
        assert_eq!(status.signal(), Some(SIGKILL), "{status}");
        assert!(is_busy, "{exchanges:?} exchanges are not much");
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    })
}

#[test]
fn a_server_that_was_killed_at_work_leaves_nothing_in_the_way() {
    for kind in OURS {
        let Some(mut server) = Server::start(kind, &OPTIONS) else { continue };
        let kind = if server.is_ours() { kind } else { Kind::Memcached };
        server.client().set("before", &[b'x'; VALUE_BYTES]);
        let mut uploading = server.client();
        uploading.send("set half 0 0 500000\r\n");
        uploading.send(vec![b'x'; 100_000]);
        let mut deaf = server.client();
        deaf.send("get before\r\n".repeat(1000));
        for error in kill_at_work(&mut server) {
            let ends =
                [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
            assert!(ends.contains(&error.kind()), "{kind:?}: {error}");
        }
        assert!(uploading.rest().is_some(), "{kind:?}: the upload is not closed");
        assert!(deaf.rest().is_some(), "{kind:?}: who did not read is not closed");
        // The kernel takes the rings of a killed process apart a little later than the process.
        let address = server.address();
        let is_free = wait_until(PATIENCE, || Client::connect(address).is_err());
        assert!(is_free, "{kind:?}: the listener outlives its process");
        let again = Server::start_on(server.port(), kind, &OPTIONS);
        let mut again = again.unwrap_or_else(|error| panic!("{kind:?}: {error}"));
        assert_eq!(again.client().get("before"), None, "{kind:?}");
        again.assert_serves();
    }
}
