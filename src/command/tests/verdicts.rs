//! When `drive` stops, what it counts, and what a lost connection gives back.

use super::cuts::packet;
use super::talk;
use crate::base::clock::TICKS_PER_S;
use crate::base::metrics::Metric;
use crate::command::Switches;
use crate::command::fuzzing::{End, ITEM_BYTES_MAX, Manner, Rig};
use crate::protocol::binary::{Opcode, PACKET_HEAD_BYTES};

#[test]
fn requests_are_counted() {
    let mut rig = Rig::new(false);
    let text = "set n 0 0 1\n5\nget n none\ngets n\nincr n 1\nincr none 1\ndecr n 1\ndecr none 1\n\
        touch n 0\ntouch none 0\ngat 0 n none\ndelete n\ndelete n\ncas n 0 0 1 1\nx\n\
        set n 0 0 1\nx\ncas n 0 0 1 0\nx\nset n 0 0 9999999\n";
    let _ = talk(&mut rig, text);
    rig.reconnect();
    let _ =
        talk(&mut rig, "set e 0 -1 1\nx\nget e\nset f 0 0 1\nx\nflush_all\nget f\nflush_all 9\n");
    use Metric::*;
    for (metric, wanted) in [
        (CmdGet, 5),
        (GetHits, 2),
        (GetMisses, 3),
        (GetExpired, 1),
        (GetFlushed, 1),
        (CmdSet, 6),
        (CmdTouch, 4),
        (TouchHits, 2),
        (TouchMisses, 2),
        (IncrHits, 1),
        (IncrMisses, 1),
        (DecrHits, 1),
        (DecrMisses, 1),
        (DeleteHits, 1),
        (DeleteMisses, 1),
        (CasMisses, 1),
        (CasBadval, 1),
        (CasHits, 0),
        (StoreTooLarge, 1),
        (CmdFlush, 2),
    ] {
        assert_eq!(rig.counted(metric), wanted, "{metric:?}");
    }
    assert_eq!(talk(&mut rig, "stats reset\n"), "RESET\n");
    assert_eq!(rig.counted(CmdGet), 0);
}

/// To copy a value takes as long as many other requests, and whoever has others to serve turns to
/// them as soon.
#[test]
fn what_is_copied_is_paid_for() {
    let value = "x".repeat(160_000);
    let packet = packet(Opcode::Append as u8, &[], "k", b"x", 0).repeat(9);
    let joins = [
        ("append k 0 0 1\r\nx\r\n".repeat(9).into_bytes(), 8),
        ("prepend k 0 0 1\r\nx\r\n".repeat(9).into_bytes(), 8),
        ("ms k 1 MA\r\nx\r\n".repeat(9).into_bytes(), 4),
        ("md k I E7\r\n".repeat(9).into_bytes(), 4),
        (packet, PACKET_HEAD_BYTES),
    ];
    for (requests, reply_bytes) in joins {
        let mut rig = Rig::new(false);
        let _ = talk(&mut rig, &format!("set k 0 0 160000\n{value}\n"));
        rig.reconnect();
        let replies = rig.stop_after(100, &requests);
        assert_eq!(replies.len(), 3 * reply_bytes, "of 40 each");
    }
}

/// So is a look at all there is, whatever it finds.
#[test]
fn a_look_at_everything_is_paid_for() {
    let packet = |opcode, key| packet(opcode, &[], key, b"", 0);
    // Rows come with the requests of the next turn, if none are left.
    let looks = [
        (b"stats reset\r\n".to_vec(), 3),
        (b"stats slabs\r\n".to_vec(), 2),
        (b"stats items\r\n".to_vec(), 2),
        (b"flush_all\r\n".to_vec(), 3),
        (packet(Opcode::Stat as u8, "reset"), 3),
        (packet(Opcode::Stat as u8, "slabs"), 2),
        (packet(Opcode::Flush as u8, ""), 3),
    ];
    for (look, times) in looks {
        let mut rig = Rig::new(false);
        let one = rig.send(&look, Manner::Whole).len();
        rig.reconnect();
        let replies = rig.stop_after(300, &look.repeat(9));
        assert_eq!(replies.len(), times * one, "{}", String::from_utf8_lossy(&look));
    }
}

