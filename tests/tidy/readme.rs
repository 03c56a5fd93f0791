//! README.md, held against what exists: options, files and commands.
//!
//! Options are the words with a dash that a code span starts with, or that follow `ringcached` on
//! a command line. Files are the paths in code spans and links. Commands are the first words of
//! the lines of `sh` blocks; of `cargo` also the subcommand and the package.

use super::Complaints;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// What there is to name.
pub struct House {
    pub root: PathBuf,
    /// `-m`, `--memory-limit`: what the server's help lists.
    pub options: BTreeSet<String>,
    /// The text of every Cargo.toml of the workspace.
    pub manifests: Vec<String>,
}

/// Programs of the system that a reader is told to run.
const SYSTEM: &[&str] = &[
    "apt",
    "cd",
    "cp",
    "curl",
    "docker",
    "echo",
    "git",
    "install",
    "journalctl",
    "jq",
    "kill",
    "ls",
    "memcaslap",
    "memtier_benchmark",
    "nc",
    "printf",
    "sudo",
    "sysctl",
    "systemctl",
    "systemd-analyze",
    "ulimit",
];

const CARGO: &[&str] =
    &["bench", "build", "clippy", "deny", "doc", "fmt", "install", "run", "test"];

/// Suffixes that make a word without a slash the name of a file at the root.
const SUFFIXES: &[&str] = &[".md", ".toml", ".lock", ".rs"];

/// The options that the help text of a program lists.
pub fn options_of_help(help: &str) -> BTreeSet<String> {
    let opening = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    opening
        // The words before the text that explains them.
        .flat_map(|line| {
            line.split("  ").next().unwrap_or_default().split([' ', ',', '=', '[', '.'])
        })
        .filter(|word| is_option(word))
        .map(String::from)
        .collect()
}

/// Complains of every name in the text that names nothing.
pub fn check(text: &str, house: &House, complaints: &mut Complaints) {
    let mut fence: Option<String> = None;
    for (index, line) in text.lines().enumerate() {
        let mut complain = |what: String| {
            complaints.push(format!("README.md:{}: {what}", index + 1));
        };
        if let Some(language) = line.trim_start().strip_prefix("```") {
            fence = if fence.is_none() { Some(language.into()) } else { None };
        } else if let Some(language) = &fence {
            if language == "sh" {
                check_command(line, house, &mut complain);
            }
        } else {
            for span in line.split('`').skip(1).step_by(2) {
                check_span(span, house, &mut complain);
            }
            for link in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
                if !link.contains("://") && !link.starts_with('#') {
                    check_path(link, house, &mut complain);
                }
            }
        }
    }
    if fence.is_some() {
        complaints.push("README.md: a fence is not closed".into());
    }
}

/// Complains of every long option that the text does not name.
pub fn check_whole(text: &str, house: &House, complaints: &mut Complaints) {
    for option in house.options.iter().filter(|option| option.starts_with("--")) {
        let ends = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '-');
        if !text.match_indices(option.as_str()).any(|(at, _)| ends(&text[at + option.len()..])) {
            complaints.push(format!("README.md: nothing on {option}"));
        }
    }
}

fn check_span(span: &str, house: &House, complain: &mut impl FnMut(String)) {
    let first = span.split_whitespace().next().unwrap_or_default();
    if is_option(first) || is_server(first) {
        check_options(span, house, complain);
    } else if SYSTEM.contains(&first) || first == "cargo" {
        check_command(span, house, complain);
    } else if first == span {
        let top = span.split('/').next().unwrap_or_default();
        let is_ours = span.contains('/') && house.root.join(top).exists() && !top.is_empty();
        let is_file = SUFFIXES.iter().any(|suffix| span.ends_with(suffix));
        if is_ours || (is_file && !span.contains('/')) {
            check_path(span, house, complain);
        }
    } else if first.contains('/') && !first.starts_with('/') {
        check_path(first, house, complain);
    }
}

/// One line of shell: its commands are joined by `|`, `&&` and `;`.
fn check_command(line: &str, house: &House, complain: &mut impl FnMut(String)) {
    let line = line.split(" #").next().unwrap_or_default();
    for command in line.split(['|', ';']).flat_map(|part| part.split("&&")) {
        let mut words = command.split_whitespace().skip_while(|word| is_prefix(word)).peekable();
        let Some(program) = words.peek().copied() else { continue };
        if program.starts_with('#') {
            continue;
        } else if program == "cargo" {
            check_cargo(command, house, complain);
        } else if is_server(program) {
            check_options(command, house, complain);
        } else if program.contains('/') && !program.starts_with('/') {
            check_path(program, house, complain);
        } else if !SYSTEM.contains(&program) && !is_tool(program, house) {
            complain(format!("no command {program}"));
        }
    }
}

