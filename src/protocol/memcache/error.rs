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
    /// As a missing word, in the words of `stats cachedump`.
    TooFewWords,
    /// There are not so many size classes.
    IllegalClass,
    BadExptime,
    BadDelta,
    /// `delete` with more words than a key.
    BadDelete,
    /// The value is not followed by CR LF.
    BadDataChunk,
    BadShutdownMode,
    /// Of a meta command's flags: one that does not exist, one that is there before, and too many.
    InvalidFlag,
    DuplicateFlag,
    TooManyFlags,
    /// As these, in the words of `ma`.
    InvalidOrDuplicateFlag,
    /// What follows a flag is not the number that it should be.
    BadToken,
    BadInitial,
    BadDeltaValue,
    OpaqueTooLong,
    /// The key is not in base64.
    BadKeyEncoding,
    /// There is no such mode of `ms`, or of `ma`.
    BadSetMode,
    BadArithmeticMode,
    /// A crawler is to sleep for longer than it may.
    SleepTooLong,
    BadAutomoveWindow,
    /// Lists that leave too little to others.
    ListsTooLarge,
    BadListFactors,
    LimitTooSmall,
    /// So many megabytes nobody has.
    LimitNotMegabytes,
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
            Self::Http => b"",
            Self::HeadTooLong => b"CLIENT_ERROR line too long\r\n",
            Self::UnknownCommand => b"ERROR\r\n",
            Self::BadFormat => b"CLIENT_ERROR bad command line format\r\n",
            Self::TooFewWords => b"CLIENT_ERROR bad command line\r\n",
            Self::IllegalClass => b"CLIENT_ERROR Illegal slab id\r\n",
            Self::BadExptime => b"CLIENT_ERROR invalid exptime argument\r\n",
            Self::BadDelta => b"CLIENT_ERROR invalid numeric delta argument\r\n",
            Self::BadDelete => {
                b"CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]\r\n"
            }
            Self::BadDataChunk => b"CLIENT_ERROR bad data chunk\r\n",
            Self::BadShutdownMode => b"CLIENT_ERROR invalid shutdown mode\r\n",
            Self::InvalidFlag => b"CLIENT_ERROR invalid flag\r\n",
            Self::DuplicateFlag => b"CLIENT_ERROR duplicate flag\r\n",
            Self::TooManyFlags => b"CLIENT_ERROR options flags are too long\r\n",
            Self::InvalidOrDuplicateFlag => b"CLIENT_ERROR invalid or duplicate flag\r\n",
            Self::BadToken => b"CLIENT_ERROR bad token in command line format\r\n",
            Self::BadInitial => b"CLIENT_ERROR invalid numeric initial value\r\n",
            Self::BadDeltaValue => b"CLIENT_ERROR invalid numeric delta value\r\n",
            Self::OpaqueTooLong => b"CLIENT_ERROR opaque token too long\r\n",
            Self::BadKeyEncoding => b"CLIENT_ERROR error decoding key\r\n",
            Self::BadSetMode => b"CLIENT_ERROR invalid mode for ms M token\r\n",
            Self::BadArithmeticMode => b"CLIENT_ERROR invalid mode for ma M token\r\n",
            Self::SleepTooLong => b"CLIENT_ERROR sleep must be one second or less\r\n",
            Self::BadAutomoveWindow => b"CLIENT_ERROR automove window too low or too high\r\n",
            Self::ListsTooLarge => b"ERROR hot and warm pcts must not exceed 80\r\n",
            Self::BadListFactors => b"ERROR hot/warm age factors must be greater than 0\r\n",
            Self::LimitTooSmall => b"MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m\r\n",
            Self::LimitNotMegabytes => {
                b"MEMLIMIT_ADJUST_FAILED input value is megabytes not bytes\r\n"
            }
        }
    }

    pub const fn blame(self) -> Blame {
        match self {
            Self::HeadTooLong | Self::Http => Blame::Stream,
            Self::UnknownCommand
            | Self::BadFormat
            | Self::TooFewWords
            | Self::IllegalClass
            | Self::BadExptime
            | Self::BadDelta
            | Self::BadDelete
            | Self::BadDataChunk
            | Self::BadShutdownMode
            | Self::InvalidFlag
            | Self::DuplicateFlag
            | Self::TooManyFlags
            | Self::InvalidOrDuplicateFlag
            | Self::BadToken
            | Self::BadInitial
            | Self::BadDeltaValue
            | Self::OpaqueTooLong
            | Self::BadKeyEncoding
            | Self::BadSetMode
            | Self::BadArithmeticMode
            | Self::SleepTooLong
            | Self::BadAutomoveWindow
            | Self::ListsTooLarge
            | Self::BadListFactors
            | Self::LimitTooSmall
            | Self::LimitNotMegabytes => Blame::Request,
        }
    }
}
