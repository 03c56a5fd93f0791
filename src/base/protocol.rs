//! Which protocol is spoken at an address: a word that several rooms share.

/// What a peer must speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// memcached's text, classic and meta.
    Ascii,
    /// memcached's binary protocol.
    Binary,
    /// Whatever the first byte of a connection says.
    #[default]
    Negotiating,
}

impl Protocol {
    /// As `stats settings` calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Protocol::Ascii => "ascii",
            Protocol::Binary => "binary",
            Protocol::Negotiating => "auto-negotiate",
        }
    }
}
