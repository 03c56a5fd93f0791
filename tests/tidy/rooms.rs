//! Who may import whom: DESIGN.md's table of rooms, held against every path in the sources.

use super::Complaints;
use super::lexer::{close_of, code, line_of, words};
use std::collections::{BTreeMap, BTreeSet};

/// Each room and what it may import: a room, or one module of a room. Every row names only rooms
/// of earlier rows, so the table has no cycle.
pub const ROOMS: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("sys", &["base"]),
    ("protocol", &["base"]),
    ("net", &["base", "sys"]),
    ("store", &["base", "sys::region"]),
    ("command", &["base", "protocol", "store"]),
    ("config", &["base", "sys", "net", "store"]),
    ("server", &["base", "sys", "protocol", "net", "store", "command", "config"]),
    // Signals and waiting are the kernel's; their `unsafe` may only be in `sys`.
    (
        "admin",
        &["base", "sys::daemon", "sys::poll", "sys::signals", "sys::wake", "config", "server"],
    ),
];

/// What `main.rs` composes; it is in no room.
const MAIN: &[&str] = &["base", "config", "server", "admin"];

/// Complains of each import that the table does not grant.
pub fn check(name: &str, text: &str, complaints: &mut Complaints) {
    let Some(path) = name.strip_prefix("src/") else { return };
    let first = path.split('/').next().unwrap_or_default();
    let (room, allowed) = match ROOMS.iter().find(|(room, _)| *room == first) {
        Some((room, allowed)) => (*room, *allowed),
        None if path == "main.rs" => ("main.rs", MAIN),
        None if path == "lib.rs" => ("lib.rs", [].as_slice()),
        None => return complaints.push(format!("{name}:1: {first} is not a room")),
    };
    let code = code(text);
    for (offset, import) in imports(&code) {
        let granted = |grant: &&&str| {
            import == ***grant || import.strip_prefix(**grant).is_some_and(|r| r.starts_with("::"))
        };
        let target = import.split("::").next().unwrap_or_default();
        let is_room = ROOMS.iter().any(|(room, _)| *room == target);
        if is_room && target != room && !allowed.iter().any(|grant| granted(&grant)) {
            let line = line_of(&code, offset);
            complaints.push(format!("{name}:{line}: {room} may not import {import}"));
        }
    }
    for offset in supers_beyond_the_room(path, &code) {
        let line = line_of(&code, offset);
        complaints.push(format!("{name}:{line}: another room is named by crate::, not super::"));
    }
}

/// The pairs of rooms (importing, imported) in one file.
pub fn edges(name: &str, text: &str) -> Vec<(String, String)> {
    let Some((room, _)) = name.strip_prefix("src/").and_then(|path| path.split_once('/')) else {
        return Vec::new();
    };
    imports(&code(text))
        .into_iter()
        .map(|(_, path)| path.split("::").next().unwrap_or_default().to_string())
        .filter(|target| target != room && ROOMS.iter().any(|(name, _)| name == target))
        .map(|target| (room.to_string(), target))
        .collect()
}

/// Complains of rooms that import each other, however far around.
pub fn check_acyclic(edges: &BTreeSet<(String, String)>, complaints: &mut Complaints) {
    let mut rest: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (from, to) in edges {
        rest.entry(from).or_default().insert(to);
        rest.entry(to).or_default();
    }
    loop {
        let done: Vec<_> =
            rest.iter().filter(|(_, to)| to.is_empty()).map(|(room, _)| *room).collect();
        if done.is_empty() {
            break;
        }
        rest.retain(|room, _| !done.contains(room));
        rest.values_mut().for_each(|to| to.retain(|room| !done.contains(room)));
    }
    if !rest.is_empty() {
        complaints.push(format!("rooms import each other in a circle: {rest:?}"));
    }
}

/// Every path that starts at the root of the crate, with its offset and without that root.
fn imports(code: &str) -> Vec<(usize, String)> {
    let roots = ["crate", "ringcached"];
    let mut found = Vec::new();
    for root in roots {
        for offset in words(code, root) {
            if let Some(tree) = code[offset + root.len()..].trim_start().strip_prefix("::") {
                expand(tree, "", &mut |path| found.push((offset, path)));
            }
        }
    }
    found
}

/// Walks a use tree: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn expand(tree: &str, prefix: &str, found: &mut impl FnMut(String)) {
    let tree = tree.trim_start();
    if let Some(inside) = tree.strip_prefix('{') {
        let end = close_of(tree, 0).map_or(inside.len(), |end| end - 2);
        split_list(&inside[..end]).iter().for_each(|branch| expand(branch, prefix, found));
        return;
    }
    let word: String = tree.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    if word.is_empty() {
        return found(prefix.trim_end_matches("::").into());
    }
    match tree[word.len()..].trim_start().strip_prefix("::") {
        Some(rest) => expand(rest, &format!("{prefix}{word}::"), found),
        None => found(format!("{prefix}{word}")),
    }
}

