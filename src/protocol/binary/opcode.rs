//! The commands, and of what parts their requests consist.

use super::head::Lengths;

/// A command. The names of the protocol's document, where Q is for quiet and K for "with the key".
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    Get = 0x00,
    Set = 0x01,
    Add = 0x02,
    Replace = 0x03,
    Delete = 0x04,
    Increment = 0x05,
    Decrement = 0x06,
    Quit = 0x07,
    Flush = 0x08,
    GetQ = 0x09,
    Noop = 0x0a,
    Version = 0x0b,
    GetK = 0x0c,
    GetKQ = 0x0d,
    Append = 0x0e,
    Prepend = 0x0f,
    Stat = 0x10,
    SetQ = 0x11,
    AddQ = 0x12,
    ReplaceQ = 0x13,
    DeleteQ = 0x14,
    IncrementQ = 0x15,
    DecrementQ = 0x16,
    QuitQ = 0x17,
    FlushQ = 0x18,
    AppendQ = 0x19,
    PrependQ = 0x1a,
    Verbosity = 0x1b,
    Touch = 0x1c,
    Gat = 0x1d,
    GatQ = 0x1e,
    SaslList = 0x20,
    SaslAuth = 0x21,
    SaslStep = 0x22,
    GatK = 0x23,
    GatKQ = 0x24,
}

use Opcode::*;

/// All of them, in order.
const ALL: [Opcode; 36] = [
    Get, Set, Add, Replace, Delete, Increment, Decrement, Quit, Flush, GetQ, Noop, Version, GetK,
    GetKQ, Append, Prepend, Stat, SetQ, AddQ, ReplaceQ, DeleteQ, IncrementQ, DecrementQ, QuitQ,
    FlushQ, AppendQ, PrependQ, Verbosity, Touch, Gat, GatQ, SaslList, SaslAuth, SaslStep, GatK,
    GatKQ,
];

/// Each where its byte says.
const TABLE: [Option<Opcode>; 256] = {
    let mut table = [None; 256];
    let mut place = 0;
    while place < ALL.len() {
        table[ALL[place] as usize] = Some(ALL[place]);
        place += 1;
    }
    table
};

impl Opcode {
    #[inline]
    pub const fn of(byte: u8) -> Option<Opcode> {
        TABLE[byte as usize]
    }

    /// True of commands that are silent when all is as expected.
    #[inline]
    pub const fn is_quiet(self) -> bool {
        matches!(
            self,
            GetQ | GetKQ
                | SetQ
                | AddQ
                | ReplaceQ
                | DeleteQ
                | IncrementQ
                | DecrementQ
                | QuitQ
                | FlushQ
                | AppendQ
                | PrependQ
                | GatQ
                | GatKQ
        )
    }

    /// True of commands whose replies name the key.
    #[inline]
    pub const fn returns_key(self) -> bool {
        matches!(self, GetK | GetKQ | GatK | GatKQ)
    }

    /// Whether a request may consist of parts that are so long. A key may be as long as it likes
    /// here.
    pub(super) const fn fits(self, lengths: Lengths) -> bool {
        let Lengths { extras, key, value } = lengths;
        match self {
            Get | GetQ | GetK | GetKQ | Delete | DeleteQ => extras == 0 && key > 0 && value == 0,
            Set | SetQ | Add | AddQ | Replace | ReplaceQ => extras == 8 && key > 0,
            Append | AppendQ | Prepend | PrependQ => extras == 0 && key > 0,
            Increment | IncrementQ | Decrement | DecrementQ => {
                extras == 20 && key > 0 && value == 0
            }
            Touch | Gat | GatQ | GatK | GatKQ => extras == 4 && key > 0 && value == 0,
            Flush | FlushQ => (extras == 0 || extras == 4) && key == 0 && value == 0,
            Noop | Version | Quit | QuitQ | SaslList => extras == 0 && key == 0 && value == 0,
            Verbosity => extras == 4 && key == 0 && value == 0,
            Stat => extras == 0 && value == 0,
            SaslAuth | SaslStep => extras == 0 && key > 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_opcode_is_found_by_its_byte() {
        let found: Vec<_> = (0..=u8::MAX).filter_map(Opcode::of).collect();
        assert_eq!(found, ALL);
        for opcode in ALL {
            let name = format!("{opcode:?}");
            assert_eq!(opcode.is_quiet(), name.ends_with('Q'), "{name}");
            let returns_key = ["GetK", "GetKQ", "GatK", "GatKQ"].contains(&name.as_str());
            assert_eq!(opcode.returns_key(), returns_key, "{name}");
        }
    }
}
