//! Arbitrary bytes, cut anywhere, to the parser and the executor on a small real table.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    ringcached::command::fuzzing::replies_do_not_depend_on_cuts(data);
});
