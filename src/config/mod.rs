//! From the command line to a checked plan.
//!
//! ```text
//!   arguments --getopt, clap--> Options --Plan::check(host)--> Plan --> server, admin
//!                     |                    |
//!                usage error           StartError
//! ```
//!
//! A `Plan` holds nothing that needs checking again: sizes fit, addresses are resolved, the user
//! exists, the key is read. What the plan cannot know is whether the system grants it.

mod admin;
mod datagrams;
mod error;
mod extended;
mod foreign;
mod getopt;
mod host;
mod listen;
mod options;
mod placement;
mod plan;
mod process;
mod rate;
mod settings;
mod speech;
mod suboptions;
mod throttle;
mod users;

pub use admin::{ADMIN_PORT_OFFSET, AdminKey, AdminPlan};
pub use error::StartError;
pub use extended::Extended;
pub use host::Host;
pub use listen::{Bound, Listeners, UnixListener};
pub use options::{Dispatch, FavorName, Options};
pub use placement::{Pin, Placement};
pub use plan::Plan;
pub use process::ProcessPlan;
pub use speech::AuthPlan;
pub use users::read_users;

#[cfg(test)]
mod tests;
