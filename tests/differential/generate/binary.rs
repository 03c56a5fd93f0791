//! Requests of the binary protocol.

use super::{Choice, Dialect, Effect, KEYS, LONG_S, Request, Source};

const GETS: [u8; 4] = [0x00, 0x09, 0x0c, 0x0d];
const STORES: [u8; 6] = [0x01, 0x02, 0x03, 0x11, 0x12, 0x13];
const JOINS: [u8; 4] = [0x0e, 0x0f, 0x19, 0x1a];
const COUNTS: [u8; 4] = [0x05, 0x06, 0x15, 0x16];
const DELETES: [u8; 2] = [0x04, 0x14];
const TOUCHES: [u8; 5] = [0x1c, 0x1d, 0x1e, 0x23, 0x24];

/// The fields of a packet, before something is wrong with them.
struct Draft {
    opcode: u8,
    key: Vec<u8>,
    extras: Vec<u8>,
    value: Vec<u8>,
    cas: Option<Choice>,
}

impl Source {
    pub(super) fn binary(&mut self) -> Request {
        match self.below(100) {
            0..=93 => {
                let draft = self.draft();
                packet(&draft, &[])
            }
            94..=97 => self.wrong(),
            _ => self.bare(),
        }
    }

    fn draft(&mut self) -> Draft {
        let key = if self.happens(20) { KEYS[6].0 } else { self.key().0 };
        let seconds = self.one_of(&[0, 0, LONG_S, 2_592_000, 2_592_001, 2_000_000_000]);
        let seconds = seconds.to_be_bytes();
        let (opcode, extras, value) = match self.below(20) {
            0..=5 => (self.one_of(&GETS), Vec::new(), Vec::new()),
            6..=9 => {
                let flags = self.one_of(&[0, 9, u32::MAX]).to_be_bytes();
                (self.one_of(&STORES), [flags, seconds].concat(), self.value(key))
            }
            10..=11 => (self.one_of(&JOINS), Vec::new(), self.value(key)),
            12..=15 => {
                let delta = self.one_of(&[0, 1, 1, 10, u64::MAX]).to_be_bytes();
                let initial = self.one_of(&[0, 5, u64::MAX]).to_be_bytes();
                let seconds = if self.happens(2) { [0xff; 4] } else { seconds };
                (self.one_of(&COUNTS), [&delta[..], &initial, &seconds].concat(), Vec::new())
            }
            16 => (self.one_of(&DELETES), Vec::new(), Vec::new()),
            _ => (self.one_of(&TOUCHES), seconds.to_vec(), Vec::new()),
        };
        let is_number = COUNTS.contains(&opcode) && !self.happens(3);
        let key = if is_number { KEYS[3].0 } else { key };
        let cas = self.happens(4).then(|| self.choice());
        Draft { opcode, key: key.to_vec(), extras, value, cas }
    }

    /// A packet with a length that does not belong to it, or another fault.
    fn wrong(&mut self) -> Request {
        let mut draft = self.draft();
        draft.cas = None;
        match self.below(7) {
            0 => draft.key = vec![b'k'; 251],
            1 => draft.key = Vec::new(),
            2 => draft.extras.push(0),
            3 => draft.extras.truncate(3),
            4 => return packet(&draft, &[(5, 1)]),
            5 => return packet(&draft, &[(6, 1), (7, 2)]),
            _ if TOUCHES.contains(&draft.opcode) => draft.extras = Vec::new(),
            _ => draft.value.push(b'x'),
        }
        packet(&draft, &[])
    }

    /// A head and nothing else.
    fn bare(&mut self) -> Request {
        const OPCODES: [u8; 14] =
            [0x0a, 0x07, 0x17, 0x20, 0x1f, 0x25, 0x30, 0x3c, 0x80, 0xff, 0x0a, 0x22, 0x08, 0x18];
        let mut opcode = self.one_of(&OPCODES);
        if self.chooses_cas && matches!(opcode, 0x08 | 0x18) {
            opcode = 0x0a;
        }
        let (key, extras, value) = (Vec::new(), Vec::new(), Vec::new());
        let mut request = packet(&Draft { opcode, key, extras, value, cas: None }, &[]);
        request.is_wide = true;
        request
    }
}

/// The packet with some bytes of its head replaced.
fn packet(draft: &Draft, faults: &[(usize, u8)]) -> Request {
    let Draft { opcode, key, extras, value, cas } = draft;
    let body = u32::try_from(key.len() + extras.len() + value.len()).unwrap();
    let [a, b] = u16::try_from(key.len()).unwrap().to_be_bytes();
    let mut head = vec![0x80, *opcode, a, b, u8::try_from(extras.len()).unwrap(), 0, 0, 0];
    head.extend_from_slice(&body.to_be_bytes());
    head.extend_from_slice(b"Oqe\0");
    for (place, byte) in faults {
        head[*place] = *byte;
    }
    let mut request = Request::about(Dialect::Binary, key);
    request.effect = match opcode {
        _ if COUNTS.contains(opcode) => Effect::Counts,
        0x00 | 0x09 | 0x0c | 0x0d | 0x1d | 0x1e | 0x23 | 0x24 => Effect::Reads,
        _ => Effect::Other,
    };
    request.push(head);
    match cas {
        Some(choice) => request.push_cas(key, *choice),
        None => request.push([0; 8]),
    }
    request.push(extras);
    request.push(key);
    request.push(value);
    request
}