fn check_cargo(command: &str, house: &House, complain: &mut impl FnMut(String)) {
    let words: Vec<_> = command.split_whitespace().take_while(|word| *word != "--").collect();
    let subcommand = words.get(1).copied().unwrap_or_default();
    if !CARGO.contains(&subcommand) {
        complain(format!("no cargo {subcommand}"));
    }
    for pair in words.windows(2) {
        if ["-p", "--package", "--bin"].contains(&pair[0]) && !is_tool(pair[1], house) {
            complain(format!("no package {}", pair[1]));
        }
    }
    let other = words.iter().any(|word| ["-p", "--package", "--bin"].contains(word));
    if let (Some((_, arguments)), "run", false) = (command.split_once(" -- "), subcommand, other) {
        check_options(arguments, house, complain);
    }
}

fn check_options(words: &str, house: &House, complain: &mut impl FnMut(String)) {
    for word in words.split([' ', ',', '|']).filter(|word| is_option(word)) {
        let name = word.split('=').next().unwrap_or_default();
        if !house.options.contains(name) {
            complain(format!("no option {name}"));
        }
    }
}

fn check_path(path: &str, house: &House, complain: &mut impl FnMut(String)) {
    let path = path.split('#').next().unwrap_or_default();
    // What a build makes cannot be asked for.
    if !path.starts_with("target/") && !house.root.join(path).exists() {
        complain(format!("no file {path}"));
    }
}

fn is_option(word: &str) -> bool {
    let name = word.strip_prefix("--").or_else(|| word.strip_prefix('-')).unwrap_or_default();
    name.starts_with(|c: char| c.is_ascii_alphabetic())
}

fn is_server(word: &str) -> bool {
    word == "ringcached" || word.ends_with("/ringcached")
}

/// `sudo` and assignments stand before the command.
fn is_prefix(word: &str) -> bool {
    word == "sudo" || word.split_once('=').is_some_and(|(name, _)| !name.contains(['/', '-']))
}

/// A package or program of the workspace.
fn is_tool(name: &str, house: &House) -> bool {
    let line = format!("name = \"{name}\"");
    house.manifests.iter().any(|manifest| manifest.lines().any(|each| each.trim() == line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn house() -> House {
        House {
            root: super::super::root().to_path_buf(),
            options: options_of_help(
                "Usage: x [OPTIONS]\n\n  -m, --memory-limit <MIB>  Memory -q\n      --check\n  \
                 -o, --extended=<LIST>\n  -v, --verbose...\n",
            ),
            manifests: vec!["[package]\nname = \"ringcached\"\n".into()],
        }
    }

    fn complaints(text: &str) -> Complaints {
        let mut complaints = Complaints::new();
        check(text, &house(), &mut complaints);
        complaints
    }

    #[test]
    fn help_lists_its_options() {
        let wanted = ["--check", "--extended", "--memory-limit", "--verbose", "-m", "-o", "-v"];
        assert_eq!(house().options, wanted.map(String::from).into());
    }

    #[test]
    fn names_of_nothing_are_found() {
        let bad = [
            "Say `-q`.",
            "Say `--memory-limits`.",
            "| `-m`, `--nothing` | x |",
            "`ringcached -m 5 --daemon`",
            "See `src/nowhere/mod.rs`.",
            "See `MISSING.md`.",
            "See [it](docs/missing.md).",
            "```sh\ncargo frobnicate\n```",
            "```sh\ncargo run -p nobody -- -m 5\n```",
            "```sh\ncargo run --release -- --nothing\n```",
            "```sh\ntools/nothing --fast\n```",
            "```sh\nfrobnicate\n```",
            "```sh\necho a | frobnicate\n```",
            "```sh\ntarget/release/ringcached --nothing\n```",
            "```sh\ncd ringcached",
        ];
        for text in bad {
            assert_eq!(complaints(text).len(), 1, "{text}: {:?}", complaints(text));
        }
    }

    #[test]
    fn an_option_that_is_not_named_is_found() {
        let mut complaints = Complaints::new();
        check_whole(
            "`--check` `--extended` `--memory-limits` --verbose",
            &house(),
            &mut complaints,
        );
        assert_eq!(complaints, ["README.md: nothing on --memory-limit"]);
    }

    #[test]
    fn names_of_something_pass() {
        let good = [
            "Say `-m 64` or `--memory-limit=64` or `--check`; `get k` is a command.",
            "See `src/lib.rs`, `Cargo.toml`, `src`, [the rules](tests/tidy/main.rs#L1).",
            "[memcached](https://memcached.org) `a/b`",
            "```sh\ncargo run --release -- -m 64 # comment --nothing\n```",
            "```sh\ncargo run -p ringcached -- -p 64\n```",
            "```sh\n# a comment\nsudo systemctl start x && A=b ringcached --check\n```",
            "```text\nfrobnicate\n```",
            "```sh\necho stats | nc -u -w1 127.0.0.1 11211\n```",
        ];
        for text in good {
            assert_eq!(complaints(text), Complaints::new(), "{text}");
        }
    }
}
