//! What a peer can do wrong, and what it is told.

/// A breach of the protocol by the peer. Incomplete input is not an error and has no variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    /// The head does not end within `HEAD_BYTES_MAX`: this is no memcached client.
    HeadTooLong,
    /// A request of HTTP: somebody makes a browser talk to us.
    Http,
    UnknownCommand,
    /// A word is missing, is not a number, or is a key that is too long.
    BadFormat,
    BadExptime,
    BadDelta,
    /// `delete` with more words than a key.
    BadDelete,
    /// The value is not followed by CR LF.
    BadDataChunk,
    BadShutdownMode,
}

/// Whether the byte stream can still be trusted after the error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Blame {
    /// The request is refused; the next one starts at a known place.
    Request,
    /// Framing is lost: close.
    Stream,
}

impl ProtocolError {
    /// The line sent to the peer, as memcached words it. Empty: the peer is told nothing.
    //= protocol.txt "Error strings"
    pub const fn reply(self) -> &'static [u8] {
        match self {
            Self::HeadTooLong | Self::Http => b"",
            Self::UnknownCommand => b"ERROR\r\n",
            Self::BadFormat => b"CLIENT_ERROR bad command line format\r\n",
            Self::BadExptime => b"CLIENT_ERROR invalid exptime argument\r\n",
            Self::BadDelta => b"CLIENT_ERROR invalid numeric delta argument\r\n",
            Self::BadDelete => {
                b"CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]\r\n"
            }
            Self::BadDataChunk => b"CLIENT_ERROR bad data chunk\r\n",
            Self::BadShutdownMode => b"CLIENT_ERROR invalid shutdown mode\r\n",
        }
    }

    pub const fn blame(self) -> Blame {
        match self {
            Self::HeadTooLong | Self::Http => Blame::Stream,
            Self::UnknownCommand
            | Self::BadFormat
            | Self::BadExptime
            | Self::BadDelta
            | Self::BadDelete
            | Self::BadDataChunk
            | Self::BadShutdownMode => Blame::Request,
        }
    }
}
