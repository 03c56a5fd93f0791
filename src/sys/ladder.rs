//! How a ring receives and sends: the rungs of the ladder, and which of them a kernel carries.
//!
//! ```text
//!   multishot     a buffer a completion          every kernel that serves
//!   bundle        a run of buffers a completion  where the probe finds it
//!   incremental   a part of a buffer             where the probe finds it; unasked from 6.17 on
//! ```
//!
//! Beside the rung stand two bounds: how many bytes one connection brings before others have their
//! turn, and how long a busy ring waits for company. What is asked for must be there, or the server
//! does not start; what is not asked for is taken where it is there.

use super::probe::{FEATURES, Feature, Row, Support};

/// Bytes of the buffers of a ring, on every rung.
pub const RECEIVE_BYTES: u32 = 4 << 20;

/// Bytes that one connection brings before it is received from again, where nothing else is asked
/// for. Beside peers that store without end, a get waits a fifth of the time that it waits without
/// a cap; eight times less is a little better for it, and costs those who store a fifth.
const CAP_BYTES: u32 = 256 << 10;

/// Microseconds that a busy ring waits for company, where nothing else is asked for.
const MIN_WAIT_US: u32 = 0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Multishot,
    Bundle,
    Incremental,
}

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Mode::Multishot => "multishot",
            Mode::Bundle => "bundle",
            Mode::Incremental => "incremental",
        }
    }

    /// Bytes of a buffer, a power of two: a deep pipeline of small requests where a buffer serves
    /// one receive, and many of them where it serves many.
    pub fn buffer_bytes(self) -> u32 {
        match self {
            Mode::Multishot | Mode::Bundle => 4 << 10,
            Mode::Incremental => 64 << 10,
        }
    }

    /// Buffers of a ring.
    ///
    /// # Panics
    /// Never: there are less than 2^15.
    pub fn buffers(self) -> u16 {
        u16::try_from(RECEIVE_BYTES / self.buffer_bytes()).expect("at most 2^15 buffers")
    }

    /// What it needs beside what every ring needs.
    fn feature(self) -> Option<Feature> {
        match self {
            Mode::Multishot => None,
            Mode::Bundle => Some(Feature::ReceiveBundle),
            Mode::Incremental => Some(Feature::IncrementalBuffers),
        }
    }
}

/// What the operator asks for; `None` is left to the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    pub mode: Option<Mode>,
    /// 0 is no cap.
    pub cap_bytes: Option<u32>,
    /// 0 is no wait.
    pub min_wait_us: Option<u32>,
    /// 0 is never.
    pub zero_copy_bytes: Option<u32>,
}

/// How a ring receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rung {
    pub mode: Mode,
    /// Bytes after which a connection's receive ends, with the buffer that it is in; 0 is never.
    pub cap_bytes: u32,
    /// How long a busy ring waits for more than one completion; 0 is not at all.
    pub min_wait_us: u32,
    /// Bytes of a send, with large values in it, from which it is not copied; 0 is never.
    pub zero_copy_bytes: u32,
}

impl Rung {
    /// What every kernel carries that serves at all.
    pub const LOWEST: Rung =
        Rung { mode: Mode::Multishot, cap_bytes: 0, min_wait_us: 0, zero_copy_bytes: 0 };

    /// Decides from what was tried.
    ///
    /// # Errors
    /// The feature that is asked for and missing.
    pub fn choose(asked: Asked, support: &Support) -> Result<Rung, &'static Row> {
        let has = |feature: Feature| support.answer(feature).is_yes();
        // Kernels that have no cap, those before 6.17, had faults in buffers that receives share,
        // which no trial finds: CVE-2025-39816 is one of them.
        let best = match has(Feature::IncrementalBuffers) && has(Feature::ReceiveCap) {
            true => Mode::Incremental,
            false => Mode::Multishot,
        };
        let mode = asked.mode.unwrap_or(best);
        if let Some(feature) = mode.feature().filter(|feature| !has(*feature)) {
            return Err(row(feature));
        }
        let number = |feature, asked: Option<u32>, default| match asked {
            Some(number) if number > 0 && !has(feature) => Err(row(feature)),
            Some(number) => Ok(number),
            None => Ok(if has(feature) { default } else { 0 }),
        };
        Ok(Rung {
            mode,
            cap_bytes: number(Feature::ReceiveCap, asked.cap_bytes, CAP_BYTES)?,
            min_wait_us: number(Feature::MinWait, asked.min_wait_us, MIN_WAIT_US)?,
            // Over loopback, and where the card cannot gather, it is slower.
            zero_copy_bytes: number(Feature::SendZeroCopy, asked.zero_copy_bytes, 0)?,
        })
    }
}

