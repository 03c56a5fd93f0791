//! What a peer can do wrong, and what it is told.

use super::status::Status;

/// A breach of the protocol by the peer, after which the stream cannot be trusted: it is closed.
/// Incomplete input is not an error and has no variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    /// This is no request of the binary protocol.
    BadMagic,
    /// Key and extras are longer than the body that they are in.
    BodyTooShort,
    BodyTooLong,
    KeyTooLong,
    /// A part that the opcode needs is missing, or there is one that it does not have.
    BadParts,
}

impl ProtocolError {
    /// What the peer is told before the close; `None` for nothing.
    pub const fn status(self) -> Option<Status> {
        match self {
            Self::BadMagic => None,
            Self::BodyTooShort => Some(Status::UnknownCommand),
            Self::BodyTooLong | Self::KeyTooLong | Self::BadParts => Some(Status::Invalid),
        }
    }
}