/// Splits at the commas that are in no inner braces.
fn split_list(list: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, byte) in list.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            b',' if depth == 0 => {
                parts.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&list[start..]);
    parts.retain(|part| !part.trim().is_empty());
    parts
}

/// Offsets of `super::` chains that climb out of the room that `path` (below `src`) is in.
fn supers_beyond_the_room(path: &str, code: &str) -> Vec<usize> {
    // Depth of the file's own module: `net/mod.rs` is 1, `net/a.rs` 2.
    let depth = path.trim_end_matches("/mod.rs").split('/').count();
    let inner: Vec<_> = words(code, "mod")
        .filter_map(|at| {
            let open = at + code[at..].find(['{', ';'])?;
            (code.as_bytes()[open] == b'{').then(|| (open, close_of(code, open)))
        })
        .collect();
    let mut found = Vec::new();
    let mut after = 0;
    for offset in words(code, "super") {
        if offset < after {
            continue;
        }
        let mut climbed = 0;
        let mut rest = &code[offset..];
        while let Some(next) = rest.strip_prefix("super::") {
            (climbed, rest) = (climbed + 1, next);
        }
        after = code.len() - rest.len();
        let within = |(open, close): &&(usize, Option<usize>)| {
            *open < offset && close.is_none_or(|close| offset < close)
        };
        let here = depth + inner.iter().filter(within).count();
        if climbed >= here && depth > 0 {
            found.push(offset);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(name: &str, text: &str) -> Complaints {
        let mut complaints = Complaints::new();
        check(name, text, &mut complaints);
        complaints
    }

    #[test]
    fn the_table_is_in_dependency_order() {
        for (index, (room, imports)) in ROOMS.iter().enumerate() {
            for import in *imports {
                let target = import.split("::").next();
                let above = ROOMS[..index].iter().any(|(name, _)| Some(*name) == target);
                assert!(above, "{room} imports {import}, which is not above it");
            }
        }
    }

    #[test]
    fn forbidden_imports_are_found_however_they_are_written() {
        let bad = [
            ("src/base/a.rs", "use crate::sys::ring;"),
            ("src/base/a.rs", "fn f() { crate::store::Table::open() }"),
            ("src/store/a.rs", "use crate::sys::ring::Ring;"),
            ("src/store/a.rs", "use crate::sys;"),
            ("src/store/a.rs", "use crate::{base::Now, sys::{region, ring}};"),
            ("src/store/a.rs", "use crate::{\n    base::Now,\n    protocol::{self},\n};"),
            ("src/protocol/a.rs", "use crate :: store::Item;"),
            ("src/net/mod.rs", "use super::server::Ring;"),
            ("src/net/a.rs", "use super::super::server::Ring;"),
            ("src/net/a.rs", "mod tests { use super::super::super::server::Ring; }"),
            ("src/main.rs", "use ringcached::{config::Plan, store::Table};"),
            ("src/lib.rs", "use crate::base::Now;"),
            ("src/util/mod.rs", "//! A room that nobody planned."),
        ];
        for (name, text) in bad {
            assert_eq!(complaints(name, text).len(), 1, "{name}: {text}");
        }
    }

    #[test]
    fn granted_imports_pass() {
        let good = [
            ("src/store/a.rs", "use crate::sys::region::Region; use crate::store::index;"),
            ("src/store/a.rs", "use crate::{base::{self, Now}, sys::region::{Region, Backing}};"),
            ("src/base/a.rs", "// crate::store knows\nconst WORDS: &str = \"crate::store\";"),
            ("src/net/a.rs", "use super::phase::Phase;\nmod tests { use super::super::phase; }"),
            ("src/net/mod.rs", "pub mod a;\nmod tests { use super::*; }"),
            ("src/main.rs", "use ringcached::{config, server, admin};"),
            ("tests/e2e/main.rs", "use ringcached::store::Table;"),
        ];
        for (name, text) in good {
            assert_eq!(complaints(name, text), Complaints::new(), "{name}: {text}");
        }
    }

    #[test]
    fn circles_are_found() {
        let edge = |from: &str, to: &str| (from.to_string(), to.to_string());
        let line = BTreeSet::from([edge("a", "b"), edge("b", "c"), edge("a", "c")]);
        let circle = BTreeSet::from([edge("a", "b"), edge("b", "c"), edge("c", "b")]);
        let mut complaints = Complaints::new();
        check_acyclic(&line, &mut complaints);
        assert!(complaints.is_empty(), "{complaints:?}");
        check_acyclic(&circle, &mut complaints);
        assert_eq!(complaints.len(), 1);
        assert_eq!(edges("src/net/a.rs", "use crate::sys::x;"), [edge("net", "sys")]);
    }
}
