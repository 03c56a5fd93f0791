//! Properties of the source text itself, checked by `cargo test` rather than by a reviewer.
//!
//! `lexer` blanks what is not code, `rooms` knows who may import whom, `shape` counts lines,
//! columns and `unsafe`, `readme` holds README.md to what exists. Every checker is a function from
//! text to complaints, so that each is itself tested on text that must fail.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod lexer;
mod readme;
mod rooms;
mod shape;

use std::path::{Path, PathBuf};

/// Folders that hold sources of ours, relative to the root of the workspace.
const FOLDERS: &[&str] = &["src", "tests", "tools", "bench", "fuzz"];

/// Where and what: `src/net/mod.rs:12: line too long`.
pub type Complaints = Vec<String>;

#[test]
fn sources_are_tidy() {
    let mut complaints = Complaints::new();
    let mut rust_files = 0;
    for path in FOLDERS.iter().flat_map(|folder| files(&root().join(folder))) {
        let name = relative(&path);
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        if path.extension().is_some_and(|ext| ext == "rs") {
            rust_files += 1;
            shape::check_rust(&name, &text, &mut complaints);
            rooms::check(&name, &text, &mut complaints);
        } else if shape::is_script(&name, &text) {
            shape::check_script(&name, &text, &mut complaints);
        }
    }
    assert!(rust_files > 10, "only {rust_files} Rust files found: the walk is broken");
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn rooms_import_each_other_without_a_cycle() {
    let mut complaints = Complaints::new();
    let texts: Vec<(String, String)> = files(&root().join("src"))
        .iter()
        .filter(|path| path.extension().is_some_and(|ext| ext == "rs"))
        .map(|path| (relative(path), std::fs::read_to_string(path).unwrap()))
        .collect();
    let edges = texts.iter().flat_map(|(name, text)| rooms::edges(name, text)).collect();
    rooms::check_acyclic(&edges, &mut complaints);
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn unsafe_budgets_name_files_that_exist() {
    for (name, budget) in shape::UNSAFE_BUDGET {
        assert!(root().join(name).is_file(), "{name} has a budget but is not there");
        assert!(*budget > 0, "{name}: a budget of 0 is what every file has");
    }
}

#[test]
fn readme_names_what_exists() {
    let text = std::fs::read_to_string(root().join("README.md")).unwrap();
    let help = std::process::Command::new(env!("CARGO_BIN_EXE_ringcached"))
        .arg("--help")
        .output()
        .unwrap();
    assert!(help.status.success(), "ringcached --help failed: {:?}", help.status);
    let house = readme::House {
        root: root().to_path_buf(),
        options: readme::options_of_help(&String::from_utf8_lossy(&help.stdout)),
        manifests: files(root())
            .into_iter()
            .filter(|path| path.file_name().is_some_and(|name| name == "Cargo.toml"))
            .map(|path| std::fs::read_to_string(path).unwrap())
            .collect(),
    };
    let mut complaints = Complaints::new();
    readme::check(&text, &house, &mut complaints);
    readme::check_whole(&text, &house, &mut complaints);
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().to_str().unwrap().into()
}

/// All files below a folder, in order, without what builds and tools leave behind.
fn files(folder: &Path) -> Vec<PathBuf> {
    const SKIPPED: &[&str] =
        &["target", ".git", "corpus", "artifacts", "__pycache__", "proptest-regressions"];
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && !SKIPPED.contains(&name) {
            found.extend(files(&path));
        } else if path.is_file() {
            found.push(path);
        }
    }
    found
}
