//! What a reply says of its request.

#[repr(u16)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Ok = 0x00,
    NotFound = 0x01,
    Exists = 0x02,
    TooLarge = 0x03,
    Invalid = 0x04,
    NotStored = 0x05,
    NonNumeric = 0x06,
    AuthFailure = 0x20,
    /// The next token, please.
    AuthContinue = 0x21,
    UnknownCommand = 0x81,
    NoMemory = 0x82,
}

impl Status {
    pub const fn code(self) -> u16 {
        self as u16
    }

    /// The body of a reply with this status, as memcached words it.
    pub const fn text(self) -> &'static [u8] {
        match self {
            Self::Ok | Self::AuthContinue => b"",
            Self::NotFound => b"Not found",
            Self::Exists => b"Data exists for key.",
            Self::TooLarge => b"Too large.",
            Self::Invalid => b"Invalid arguments",
            Self::NotStored => b"Not stored.",
            Self::NonNumeric => b"Non-numeric server-side value for incr or decr",
            Self::AuthFailure => b"Auth failure.",
            Self::UnknownCommand => b"Unknown command",
            Self::NoMemory => b"Out of memory",
        }
    }
}
