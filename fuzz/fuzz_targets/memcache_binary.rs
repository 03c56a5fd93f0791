//! Packets, cut anywhere, to the parser and the executor on a small real table; to one that asks
//! peers who they are, too.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    ringcached::command::fuzzing::replies_do_not_depend_on_cuts(data);
    ringcached::command::fuzzing::replies_to_strangers_do_not_depend_on_cuts(data);
});
