//! Sizes, opening words and budgets: what can be said of one file by looking at it alone.

use super::Complaints;
use super::lexer::{close_of, code, line_of, words};

const COLUMNS_MAX: usize = 100;
const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;

/// Files that may say `unsafe`, and how often. Every other file: never.
pub const UNSAFE_BUDGET: &[(&str, usize)] = &[
    ("src/store/arena/mod.rs", 4),
    ("src/store/arena/pin.rs", 1),
    ("src/store/arena/reservation.rs", 2),
    ("src/store/arena/watched.rs", 1),
    ("src/store/arena/words.rs", 2),
    ("src/store/models.rs", 1),
    ("src/sys/blocks.rs", 5),
    ("src/sys/buffers.rs", 9),
    ("src/sys/daemon.rs", 1),
    ("src/sys/entry.rs", 1),
    ("src/sys/fake.rs", 2),
    ("src/sys/gather.rs", 1),
    ("src/sys/heap.rs", 1),
    ("src/sys/landing.rs", 3),
    ("src/sys/probe/collapse.rs", 8),
    ("src/sys/probe/host.rs", 4),
    ("src/sys/probe/rig.rs", 7),
    ("src/sys/probe/tests.rs", 7),
    ("src/sys/probe/trial.rs", 2),
    ("src/sys/region.rs", 19),
    ("src/sys/region/span.rs", 8),
    ("src/sys/socket.rs", 4),
    ("src/sys/thread.rs", 5),
    ("src/sys/uring.rs", 5),
    ("src/sys/uring/clockwork.rs", 1),
    ("src/sys/uring/sending.rs", 1),
    ("src/sys/uring/tests.rs", 1),
    ("src/sys/wake.rs", 3),
];

/// How many lines above an `unsafe` its argument may end: attributes and a `let` stand between.
const SAFETY_DISTANCE: usize = 3;

/// Words for work put off; spelt so that this file does not hold them.
const POSTPONED: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];

/// The rules for a Rust file.
pub fn check_rust(name: &str, text: &str, complaints: &mut Complaints) {
    check_lines(name, text, complaints);
    if !text.starts_with("//! ") {
        complaints.push(format!("{name}:1: no module doc"));
    }
    let code = code(text);
    for at in words(&code, "fn") {
        let start = line_of(&code, at);
        let Some(end) = body_end(&code, at) else { continue };
        let lines = line_of(&code, end - 1) - start + 1;
        if lines > FUNCTION_LINES_MAX {
            complaints.push(format!("{name}:{start}: function of {lines} lines"));
        }
    }
    check_unsafe(name, text, &code, complaints);
}

/// The rules for a script: shell, Python, or a program without a suffix that starts with `#!`.
pub fn check_script(name: &str, text: &str, complaints: &mut Complaints) {
    check_lines(name, text, complaints);
    let mut opening = text.lines().skip_while(|line| line.starts_with("#!"));
    let documented = opening
        .find(|line| !line.trim().is_empty())
        .is_some_and(|line| line.starts_with("# ") || line.starts_with("\"\"\""));
    if !documented {
        complaints.push(format!("{name}:1: does not open by saying what it is"));
    }
}

pub fn is_script(name: &str, text: &str) -> bool {
    name.ends_with(".py") || name.ends_with(".sh") || text.starts_with("#!")
}

fn check_lines(name: &str, text: &str, complaints: &mut Complaints) {
    let lines = text.lines().count();
    if lines > FILE_LINES_MAX {
        complaints.push(format!("{name}:{lines}: file too long"));
    }
    for (index, line) in text.lines().enumerate() {
        let columns = line.chars().count();
        if columns > COLUMNS_MAX {
            complaints.push(format!("{name}:{}: line of {columns} columns", index + 1));
        }
        if let Some(word) = POSTPONED.iter().find(|word| words(line, word).next().is_some()) {
            complaints.push(format!("{name}:{}: {word}", index + 1));
        }
    }
}

/// The end of the function whose `fn` is at `at`; none for a declaration or a function pointer.
fn body_end(code: &str, at: usize) -> Option<usize> {
    let named = code[at + 2..].trim_start().starts_with(|c: char| c.is_alphabetic() || c == '_');
    let (mut depth, bytes) = (0, code.as_bytes());
    for (offset, byte) in bytes.iter().enumerate().skip(at) {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b';' if depth == 0 => return None,
            b'{' if depth == 0 && named => return close_of(code, offset),
            _ => {}
        }
        if depth < 0 {
            return None;
        }
    }
    None
}

