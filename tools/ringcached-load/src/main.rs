//! ringcached-load: arguments in, exit code out.

use std::process::ExitCode;

use clap::Parser;
use ringcached_load::options::Options;

fn main() -> ExitCode {
    ringcached_load::main_with(&Options::parse())
}
