//! Where the bytes of the process are: rows of `stats`, and figures of the live statistics.
//!
//! ```text
//!   rss_limit_bytes = -m ----------------------------------------- + fixed_bytes
//!     items | index | lent to replies | debited | free               code, stacks, rings,
//!                                         ^                          receive buffers, tables
//!     input_bytes + conn_bytes lie elsewhere: for them pages are
//!     taken out of use, whose memory goes back to the system
//! ```

use super::Shared;
use crate::store::Figures;

/// What the process takes beside what `-m` bounds; it does not change while it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fixed {
    /// All of it.
    pub bytes: u64,
    /// The part of it in which rings receive, and in how many buffers.
    pub receive_bytes: u64,
    pub receive_buffers: u64,
    /// Descriptors that are nobody's connection.
    pub descriptors: u64,
}

/// A name, and where its number comes from.
pub type Row = (&'static str, fn(&Shared, &Figures) -> u64);

/// The pages by what they are used for, then what lies outside, then the sum of it all.
pub const LEDGER: &[Row] = &[
    ("page_bytes", |_, figures| figures.page_bytes),
    ("pages_total", |_, figures| figures.pages_total),
    ("pages_free", |_, figures| figures.pages_free),
    ("pages_index", |_, figures| figures.pages_index),
    ("pages_items", |_, figures| figures.pages_items()),
    ("pages_log", |_, figures| figures.pages_log),
    ("pages_lent", |_, figures| figures.pages_lent),
    ("pages_debited", |_, figures| figures.pages_debited),
    ("items_page_bytes", |_, figures| figures.pages_items() * figures.page_bytes),
    ("index_page_bytes", |_, figures| figures.pages_index * figures.page_bytes),
    ("lent_page_bytes", |_, figures| figures.pages_lent * figures.page_bytes),
    ("debited_page_bytes", |_, figures| figures.pages_debited * figures.page_bytes),
    ("free_page_bytes", |_, figures| figures.pages_free * figures.page_bytes),
    ("limbo_bytes", |_, figures| figures.limbo_bytes),
    ("pinned_bytes", |_, figures| figures.pinned_bytes),
    ("huge_bytes", |_, figures| figures.huge_bytes),
    ("outside_bytes", |_, figures| figures.outside_bytes),
    ("fixed_bytes", |shared, _| shared.facts.fixed.bytes),
    ("rss_limit_bytes", |shared, figures| figures.limit_bytes + shared.facts.fixed.bytes),
];