fn check_unsafe(name: &str, text: &str, code: &str, complaints: &mut Complaints) {
    let budget = UNSAFE_BUDGET.iter().find(|(file, _)| *file == name).map_or(0, |(_, max)| *max);
    let lines: Vec<_> = text.lines().collect();
    let mut count = 0;
    for at in words(code, "unsafe") {
        count += 1;
        let line = line_of(code, at);
        if !is_argued(&lines[..line]) && !code[at..].starts_with("unsafe fn") {
            complaints.push(format!("{name}:{line}: unsafe without a SAFETY comment"));
        }
    }
    if count > budget {
        complaints.push(format!("{name}:1: {count} times unsafe, budget {budget}"));
    }
}

/// Whether the comment that stands right above the last of `lines` argues for safety.
fn is_argued(lines: &[&str]) -> bool {
    let is_comment = |line: &&&str| line.trim_start().starts_with("//");
    let above = lines.iter().rev();
    let Some(skip) = above.clone().take(SAFETY_DISTANCE + 1).position(|line| is_comment(&line))
    else {
        return false;
    };
    above.skip(skip).take_while(is_comment).any(|line| line.contains("SAFETY:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rust(name: &str, text: &str) -> Complaints {
        let mut complaints = Complaints::new();
        check_rust(name, text, &mut complaints);
        complaints
    }

    #[track_caller]
    fn assert_one(complaints: &Complaints, what: &str) {
        assert_eq!(complaints.len(), 1, "{complaints:?}");
        assert!(complaints[0].contains(what), "{complaints:?}");
    }

    fn function(lines: usize) -> String {
        format!("//! A.\nfn f(\n    a: [u8; 2],\n) {{\n{}}}\n", "    g(\"}\");\n".repeat(lines - 4))
    }

    #[test]
    fn each_rule_fails_on_a_bad_file() {
        assert_eq!(rust("src/a.rs", "//! A.\nfn f() {}\n"), Complaints::new());
        assert_one(&rust("src/a.rs", "// A.\nfn f() {}\n"), "no module doc");
        let wide = format!("//! A.\n// {}\n", "é".repeat(98));
        assert_one(&rust("src/a.rs", &wide), ":2: line of 101 columns");
        assert_one(&rust("src/a.rs", &format!("//! A.\n{}", "\n".repeat(600))), "file too long");
        assert_eq!(rust("src/a.rs", &function(70)), Complaints::new());
        assert_one(&rust("src/a.rs", &function(71)), ":2: function of 71 lines");
        for word in POSTPONED {
            assert_one(&rust("src/a.rs", &format!("//! A.\n// {word}: later\n")), word);
        }
    }

    #[test]
    fn declarations_and_pointers_have_no_body() {
        let text = format!(
            "//! A.\ntrait T {{\n    fn f(&self) -> [u8; 4];\n}}\nstruct S {{ f: fn() -> u8 }}\n{}",
            "const C: u8 = 1;\n".repeat(80)
        );
        assert_eq!(rust("src/a.rs", &text), Complaints::new());
    }

    #[test]
    fn unsafe_is_budgeted_and_argued() {
        let argued = "//! A.\n// SAFETY: R1.\nlet a = unsafe { b() };\n";
        assert_one(&rust("src/a.rs", argued), "1 times unsafe, budget 0");
        let bare = rust("src/a.rs", "//! A.\n\nlet a = unsafe { b() };\n");
        assert_eq!(bare.len(), 2, "{bare:?}");
        assert!(bare[0].contains(":3: unsafe without a SAFETY comment"), "{bare:?}");
        let distant = "//! A.\n// SAFETY: R1\n// and R2.\n#[inline]\nunsafe impl Send for A {}\n";
        assert_one(&rust("src/a.rs", distant), "budget 0");
        let quoted =
            "//! unsafe {\nconst A: &str = \"unsafe {\"; // unsafe\n#![forbid(unsafe_code)]";
        assert_eq!(rust("src/a.rs", quoted), Complaints::new());
    }

    #[test]
    fn scripts_say_what_they_are() {
        let mut complaints = Complaints::new();
        check_script("tools/a", "#!/bin/sh\n# Runs a.\ntrue\n", &mut complaints);
        check_script(
            "tests/a.py",
            "#!/usr/bin/env python3\n\"\"\"Tests a.\"\"\"\n",
            &mut complaints,
        );
        assert_eq!(complaints, Complaints::new());
        check_script("tools/a", "#!/bin/sh\nset -eu\n", &mut complaints);
        assert_one(&complaints, "does not open");
        assert!(is_script("tools/test", "#!/usr/bin/env bash\n"));
        assert!(!is_script("tests/transcripts/get.txt", "# get\n"));
    }
}
