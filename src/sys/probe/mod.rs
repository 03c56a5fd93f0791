//! What the kernel at hand can do, found by trying it.
//!
//! A version says little: kernels are patched, backported, configured and filtered, and some take a
//! flag and then do not obey it. So every feature has a trial on a ring, sockets and buffers of its
//! own, which looks at the bytes that come out; and where there is no ring at all, the cause is
//! named, with its remedy.
//!
//! ```text
//!   feature   the table: what each is worth, and what happens without it
//!   rig       a tiny ring with a deadline;  collapse: a huge page in a memfd
//!   trial     one trial a feature, on the rig
//!   host      facts of the host;  refusal: errno and facts to cause and remedy
//!   render    the text of `--check`
//! ```
//!
//! Nothing stays behind but the few pages of the trials' buffer pools (rule R1).

mod collapse;
mod feature;
mod host;
mod refusal;
mod render;
mod rig;
mod trial;

#[cfg(test)]
mod tests;

pub use feature::{Answer, FEATURES, Feature, Need, Row, Support};
pub use host::Host;
pub use refusal::{Refusal, RingShape};
pub use render::render;

use rig::Rig;

impl RingShape {
    /// A ring of the server, by default.
    pub const SERVER: RingShape = RingShape { submissions: 1024, completions: 8192, buffers: 1024 };
}

/// Tries every feature, and a ring of the server's size.
///
/// # Errors
/// Why the server cannot serve here.
pub fn run() -> Result<Support, Refusal> {
    if let Err(error) = Rig::build(&mut rig::base(), RingShape::SERVER) {
        return Err(refused(&error));
    }
    attempt(FEATURES.iter().map(|row| row.feature))
}

/// Tries some features alone.
///
/// # Errors
/// Why the server cannot serve here.
pub fn try_out(features: &[Feature]) -> Result<Support, Refusal> {
    attempt(features.iter().copied())
}

/// The cause of a failure to build a ring of the server.
pub fn refused(error: &std::io::Error) -> Refusal {
    match error.raw_os_error().unwrap_or(libc::EIO) {
        // Known flags never give EINVAL: one of them is unknown here.
        errno @ libc::EINVAL => {
            let mut support = Support::UNTRIED;
            support.record(Feature::SetUp, Answer::No(errno));
            Refusal::TooOld { support: Box::new(support) }
        }
        errno => Refusal::of(errno, &Host::read(), RingShape::SERVER),
    }
}

fn attempt(features: impl Iterator<Item = Feature>) -> Result<Support, Refusal> {
    let mut rig = Rig::build(&mut rig::base(), rig::SMALL).map_err(|error| refused(&error))?;
    let mut support = Support::UNTRIED;
    for feature in features {
        support.record(feature, trial::answer(&mut rig, feature));
    }
    judged(support)
}

/// Refuses a kernel on which a required feature was tried and does not work.
fn judged(support: Support) -> Result<Support, Refusal> {
    let first = support.missing(Need::Required).next().map(|row| support.answer(row.feature));
    match first {
        None => Ok(support),
        Some(Answer::No(errno)) if errno == libc::ENOMEM => {
            Err(Refusal::of(errno, &Host::read(), RingShape::SERVER))
        }
        Some(_) => Err(Refusal::TooOld { support: Box::new(support) }),
    }
}