#[test]
fn lists_that_come_together_are_counted_as_if_each_came_alone() {
    use Metric::*;
    let list = |number| match number % 8 {
        0 => "gets a b\r\n",
        1 | 2 => "gat 10 a none\r\n",
        3 => "gat 20 a\n",
        4 => "get none  b \r\n",
        _ => "get b\r\n",
    };
    let lists: String = (0..200).map(list).collect();
    let all = [Requests, CmdGet, GetHits, GetMisses, CmdTouch, TouchHits, TouchMisses];
    let outcome = |manner| {
        let mut rig = Rig::new(false);
        let _ = talk(&mut rig, "set a 1 0 1\nx\nset b 123 0 2\nyy\n");
        let reply = rig.send(lists.as_bytes(), manner);
        (reply, all.map(|metric| rig.counted(metric)))
    };
    let together = outcome(Manner::Whole);
    assert_eq!(together.1, [202, 175, 150, 25, 125, 75, 50]);
    assert_eq!(together, outcome(Manner::Bytewise));
}

#[test]
fn statistics_have_memcached_s_names_and_order() {
    let mut rig = Rig::new(false);
    let _ = talk(&mut rig, "verbosity 9\nset k 0 0 1\nx\nget k\n");
    let reply = talk(&mut rig, "stats\n");
    let lines: Vec<_> = reply.lines().collect();
    assert_eq!(lines[0], "STAT pid 7");
    assert_eq!(lines.last(), Some(&"END"));
    for wanted in [
        "uptime 98",
        "time 1700000100",
        "version 1.6.45",
        "ringcached_version 0.0.0",
        "rusage_user 0.000000",
        "curr_items 1",
        "total_items 1",
        "cmd_get 1",
        "get_hits 1",
        "threads 1",
    ] {
        assert!(lines.contains(&format!("STAT {wanted}").as_str()), "{wanted}\n{reply}");
    }
    // All of 1.6.45, up to `lru_bumps_dropped`; then ours.
    let order = "pid uptime time version libevent pointer_size \
        rusage_user rusage_system max_connections \
        curr_connections total_connections rejected_connections connection_structures \
        response_obj_oom response_obj_count response_obj_bytes read_buf_count read_buf_bytes \
        read_buf_bytes_free read_buf_oom reserved_fds cmd_get cmd_set cmd_flush cmd_touch \
        cmd_meta get_hits get_misses get_expired get_flushed delete_misses delete_hits \
        incr_misses incr_hits decr_misses decr_hits cas_misses cas_hits cas_badval touch_hits \
        touch_misses store_too_large store_no_memory auth_cmds auth_errors idle_kicks bytes_read \
        bytes_written limit_maxbytes accepting_conns listen_disabled_num \
        time_in_listen_disabled_us threads conn_yields hash_power_level hash_bytes \
        hash_is_expanding slab_reassign_rescues slab_reassign_chunk_rescues \
        slab_reassign_inline_reclaim slab_reassign_busy_items slab_reassign_busy_deletes \
        slab_reassign_busy_nomem slab_reassign_last_busy_status slab_reassign_running \
        slabs_moved lru_crawler_running lru_crawler_starts lru_maintainer_juggles malloc_fails \
        log_worker_dropped log_worker_written log_watcher_skipped log_watcher_sent log_watchers \
        unexpected_napi_ids round_robin_fallback bytes curr_items total_items \
        slab_global_page_pool expired_unfetched evicted_unfetched evicted_active evictions \
        reclaimed crawler_reclaimed crawler_items_checked lrutail_reflocked moves_to_cold \
        moves_to_warm moves_within_lru direct_reclaims lru_bumps_dropped ringcached_version \
        cmd_delete_prefix deleted_by_prefix promoted ghost_hits upkeep_us reply_waits item_waits \
        span_waits throttle_level throttle_active throttle_parked throttle_parks throttle_deaf \
        connections_parked rate_parked rate_parks rate_held_bytes rate_wait_us rate_forgotten \
        udp_requests udp_replies udp_too_large udp_dropped udp_limited udp_unsent closed_ended \
        closed_broken closed_command closed_stalled closed_draining closed_for_replies \
        closed_for_pool closed_for_items closed_for_spans requests batches batches_queued \
        batches_away queue_full worker_wakes turns_over_budget batches_over_budget ring_sleeps \
        ring_sends direct_receives spans spanned_bytes spans_copied silences_checked \
        silences_broken zero_copy_sends zero_copy_copied busy_us input_bytes conn_bytes \
        ring_turns ring_completions buffers_dry completions_overflowed ring_busy \
        kernel_no_memory page_bytes pages_total pages_free pages_index pages_items pages_log \
        pages_lent pages_debited items_page_bytes index_page_bytes lent_page_bytes \
        debited_page_bytes free_page_bytes limbo_bytes pinned_bytes huge_bytes outside_bytes \
        fixed_bytes rss_limit_bytes";
    let names: Vec<_> = lines.iter().filter_map(|line| line.split(' ').nth(1)).collect();
    assert_eq!(names.join(" "), order);
    assert!(lines[..lines.len() - 1].iter().all(|line| line.split(' ').count() == 3));
    let settings = talk(&mut rig, "stats settings\n");
    assert!(settings.starts_with("STAT maxbytes 67108864\nSTAT verbosity 2\nSTAT "));
    assert!(settings.ends_with("\nEND\n"));
    assert_eq!(talk(&mut rig, "stats conns\n"), "END\n", "without a ring");
    assert_eq!(talk(&mut rig, "stats sizes\n"), "STAT sizes_status disabled\nEND\n");
    assert_eq!(talk(&mut rig, "stats noreply\n"), "ERROR\n");
}

