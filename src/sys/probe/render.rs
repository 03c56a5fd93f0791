//! The text of `ringcached --check`.

use super::RingShape;
use super::feature::{Answer, FEATURES, Need, Row, Support};
use super::host::Host;
use super::refusal::{ErrnoName, Refusal};

/// Kernel, every feature, and whether the server will serve.
pub fn render(result: &Result<Support, Refusal>) -> String {
    text(&Host::read(), result)
}

fn text(host: &Host, result: &Result<Support, Refusal>) -> String {
    let mut out = format!("kernel {}\n{}\n", host.release, locked_memory(host));
    let support = match result {
        Ok(support) => support,
        Err(Refusal::TooOld { support }) => support,
        Err(_) => &Support::UNTRIED,
    };
    for (need, title) in [(Need::Required, "required"), (Need::Optional, "optional")] {
        out += &format!("\n{title:<38}since\n");
        for row in FEATURES.iter().filter(|row| row.need == need) {
            feature(&mut out, row, support.answer(row.feature));
        }
    }
    out.push('\n');
    out += &summary(result);
    out
}

fn locked_memory(host: &Host) -> String {
    let Some(bytes) = host.memlock_bytes else { return "locked memory: not limited".into() };
    let (user_kib, ring_kib) = (bytes / 1024, RingShape::SERVER.memlock_bytes() / 1024);
    format!(
        "locked memory: {user_kib} KiB for the rings of this user; \
         from 6.14 on each takes {ring_kib} KiB"
    )
}

fn feature(out: &mut String, row: &Row, answer: Answer) {
    let (mark, remark) = match answer {
        Answer::Untried => ("-", String::new()),
        Answer::Yes => ("yes", String::new()),
        Answer::YesBut(but) => ("yes", but.into()),
        Answer::No(errno) => ("no", format!("{}; instead: {}", ErrnoName(errno), row.instead)),
        Answer::Differs(how) => ("no", format!("{how}; instead: {}", row.instead)),
    };
    *out += &format!("  {mark:<3} {:<32}{:<5} {}\n", row.name, row.since, row.worth);
    if !remark.is_empty() {
        *out += &format!("      {remark}\n");
    }
}

fn summary(result: &Result<Support, Refusal>) -> String {
    let support = match result {
        Ok(support) => support,
        Err(refusal) => {
            return format!("ringcached will not serve: {refusal}\n{}\n", refusal.remedy());
        }
    };
    match support.missing(Need::Optional).count() {
        0 => "ringcached will serve here, with every feature\n".into(),
        1 => "ringcached will serve here; one optional feature is missing\n".into(),
        count => format!("ringcached will serve here; {count} optional features are missing\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::probe::Feature;
    use crate::sys::probe::host::Sysctl;

    const HOST: Host = Host {
        release: String::new(),
        disabled: Sysctl::Is(0),
        group: Some(-1),
        seccomp: Some(0),
        memlock_bytes: Some(8 << 20),
    };

    fn on(release: &str, result: &Result<Support, Refusal>) -> String {
        text(&Host { release: release.into(), ..HOST }, result)
    }

    #[test]
    fn a_kernel_that_lacks_some_optional_features() {
        let mut support = Support { answers: [Answer::Yes; FEATURES.len()] };
        support.record(Feature::NoIoWait, Answer::No(libc::EINVAL));
        support.record(Feature::MinWait, Answer::Differs("taken, but it does not wait"));
        support.record(Feature::SendZeroCopy, Answer::YesBut("loopback copies"));
        support.record(Feature::CollapseMemfd, Answer::Untried);
        let shown = on("6.12.95", &Ok(support));
        assert_eq!(shown, include_str!("check.txt"));
        assert!(shown.lines().all(|line| line.len() <= 100));
    }

    #[test]
    fn a_kernel_that_is_too_old_shows_what_it_lacks() {
        let mut support = Support::UNTRIED;
        support.record(Feature::SetUp, Answer::No(libc::EINVAL));
        let shown = on("5.15.0", &Err(Refusal::TooOld { support: Box::new(support) }));
        let line = "  no  SINGLE_ISSUER + DEFER_TASKRUN   6.1   completions in";
        assert!(shown.contains(line), "{shown}");
        assert!(shown.ends_with(
            "\nringcached will not serve: this kernel is too old: it lacks SINGLE_ISSUER + \
             DEFER_TASKRUN\nrun a kernel from 6.1 on; 6.12 or later is better\n"
        ));
    }

    #[test]
    fn a_refusal_shows_every_feature_untried() {
        let shown = on("6.18.0", &Err(Refusal::Disabled));
        assert_eq!(shown.lines().filter(|line| line.starts_with("  -   ")).count(), FEATURES.len());
        assert!(shown.contains("\nringcached will not serve: io_uring is switched off: kernel."));
    }
}
