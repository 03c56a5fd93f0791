//! ringcached-bench: measures ringcached, its store, its null server and its peers side by side.

mod clients;
mod compare;
mod cores;
mod crowd;
mod instructions;
mod latency;
mod launcher;
mod machine;
mod neighbours;
mod null;
mod options;
mod replay;
mod servers;
mod shared;
mod store;
mod table;

use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use serde::Serialize;

use crate::crowd::options::Crowd;
use crate::latency::options::Latency;
use crate::neighbours::options::Neighbours;
use crate::options::{Command, Compare, Options};
use crate::replay::Replay;

#[allow(clippy::print_stderr, reason = "this is where the program says why it failed")]
fn main() -> ExitCode {
    let done = match Options::parse().command {
        Command::Instructions(options) => instructions::run(&options),
        Command::Latency(options) => latency_and_print(&options),
        Command::Load(options) => return ringcached_load::main_with(&options),
        Command::Neighbour(options) => neighbours::be_bad(&options),
        Command::Neighbours(options) => neighbours_and_print(&options),
        Command::NullServer(options) => null::run(&options),
        Command::Compare(options) => compare_and_print(&options),
        Command::Crowd(options) => crowd_and_print(&options),
        Command::Replay(options) => replay_and_print(&options),
        Command::Shared(options) => shared::run(&options),
        Command::Store(options) => store::run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("ringcached-bench: {e}");
            ExitCode::FAILURE
        }
    }
}

fn compare_and_print(options: &Compare) -> io::Result<()> {
    let results = compare::run(options)?;
    let files = (options.markdown.as_deref(), options.json.as_deref());
    publish(&table::markdown(&results), &results, files, results.errors())
}

fn crowd_and_print(options: &Crowd) -> io::Result<()> {
    let results = crowd::run(options)?;
    let files = (options.markdown.as_deref(), options.json.as_deref());
    publish(&crowd::sheets(&results), &results, files, results.errors())
}

fn latency_and_print(options: &Latency) -> io::Result<()> {
    let results = latency::run(options)?;
    let files = (options.markdown.as_deref(), options.json.as_deref());
    publish(&latency::sheet(&results), &results, files, results.errors())
}

fn neighbours_and_print(options: &Neighbours) -> io::Result<()> {
    let results = neighbours::run(options)?;
    let files = (options.markdown.as_deref(), options.json.as_deref());
    publish(&neighbours::sheet(&results), &results, files, results.errors())
}

/// Prints a table, and writes it and what it was made of to files, the latter as JSON.
#[allow(clippy::print_stdout, reason = "this is the program's output")]
fn publish(
    text: &str,
    results: &impl Serialize,
    (markdown, json): (Option<&Path>, Option<&Path>),
    errors: u64,
) -> io::Result<()> {
    println!("{text}");
    if let Some(path) = markdown {
        fs::write(path, text)?;
    }
    if let Some(path) = json {
        fs::write(path, serde_json::to_string_pretty(results)?)?;
    }
    match errors {
        0 => Ok(()),
        count => Err(io::Error::other(format!("{count} errors; the table says where"))),
    }
}

#[allow(clippy::print_stdout, reason = "this is the program's output")]
fn replay_and_print(options: &Replay) -> io::Result<()> {
    let text = replay::run(options)?;
    println!("{text}");
    match &options.markdown {
        Some(path) => fs::write(path, &text),
        None => Ok(()),
    }
}
