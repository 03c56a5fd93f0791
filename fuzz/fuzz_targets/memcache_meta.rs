//! As `memcache_text`, with another dictionary and other seeds: meta commands.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    ringcached::command::fuzzing::replies_do_not_depend_on_cuts(data);
});
