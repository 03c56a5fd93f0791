//! Just enough of Rust's lexical rules to tell code from comments and literals.
//!
//! `code` answers a text of the same length and the same lines in which every comment and the
//! inside of every literal is blank, so that a search in it finds only code, at its place.

/// The text with comments and literals blanked.
pub fn code(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = at + token(bytes, at);
        if end == at + 1 {
            out.push(bytes[at]);
        } else {
            out.extend(bytes[at..end].iter().map(|b| if *b == b'\n' { b'\n' } else { b' ' }));
        }
        at = end;
    }
    // What is not ASCII outside comments and literals is no concern of the rules.
    out.iter().map(|byte| if byte.is_ascii() { char::from(*byte) } else { '_' }).collect()
}

/// Length of the comment or literal at `at`; 1 where there is none.
fn token(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let follows_word = at > 0 && is_word(bytes[at - 1]);
    match rest {
        [b'/', b'/', ..] => rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len()),
        [b'/', b'*', ..] => block_comment(rest),
        [b'"', ..] => quoted(rest, b'"'),
        [b'r', ..] if !follows_word => raw_string(rest, 1),
        [b'b' | b'c', b'r', ..] if !follows_word => raw_string(rest, 2),
        [b'\'', b'\\', ..] => quoted(rest, b'\''),
        [b'\'', _, b'\'', ..] => 3,
        // A character of several bytes; a lifetime has no closing quote so near.
        [b'\'', first, ..] if !first.is_ascii() => quoted(rest, b'\''),
        _ => 1,
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn block_comment(rest: &[u8]) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        match rest[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

fn raw_string(rest: &[u8], prefix: usize) -> usize {
    let hashes = rest[prefix..].iter().take_while(|b| **b == b'#').count();
    let body = prefix + hashes;
    if rest.get(body) != Some(&b'"') {
        return 1;
    }
    let mut end = vec![b'"'];
    end.extend(std::iter::repeat_n(b'#', hashes));
    let close = rest[body + 1..].windows(end.len()).position(|window| window == end);
    close.map_or(rest.len(), |close| body + 1 + close + end.len())
}

/// The number of the line that holds the byte at `offset`, from 1.
pub fn line_of(text: &str, offset: usize) -> usize {
    text[..offset].matches('\n').count() + 1
}

/// Offsets at which `word` stands alone in blanked text.
pub fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let bytes = code.as_bytes();
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = at.checked_sub(1).map(|before| bytes[before]);
        let after = bytes.get(at + word.len()).copied();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

/// The offset after the brace that closes the one at `open`, in blanked text.
pub fn close_of(code: &str, open: usize) -> Option<usize> {
    let mut depth = 0_i32;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at + 1);
        }
    }
    None
}

#[test]
fn comments_and_literals_are_blanked_in_place() {
    let cases = [
        ("a // crate::b\nc", "a            \nc"),
        ("a /* x /* y */ z */ b", "a                   b"),
        (r#"f("un\"safe", 'x', '\'', 'a)"#, "f(          ,    ,     , 'a)"),
        (r##"r#"a"b"# + br"c""##, "         +      "),
        ("let raw = r; four\"\"", "let raw = r; four  "),
        ("'é' x", "     x"),
    ];
    for (text, wanted) in cases {
        assert_eq!(code(text), wanted, "{text}");
        assert_eq!(code(text).len(), text.len());
    }
}

#[test]
fn words_stand_alone() {
    let found: Vec<_> = words("unsafe_code unsafe { } my_unsafe", "unsafe").collect();
    assert_eq!(found, [12]);
    assert_eq!(close_of("a { b { } } c", 2), Some(11));
}
