//! What the process takes beside `-m`: a sum that is known at start and does not grow.
//!
//! Each term is an upper bound of memory that can be touched, not of address space. What grows with
//! the work is paid from `-m` instead: see `keeper` and `ring_loop::memory`.

use super::dispatch::JOBS_MAX;
use crate::base::hot::METER_BYTES;
use crate::command::{DETAIL_BYTES_MAX, Fixed};
use crate::config::Plan;
use crate::net::peers::Peers;
use crate::store::{Figures, limbo_bytes_max};
use crate::sys::blocks::{BLOCK_BYTES, OWN_BLOCKS};
use crate::sys::ladder::RECEIVE_BYTES;
use crate::sys::probe::RingShape;
use crate::sys::{LANDING_BYTES, heap};

/// Code and libraries where the system does not say how much is mapped.
const CODE_BYTES: u64 = 16 << 20;
/// What the allocator and the options take before there is a second thread.
const START_BYTES: u64 = 1 << 20;
/// A thread: the touched part of its stack, and what the allocator keeps for it.
const THREAD_BYTES: u64 = 256 << 10;
/// Threads beside rings, workers and sockets: main, keeper, upkeep.
const THREADS_MORE: u64 = 3;
/// An entry of the submission queue with its index, one of the completion queue, and one of the
/// ring of buffers.
const QUEUE_BYTES: [u64; 3] = [64 + 4, 16, 16];
/// What each batch takes that is away.
const BATCH_BYTES: u64 = 1024;
/// A place in the inbox of a ring; there are two for each connection.
const MESSAGE_BYTES: u64 = 32;
/// What connections may take of the heap until pages are taken out of use for it.
const HEAP_LAG_BYTES: u64 = 512 << 10;
/// The buffers of a socket for datagrams: a datagram, what is written before somebody asks whether
/// there is room, and a place in the census; and the largest reply so often, as it grows and as it
/// is cut.
const DATAGRAMS_BYTES: u64 = 256 << 10;
const REPLY_COPIES: u64 = 3;

/// The sum for a plan, with a table that is empty yet.
pub fn of(plan: &Plan, figures: &Figures) -> Fixed {
    let rings = u64::from(plan.rings);
    let sockets = plan.listeners.udp.len() as u64;
    let threads = rings + u64::from(plan.workers) + sockets + THREADS_MORE;
    let receive_bytes = u64::from(RECEIVE_BYTES);
    let bytes = heap::code_bytes().unwrap_or(CODE_BYTES)
        + START_BYTES
        + DETAIL_BYTES_MAX as u64
        + threads * (THREAD_BYTES + METER_BYTES)
        + rings * (receive_bytes + ring_bytes(plan.connections_max))
        + sockets * (DATAGRAMS_BYTES + REPLY_COPIES * plan.udp_reply_bytes_max as u64)
        + Peers::bytes(&plan.rate, plan.connections_max)
        + table_bytes(figures, threads);
    let descriptors = plan.descriptors_max() - u64::from(plan.connections_max);
    Fixed { bytes, receive_bytes: rings * receive_bytes, receive_buffers: 0, descriptors }
}

fn ring_bytes(connections_max: u32) -> u64 {
    let shape = RingShape::SERVER;
    let entries = [shape.submissions, shape.completions, shape.buffers];
    let queues: u64 = entries.iter().zip(QUEUE_BYTES).map(|(n, bytes)| u64::from(*n) * bytes).sum();
    let own_blocks = (OWN_BLOCKS * BLOCK_BYTES) as u64;
    let inbox = 2 * u64::from(connections_max) * MESSAGE_BYTES;
    let batches = JOBS_MAX as u64 * BATCH_BYTES;
    queues + own_blocks + inbox + batches + LANDING_BYTES as u64 + HEAP_LAG_BYTES
}

/// Beside its pages: what there is from the start, a directory of the largest index that leaves
/// room for items, a page's worth of retired items for each thread, and two pages: the first, which
/// is never used, and what is in use elsewhere before a whole page of it is.
fn table_bytes(figures: &Figures, threads: u64) -> u64 {
    let segment_bytes = figures.index_bytes / figures.segments.max(1);
    let segments = figures.limit_bytes / segment_bytes.max(1) / 3;
    let directory = segments * 8;
    let retired = limbo_bytes_max(figures.page_bytes);
    figures.outside_bytes + directory + threads * retired + 2 * figures.page_bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixed(line: &str) -> Fixed {
        let plan = Plan::parse(&line.split_whitespace().collect::<Vec<_>>()).unwrap();
        let figures = Figures {
            limit_bytes: 64 << 20,
            page_bytes: 64 << 10,
            segments: 64,
            index_bytes: 64 << 14,
            ..Figures::default()
        };
        of(&plan, &figures)
    }

    #[test]
    fn rings_and_connections_are_paid_for_but_not_memory() {
        let one = fixed("-p 9 -t 1");
        assert_eq!(one.receive_bytes, 4 << 20);
        let two = fixed("-p 9 -t 2");
        assert_eq!(two.receive_bytes, 8 << 20);
        assert!(two.bytes - one.bytes > 5 << 20);
        assert!(two.bytes - one.bytes < 8 << 20, "{one:?} {two:?}");
        assert!(fixed("-p 9 -t 1 -c 100000").bytes - one.bytes < 8 << 20);
        assert!(fixed("-p 9 -t 1 --peer-requests 9").bytes - one.bytes > 128 << 10);
        let datagrams = fixed("-p 9 -t 1 -l 127.0.0.1 -U 9").bytes - one.bytes;
        let long = fixed("-p 9 -t 1 -l 127.0.0.1 -U 9 --udp-reply-max 2m").bytes - one.bytes;
        assert!(
            datagrams > 64 << 10 && datagrams < 2 << 20 && long > 4 << 20,
            "{datagrams} {long}"
        );
    }
}
