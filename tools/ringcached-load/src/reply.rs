//! Replies: the least reading that still proves the framing right.
//!
//! ```text
//!   Head --a value follows--> Value --bytes--> Tail --one key---> Head: the reply ends
//!                                                   --of many---> Head: more of the same reply
//!   Head --one of many failed-----------------------------------> Head: more of the same reply
//!   Head --anything else----------------------------------------> Head: the reply ends
//! ```
//!
//! A value passes through piece by piece; only an incomplete head or tail is ever shown twice.

use crate::dialect::{Answers, Binary, Dialect, Head, Meta, Text};
use crate::failure::Failure;
use crate::values;
use crate::workload::{Picks, Request, Verb, Workload};

/// What a request came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Hit,
    Miss,
    Stored,
    /// So many of the keys of one request.
    Many {
        hits: u32,
        misses: u32,
    },
    /// The server refused, or sent another value than was stored; the stream goes on.
    Failed(Failure),
}

/// The stream makes no sense any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nonsense;

/// How far the input took one reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub consumed: usize,
    /// None: more input is needed.
    pub outcome: Option<Outcome>,
}

/// What all replies of a run have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub dialect: Dialect,
    pub key_bytes: usize,
    pub keys_per_get: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    Value { whose: u64, offset: usize, left: usize, sound: bool },
    Tail { sound: bool },
}

/// What has come so far of a get of many keys.
#[derive(Debug, Default)]
struct Many {
    hits: u32,
    failure: Option<Failure>,
    /// The keys that have not come yet, when they are verified.
    picks: Option<Picks>,
}

/// Reads the replies of one connection.
#[derive(Debug)]
pub struct Reader {
    shape: Shape,
    state: State,
    many: Many,
}

impl Reader {
    pub fn new(shape: Shape) -> Reader {
        Reader { shape, state: State::Head, many: Many::default() }
    }

    /// Reads on in the reply to `request`. With a workload at hand, key, length and content of a
    /// value are verified too. Bytes not consumed are to be shown again with more behind them.
    #[inline]
    pub fn step(
        &mut self,
        input: &[u8],
        request: Request,
        verify: Option<&Workload>,
    ) -> Result<Step, Nonsense> {
        match self.shape.dialect {
            Dialect::Text => self.step_in::<Text>(input, request, verify),
            Dialect::Meta => self.step_in::<Meta>(input, request, verify),
            Dialect::Binary => self.step_in::<Binary>(input, request, verify),
        }
    }

    #[inline]
    fn step_in<A: Answers>(
        &mut self,
        input: &[u8],
        request: Request,
        verify: Option<&Workload>,
    ) -> Result<Step, Nonsense> {
        let is_one = request.verb != Verb::GetMany;
        // The usual: one value, and all of it is there.
        if is_one
            && matches!(self.state, State::Head)
            && let Some(Head::Value { bytes, value_bytes, key }) =
                A::head(input, request, self.shape.key_bytes)?
            && let Some(rest) = input[bytes..].get(..value_bytes + A::TAIL.len())
        {
            if !rest.ends_with(A::TAIL) {
                return Err(Nonsense);
            }
            let is_sound = verify.is_none_or(|workload| {
                let (whose, is_sound) = self.judge(request, key, value_bytes, workload);
                is_sound && values::matches(whose, 0, &rest[..value_bytes])
            });
            return Ok(Step { consumed: bytes + rest.len(), outcome: Some(found(is_sound)) });
        }
        self.step_slowly::<A>(input, request, verify)
    }

    #[inline(never)]
    fn step_slowly<A: Answers>(
        &mut self,
        input: &[u8],
        request: Request,
        verify: Option<&Workload>,
    ) -> Result<Step, Nonsense> {
        let is_one = request.verb != Verb::GetMany;
        let tail = if is_one { A::TAIL } else { A::TAIL_OF_MANY };
        let mut at = 0;
        loop {
            let rest = &input[at..];
            match self.state {
                State::Head => match A::head(rest, request, self.shape.key_bytes)? {
                    None => break,
                    Some(Head::Value { bytes, value_bytes, key }) => {
                        let (whose, sound) = match verify {
                            None => (request.key, true),
                            Some(workload) => self.judge(request, key, value_bytes, workload),
                        };
                        self.state = State::Value { whose, offset: 0, left: value_bytes, sound };
                        at += bytes;
                    }
                    Some(Head::Whole { bytes, outcome }) => {
                        self.many = Many::default();
                        return Ok(Step { consumed: at + bytes, outcome: Some(outcome) });
                    }
                    Some(Head::Lapse { bytes, failure }) => {
                        self.many.failure = Some(failure);
                        at += bytes;
                    }
                    Some(Head::EndOfMany { bytes }) => {
                        let outcome = self.end_of_many()?;
                        return Ok(Step { consumed: at + bytes, outcome: Some(outcome) });
                    }
                },
                State::Value { whose, offset, left, mut sound } => {
                    let piece = &rest[..left.min(rest.len())];
                    if verify.is_some() {
                        sound &= values::matches(whose, offset, piece);
                    }
                    at += piece.len();
                    if piece.len() < left {
                        let (offset, left) = (offset + piece.len(), left - piece.len());
                        self.state = State::Value { whose, offset, left, sound };
                        break;
                    }
                    self.state = State::Tail { sound };
                }
                State::Tail { sound } => {
                    let known = rest.len().min(tail.len());
                    if rest[..known] != tail[..known] {
                        return Err(Nonsense);
                    }
                    if known < tail.len() {
                        break;
                    }
                    self.state = State::Head;
                    at += known;
                    if is_one {
                        return Ok(Step { consumed: at, outcome: Some(found(sound)) });
                    }
                    self.many.hits += 1;
                    if !sound {
                        self.many.failure = Some(Failure::Content);
                    }
                }
            }
        }
        Ok(Step { consumed: at, outcome: None })
    }

    /// Whose value comes now, and whether key and length are as they should be. Of many keys, those
    /// not found are passed over: the others come in the order in which they were asked for.
    fn judge(
        &mut self,
        request: Request,
        key: &[u8],
        value_bytes: usize,
        workload: &Workload,
    ) -> (u64, bool) {
        if request.verb != Verb::GetMany {
            let is_it = key.is_empty() || workload.keys().matches(request.key, key);
            return (request.key, is_it && value_bytes == workload.value_bytes(request.key));
        }
        let picks = self.many.picks.get_or_insert_with(|| workload.picks(request));
        while let Some(whose) = picks.next(workload) {
            if workload.keys().matches(whose, key) {
                return (whose, value_bytes == workload.value_bytes(whose));
            }
        }
        (request.key, false)
    }

    fn end_of_many(&mut self) -> Result<Outcome, Nonsense> {
        let Many { hits, failure, .. } = std::mem::take(&mut self.many);
        let misses = self.shape.keys_per_get.checked_sub(hits).ok_or(Nonsense)?;
        Ok(failure.map_or(Outcome::Many { hits, misses }, Outcome::Failed))
    }
}

fn found(is_sound: bool) -> Outcome {
    if is_sound { Outcome::Hit } else { Outcome::Failed(Failure::Content) }
}

#[cfg(test)]
mod tests;
