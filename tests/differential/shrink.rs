//! Of all that was sent before a difference was met, what is needed to meet it.

use super::generate::Request;
use super::{Found, Pair, reply};

/// Requests that are sent at most to find out.
const TRIED_MAX: usize = 30_000;

/// Steps that are shown at most.
const SHOWN_MAX: usize = 12;

/// The difference, and the fewest steps found that show it.
pub fn story(pair: &mut Pair, steps: &[Vec<Request>], found: &Found) -> String {
    let (last, before) = steps.split_last().unwrap();
    let keys: Vec<_> = last.iter().flat_map(|request| &request.keys).collect();
    let concerns =
        |request: &Request| request.is_wide || request.keys.iter().any(|key| keys.contains(&key));
    // Each request by itself, if that does.
    let single = before.iter().chain([last]).flatten().map(|one| vec![one.clone()]);
    let mut single: Vec<_> = single.collect();
    single.truncate(single.len() - (last.len() - found.place - 1));
    let related: Vec<_> = single.iter().filter(|step| concerns(&step[0])).cloned().collect();
    let mut candidates = [related, single, steps.to_vec()].into_iter();
    let shown = candidates.find_map(|mut steps| shows(pair, &mut steps).map(|_| steps));
    let Some(mut steps) = shown else {
        let mut told = String::from("  not met again; the last steps were\n");
        told.push_str(&show_last(pair, steps));
        return format!("{told}{}", replies(found));
    };
    reduce(pair, &mut steps);
    let again = shows(pair, &mut steps);
    let told = show_last(pair, &steps);
    match again {
        Some(found) => format!("{told}{}", replies(&found)),
        None => format!("{told}  which differs now and then; first\n{}", replies(found)),
    }
}

/// The difference that these steps show, if any; what comes behind it is not needed.
fn shows(pair: &mut Pair, steps: &mut Vec<Vec<Request>>) -> Option<Found> {
    pair.reset();
    let (place, found) =
        steps.iter().enumerate().find_map(|(place, step)| Some((place, pair.take(step)?)))?;
    steps.truncate(place + 1);
    Some(found)
}

/// Leaves out ever smaller runs of steps that are not needed.
fn reduce(pair: &mut Pair, steps: &mut Vec<Vec<Request>>) {
    let mut tried = 0;
    let mut size = (steps.len() / 2).max(1);
    loop {
        let mut start = 0;
        while start + 1 < steps.len() && tried < TRIED_MAX {
            let end = (start + size).min(steps.len() - 1);
            let mut fewer = [&steps[..start], &steps[end..]].concat();
            tried += fewer.len();
            match shows(pair, &mut fewer) {
                Some(_) => *steps = fewer,
                None => start = end,
            }
        }
        if size == 1 {
            return;
        }
        size /= 2;
    }
}

fn show_last(pair: &Pair, steps: &[Vec<Request>]) -> String {
    let last = &steps[steps.len().saturating_sub(SHOWN_MAX)..];
    last.iter().map(|step| show(pair, step)).collect()
}

fn show(pair: &Pair, step: &[Request]) -> String {
    let lines = step.iter().map(|request| {
        let bytes = pair.ours.bytes(request);
        format!("  {:?} {} ({} bytes)\n", request.dialect, reply::ends(&bytes), bytes.len())
    });
    lines.collect()
}

fn replies(found: &Found) -> String {
    format!("    ours:   {}\n    theirs: {}", found.ours.shown(), found.theirs.shown())
}
