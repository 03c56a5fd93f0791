//! Datagrams of any bytes to a small real table, and their requests in connections to another one.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    ringcached::server::datagrams::fuzzing::replies_are_framed_and_bounded(data);
});
