//! (room to be built)
use std::sync::Arc;
use crate::base::clock::Now;
use crate::base::output::Output;
#[derive(Default, Debug)]
pub struct Session;
pub struct Participant;
impl Participant { pub fn quiesce(&mut self) {} pub fn offline(&mut self) {} pub fn online(&mut self) {} }
pub struct Executor { p: Participant }
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost { Bounded, Any }
#[derive(Debug)]
pub struct Budget { pub requests: u32, pub cost: Cost }
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict { NeedInput, OutputFull, Yield, Defer, Close, Shutdown }
#[derive(Debug)]
pub struct Progress { pub consumed: usize, pub verdict: Verdict }
impl Executor {
    pub fn drive(&mut self, _s: &mut Session, _i: &[u8], _n: Now, _b: &mut Budget, _o: &mut impl Output) -> Progress { Progress { consumed: 0, verdict: Verdict::Close } }
    pub fn abandon(&mut self, _s: &mut Session) {}
    pub fn participant(&mut self) -> &mut Participant { &mut self.p }
}