#[test]
fn sizes_are_told_where_that_is_asked_for() {
    let mut rig = Rig::switched(Switches { track_sizes: true, ..Switches::default() });
    assert_eq!(talk(&mut rig, "stats sizes\n"), "END\n");
    assert!(talk(&mut rig, "stats settings\n").starts_with("STAT maxbytes 67108864\n"));
    let sizes = |rig: &mut Rig| -> Vec<(u64, u64)> {
        let rows = talk(rig, "stats sizes\n");
        let row = |row: &str| {
            let mut words = row.strip_prefix("STAT ").expect("a row").split(' ');
            let mut number = || words.next().and_then(|word| word.parse().ok()).expect("a number");
            (number(), number())
        };
        rows.strip_suffix("END\n").expect("the end").lines().map(row).collect()
    };
    // What is told of one key is what is counted for it.
    let mut stored = std::collections::BTreeMap::new();
    for (number, bytes) in [(0, 0), (1, 1), (2, 31), (3, 32), (4, 33), (5, 900), (6, 100_000)] {
        for copy in 0..=number {
            let value = "v".repeat(bytes);
            talk(&mut rig, &format!("set k{number}{copy} 0 0 {bytes}\n{value}\n"));
        }
        let meta = talk(&mut rig, &format!("me k{number}0\n"));
        let (_, size) = meta.trim_end().rsplit_once("size=").expect("a size");
        let size: u64 = size.parse().unwrap();
        *stored.entry(size.div_ceil(32) * 32).or_default() += number + 1;
    }
    assert_eq!(sizes(&mut rig), stored.clone().into_iter().collect::<Vec<_>>());
    assert_eq!(sizes(&mut rig).iter().map(|(_, count)| count).sum::<u64>(), 28);
    talk(&mut rig, "delete k00\ndelete k60\nset k10 0 0 900\n");
    talk(&mut rig, &format!("{}\n", "v".repeat(900)));
    let counted = sizes(&mut rig).iter().map(|(_, count)| count).sum::<u64>();
    assert_eq!(counted, rig.counted(Metric::CurrItems));
    rig.flush();
    assert_eq!(talk(&mut rig, "stats sizes\n"), "END\n");
}

#[test]
fn sizes_are_turned_on_and_off() {
    let mut rig = Rig::new(false);
    talk(&mut rig, "set k 0 0 1\nv\n");
    assert_eq!(talk(&mut rig, "stats sizes\n"), "STAT sizes_status disabled\nEND\n");
    assert_eq!(talk(&mut rig, "stats sizes_enable\n"), "STAT sizes_status enabled\nEND\n");
    assert_eq!(talk(&mut rig, "stats sizes\n"), "STAT 32 1\nEND\n", "it was stored before");
    assert_eq!(talk(&mut rig, "stats sizes_disable\n"), "STAT sizes_status disabled\nEND\n");
    assert_eq!(talk(&mut rig, "stats sizes\n"), "STAT sizes_status disabled\nEND\n");
}

#[test]
fn shutdown_needs_leave() {
    let mut rig = Rig::new(false);
    let refused = "SERVER_ERROR: shutdown not enabled\n";
    assert_eq!(talk(&mut rig, "shutdown\nshutdown nonsense\n"), refused.repeat(2));
    assert_eq!(talk(&mut rig, "shutdown noreply\n"), "");
    assert_eq!(rig.end(), End::Open);
    for text in ["shutdown\n", "shutdown graceful\n"] {
        let mut rig = Rig::new(true);
        let invalid = "CLIENT_ERROR invalid shutdown mode\n";
        assert_eq!(talk(&mut rig, "shutdown nonsense\nshutdown graceful now\n"), invalid.repeat(2));
        assert_eq!(talk(&mut rig, text), "");
        assert_eq!(rig.end(), End::Shutdown);
    }
}

