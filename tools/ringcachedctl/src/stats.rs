//! One sample, as text or as JSON.

use std::io::{self, Write};

use serde_json::{Map, Value, json};

use crate::client::{Figure, Sample};

/// A name and a value a line; those of a thread under its name, zeros left out.
pub(crate) fn text(
    sample: &Sample,
    threads: &[(String, Vec<Figure>)],
    out: &mut impl Write,
) -> io::Result<()> {
    for figure in &sample.figures {
        writeln!(out, "{:<28} {}", figure.name, shown(figure))?;
    }
    for (thread, figures) in threads {
        writeln!(out, "\n{thread}")?;
        for figure in figures.iter().filter(|figure| figure.value != 0) {
            writeln!(out, "  {:<26} {}", figure.name, shown(figure))?;
        }
    }
    Ok(())
}

pub(crate) fn json(sample: &Sample, threads: &[(String, Vec<Figure>)]) -> Value {
    let object = |figures: &[Figure]| {
        let fields = figures.iter().map(|figure| (figure.name.clone(), shown(figure)));
        Value::Object(fields.collect::<Map<_, _>>())
    };
    let mut root = json!({
        // As text: a reader that keeps numbers as doubles would change it.
        "boot_id": format!("{:016x}", sample.boot_id),
        "sequence": sample.sequence,
        "elapsed_ns": sample.elapsed_ns,
        "figures": object(&sample.figures),
    });
    if !threads.is_empty() {
        let threads = threads.iter().map(|(name, figures)| (name.clone(), object(figures)));
        root["threads"] = Value::Object(threads.collect());
    }
    root
}

/// A gauge may be below zero: one thread may have taken off what another put on.
fn shown(figure: &Figure) -> Value {
    if figure.is_gauge { figure.value.cast_signed().into() } else { figure.value.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(name: &str, is_gauge: bool, value: u64) -> Figure {
        Figure { name: name.into(), is_gauge, value }
    }

    #[test]
    fn both_forms() {
        let figures = vec![figure("cmd_get", false, u64::MAX), figure("bytes", true, 7)];
        let sample = Sample { boot_id: 255, sequence: 2, elapsed_ns: 3, figures };
        let zero = figure("cmd_set", false, 0);
        let threads = [("ring 0".to_owned(), vec![figure("bytes", true, u64::MAX), zero])];
        let mut out = Vec::new();
        text(&sample, &threads, &mut out).unwrap();
        let out = String::from_utf8(out).unwrap();
        let words: Vec<_> = out.split_whitespace().collect();
        let max = u64::MAX.to_string();
        assert_eq!(words, ["cmd_get", &max, "bytes", "7", "ring", "0", "bytes", "-1"]);
        let json = json(&sample, &threads);
        assert_eq!(json["boot_id"], "00000000000000ff");
        assert_eq!(json["figures"]["cmd_get"], u64::MAX);
        assert_eq!(json["threads"]["ring 0"]["bytes"], -1);
    }
}
