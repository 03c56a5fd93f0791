//! The comparison: starts the servers, interleaves the slices, keeps what they found.

use std::fs;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::clients::{Clients, Keys, Sample};
use crate::launcher::{Launcher, stop_on_signals};
use crate::machine::Machine;
use crate::options::{Compare, WorkloadName};
use crate::servers::{self, Kind, Server};

/// All slices of one workload and depth on one server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cell {
    pub workload: String,
    pub depth: u32,
    pub server: String,
    pub samples: Vec<Sample>,
}

/// Everything that was found, and how.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    pub machine: Machine,
    /// The command line of the harness.
    pub command: String,
    /// The command lines of the servers, by label.
    pub servers: Vec<(String, String)>,
    pub null: Option<String>,
    /// The server that ratios are to.
    pub baseline: Option<String>,
    pub cells: Vec<Cell>,
    /// What was left out, and why.
    pub left_out: Vec<String>,
}

/// A folder that does not outlive this.
#[derive(Debug)]
pub struct Scratch(pub PathBuf);

impl Results {
    /// Errors of all slices.
    pub fn errors(&self) -> u64 {
        self.cells.iter().flat_map(|cell| &cell.samples).map(|sample| sample.errors).sum()
    }
}

impl Scratch {
    pub fn new() -> io::Result<Scratch> {
        let name = format!("ringcached-bench-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder)?;
        Ok(Scratch(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed stays in the folder for temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs the comparison. All servers are gone when it returns, however it does.
pub fn run(options: &Compare) -> io::Result<Results> {
    let stop = stop_on_signals()?;
    let scratch = Scratch::new()?;
    let (core, folder) = (options.client_core, scratch.0.clone());
    let clients = Clients { options, launcher: Launcher { core, stop: &stop, folder } };
    let (variants, mut left_out) = servers::variants(options)?;
    let workloads = workloads(options, &mut left_out);
    left_out.iter().for_each(|what| progress(&format!("left out: {what}")));
    if variants.is_empty() || workloads.is_empty() {
        return Err(io::Error::other("nothing to measure"));
    }
    let mut servers = Vec::new();
    for variant in &variants {
        let server = variant.start(options.server_core)?;
        progress(&format!("{}: {} -p {}", server.label, server.command, server.address.port()));
        servers.push(server);
    }
    for server in servers.iter().filter(|server| server.is_real()) {
        let mut filled = Vec::new();
        for workload in &workloads {
            let keys = Keys::of(*workload);
            if !filled.contains(&keys) {
                clients.preload(keys, server)?;
                filled.push(keys);
            }
        }
        server.settle()?;
    }
    let cells = interleave(options, &clients, &workloads, &mut servers)?;
    let labels = |kind| servers.iter().find(|server| server.kind == kind).map(|s| s.label.clone());
    Ok(Results {
        machine: Machine::this(),
        command: std::env::args().collect::<Vec<_>>().join(" "),
        null: labels(Kind::Null),
        baseline: labels(Kind::Memcached),
        servers: servers.iter().map(|s| (s.label.clone(), s.command.clone())).collect(),
        cells,
        left_out,
    })
}

/// What was asked for, as far as its client is there.
fn workloads(options: &Compare, left_out: &mut Vec<String>) -> Vec<WorkloadName> {
    let mut asked = options.workloads();
    asked.retain(|workload| match Clients::missing(*workload) {
        None => true,
        Some(program) => {
            left_out.push(format!("{}: {program} is not on PATH", workload.label()));
            false
        }
    });
    asked
}

/// Runs all slices.
fn interleave(
    options: &Compare,
    clients: &Clients<'_>,
    workloads: &[WorkloadName],
    servers: &mut [Server],
) -> io::Result<Vec<Cell>> {
    let kinds: Vec<Kind> = servers.iter().map(|server| server.kind).collect();
    let plan = plan(options, workloads, &kinds);
    let mut cells: Vec<Cell> = Vec::new();
    for (done, Slice { workload, depth, server }) in plan.iter().enumerate() {
        clients.launcher.check()?;
        let server = &mut servers[*server];
        let sample = clients.run(*workload, *depth, server)?;
        server.check()?;
        let cell = cell(&mut cells, (workload.label(), *depth, server.label.as_str()));
        progress(&format!(
            "{}/{} {} depth {depth} {}: {:.3} us, {:.0} requests/s",
            done + 1,
            plan.len(),
            cell.workload,
            cell.server,
            sample.server.us_per_request,
            sample.requests as f64 / sample.wall_s
        ));
        if sample.errors > 0 {
            progress(&format!("{} errors: {}", sample.errors, sample.notes.join("; ")));
        }
        cell.samples.push(sample);
    }
    cells.sort_by_key(|cell| {
        let workload = workloads.iter().position(|w| w.label() == cell.workload);
        let server = servers.iter().position(|s| s.label == cell.server);
        (workload, cell.depth, server)
    });
    Ok(cells)
}

/// One client on one server, by its index, for a short while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slice {
    workload: WorkloadName,
    depth: u32,
    server: usize,
}

/// Every workload and depth on every server in turn, each round beginning with the next server.
fn plan(options: &Compare, workloads: &[WorkloadName], kinds: &[Kind]) -> Vec<Slice> {
    let mut slices = Vec::new();
    for round in 0..options.rounds() as usize {
        for workload in workloads {
            for depth in &options.depths {
                let servers = (0..kinds.len()).map(|index| (index + round) % kinds.len());
                let able =
                    servers.filter(|at| workload.is_of_one_kind() || kinds[*at] != Kind::Null);
                slices.extend(able.map(|server| Slice {
                    workload: *workload,
                    depth: *depth,
                    server,
                }));
            }
        }
    }
    slices
}

fn cell<'a>(cells: &'a mut Vec<Cell>, label: (&str, u32, &str)) -> &'a mut Cell {
    let found = cells
        .iter()
        .position(|cell| (cell.workload.as_str(), cell.depth, cell.server.as_str()) == label);
    let index = found.unwrap_or_else(|| {
        let (workload, depth, server) = (label.0.to_owned(), label.1, label.2.to_owned());
        cells.push(Cell { workload, depth, server, samples: Vec::new() });
        cells.len() - 1
    });
    &mut cells[index]
}

#[allow(clippy::print_stderr, reason = "a run takes minutes; somebody is watching")]
pub fn progress(line: &str) {
    eprintln!("{line}");
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::options::{Command, Options};

    #[test]
    fn every_round_begins_with_another_server() {
        let words = ["x", "compare", "--slices", "2", "--depths", "1"];
        let Command::Compare(options) = Options::parse_from(words).command else {
            unreachable!("compare was asked for");
        };
        let kinds = [Kind::Null, Kind::Ringcached, Kind::Memcached];
        let slices = plan(&options, &[WorkloadName::Gets, WorkloadName::Mix], &kinds);
        let of = |workload| -> Vec<usize> {
            slices.iter().filter(|s| s.workload == workload).map(|s| s.server).collect()
        };
        assert_eq!(of(WorkloadName::Gets), [0, 1, 2, 1, 2, 0]);
        assert_eq!(of(WorkloadName::Mix), [1, 2, 1, 2], "without the null server");
    }

    #[test]
    fn samples_of_one_kind_share_a_cell() {
        let mut cells = Vec::new();
        for label in [("gets", 1, "a"), ("gets", 16, "a"), ("gets", 1, "b"), ("gets", 1, "a")] {
            let _ = cell(&mut cells, label);
        }
        assert_eq!(cells.len(), 3);
    }
}