#[test]
fn a_lost_connection_gives_its_memory_back() {
    let mut rig = Rig::new(false);
    // More than the table holds, again and again, each time lost in the middle.
    for _ in 0..2000 {
        let _ = talk(&mut rig, "set lost 0 0 150000\n");
        let _ = rig.send(&[b'x'; 100_000], Manner::Whole);
        rig.reconnect();
    }
    assert_eq!(rig.counted(Metric::CurrItems), 0);
    assert_eq!(talk(&mut rig, "set k 0 0 1\nx\nget k lost\n"), "STORED\nVALUE k 0 1\nx\nEND\n");
}

#[test]
fn a_value_may_not_be_larger_than_an_item() {
    let mut rig = Rig::new(false);
    let _ = talk(&mut rig, "set k 0 0 1\nx\n");
    let large = format!("0 0 {ITEM_BYTES_MAX}\n{}\n", "x".repeat(ITEM_BYTES_MAX));
    let too_large = "SERVER_ERROR object too large for cache\n";
    for verb in ["add", "replace", "append", "prepend"] {
        assert_eq!(talk(&mut rig, &format!("{verb} k {large}")), too_large);
    }
    assert_eq!(talk(&mut rig, "get k\n"), "VALUE k 0 1\nx\nEND\n");
    assert_eq!(talk(&mut rig, &format!("set k {large}")), too_large);
    assert_eq!(talk(&mut rig, "get k\n"), "END\n");
    // What two values make together may not be too large either.
    let half = format!("k 0 0 100000\n{}\n", "x".repeat(100_000));
    assert_eq!(talk(&mut rig, &format!("set {half}append {half}")), "STORED\nNOT_STORED\n");
}

#[test]
fn the_exptime_of_a_list_is_that_of_its_head() {
    let mut rig = Rig::new(false);
    let _ = talk(&mut rig, "set a 0 0 1\nx\nset b 0 0 1\nx\n");
    let _ = rig.send(b"gat 2 a ", Manner::Whole);
    rig.pass_ticks(TICKS_PER_S);
    assert_eq!(talk(&mut rig, "b\n"), "VALUE b 0 1\nx\nEND\n");
    rig.pass_ticks(TICKS_PER_S);
    assert_eq!(talk(&mut rig, "get a b\n"), "END\n");
}

#[test]
fn a_set_that_finds_no_memory_leaves_nothing_old_behind() {
    // Large values are made of pieces: so that each piece is once the one that finds no room.
    for shift in 0..3 {
        let mut rig = Rig::without_eviction();
        // The page of the small values is never empty, so that it does not go to large ones.
        let _ = talk(&mut rig, "set small 0 0 1\nx\n");
        for key in 0..shift {
            let _ = talk(&mut rig, &format!("set s{key} 0 0 100000\n{}\n", "s".repeat(100_000)));
        }
        let rounds = fill_up(&mut rig);
        assert!(rounds > 100, "64 MiB are full after {rounds} values of 150 kB");
    }
}

/// Stores a small value and then a large one for each key, until there is no room for a large one.
fn fill_up(rig: &mut Rig) -> u32 {
    let no_memory = "SERVER_ERROR out of memory storing object\n";
    let large = "x".repeat(150_000);
    for round in 0..1000 {
        let _ = talk(rig, &format!("set k{round} 0 0 1\nx\n"));
        let reply = talk(rig, &format!("set k{round} 0 0 150000\n{large}\n"));
        let kept = talk(rig, &format!("get k{round}\n"));
        if reply == "STORED\n" {
            assert_eq!(kept, format!("VALUE k{round} 0 150000\n{large}\nEND\n"));
            continue;
        }
        assert_eq!((reply.as_str(), kept.as_str()), (no_memory, "END\n"));
        // The other verbs leave what is there alone.
        let replies = talk(rig, &format!("replace k0 0 0 150000\n{large}\nget k0\n"));
        assert_eq!(replies, format!("{no_memory}VALUE k0 0 150000\n{large}\nEND\n"));
        assert_eq!(rig.counted(Metric::StoreNoMemory), 2);
        return round;
    }
    panic!("64 MiB are never full");
}