/// The features that `choose` looks at.
pub const FEATURES_TRIED: [Feature; 5] = [
    Feature::MinWait,
    Feature::ReceiveCap,
    Feature::ReceiveBundle,
    Feature::IncrementalBuffers,
    Feature::SendZeroCopy,
];

fn row(feature: Feature) -> &'static Row {
    &FEATURES[feature as usize]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::probe::Answer;

    fn support(there: &[Feature]) -> Support {
        let mut support = Support::UNTRIED;
        for feature in FEATURES_TRIED {
            let is_there = there.contains(&feature);
            let answer = if is_there { Answer::Yes } else { Answer::No(libc::EINVAL) };
            support.answers[feature as usize] = answer;
        }
        support
    }

    #[test]
    fn buffers_are_powers_of_two_and_take_the_same_memory() {
        for mode in [Mode::Multishot, Mode::Bundle, Mode::Incremental] {
            assert!(mode.buffer_bytes().is_power_of_two() && mode.buffers().is_power_of_two());
            assert_eq!(u32::from(mode.buffers()) * mode.buffer_bytes(), RECEIVE_BYTES);
        }
    }

    #[test]
    fn what_is_asked_for_is_there_or_refused_by_name() {
        let mut asked = Asked { mode: Some(Mode::Bundle), ..Asked::default() };
        let refused = Rung::choose(asked, &support(&[Feature::IncrementalBuffers])).unwrap_err();
        assert_eq!(refused.feature, Feature::ReceiveBundle);
        let rung = Rung::choose(asked, &support(&[Feature::ReceiveBundle])).unwrap();
        assert_eq!(rung, Rung { mode: Mode::Bundle, ..Rung::LOWEST });
        asked = Asked { cap_bytes: Some(1), ..Asked::default() };
        let refused = Rung::choose(asked, &support(&[])).unwrap_err();
        assert_eq!(refused.feature, Feature::ReceiveCap);
        asked = Asked { min_wait_us: Some(1), ..Asked::default() };
        let refused = Rung::choose(asked, &support(&[])).unwrap_err();
        assert_eq!(refused.feature, Feature::MinWait);
        asked = Asked { zero_copy_bytes: Some(1), ..Asked::default() };
        let refused = Rung::choose(asked, &support(&[])).unwrap_err();
        assert_eq!(refused.feature, Feature::SendZeroCopy);
    }

    #[test]
    fn what_is_not_asked_for_is_taken_where_it_is_there() {
        let nothing = Asked::default();
        assert_eq!(Rung::choose(nothing, &support(&[])), Ok(Rung::LOWEST));
        let all = support(&FEATURES_TRIED);
        let rung = Rung::choose(nothing, &all).unwrap();
        assert_eq!(rung.mode, Mode::Incremental);
        assert_eq!((rung.cap_bytes, rung.min_wait_us), (CAP_BYTES, MIN_WAIT_US));
        assert_eq!(rung.zero_copy_bytes, 0, "it is there, but nobody asked for it");
        let bundle = Rung::choose(nothing, &support(&[Feature::ReceiveBundle])).unwrap();
        assert_eq!(bundle, Rung::LOWEST);
        let off = Asked { cap_bytes: Some(0), min_wait_us: Some(0), ..nothing };
        assert_eq!(Rung::choose(off, &support(&[])), Ok(Rung::LOWEST), "off needs nothing");
        assert_eq!(Rung::choose(off, &all).unwrap().cap_bytes, 0);
    }
}
