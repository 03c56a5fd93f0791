//! What comes before the first request: which protocol it is, and who the peer is, where that
//! matters.
//!
//! Nothing is executed for a peer that has not said who it is, and no more of its bytes are kept
//! than a line and a token of `TOKEN_BYTES_MAX`: of a longer one, which is nobody's, not a byte.

use super::Verdict;
use super::batch::{Batch, Step};
use super::classes::Class;
use super::session::{Access, Next, State, Swallowing};
use crate::base::limits::HEAD_BYTES_MAX;
use crate::base::metrics::Metric;
use crate::base::output::Output;
use crate::base::protocol::Protocol;
use crate::base::users::USER_BYTES_MAX;
use crate::protocol::binary;
use crate::protocol::memcache::{
    AUTHENTICATION_FAILURE, LINE_END, Login, ProtocolError, parse_login, parse_token, reply,
};

/// The longest token that is looked at: of any user, in the words of either protocol, with room to
/// spare.
pub(super) const TOKEN_BYTES_MAX: u32 = 1024;

const _: () = assert!(2 * USER_BYTES_MAX + 2 <= TOKEN_BYTES_MAX as usize);
const _: () = assert!(TOKEN_BYTES_MAX as usize + LINE_END.len() < HEAD_BYTES_MAX);

impl<O: Output> Batch<'_, O> {
    /// The first byte says what a connection speaks, unless its listener did.
    pub fn open(&mut self, state: &mut State) -> Step {
        let State::Opening(protocol) = *state else { unreachable!() };
        let Some(first) = self.rest().first() else { return Some(Verdict::NeedInput) };
        let is_binary = match protocol {
            Protocol::Negotiating => *first == binary::MAGIC,
            Protocol::Ascii => false,
            Protocol::Binary => true,
        };
        let next = match (is_binary, &self.executor.shared.auth) {
            (false, None) => Next::Text,
            (false, Some(_)) => Next::Login,
            (true, None) => Next::Binary(Access::Granted),
            (true, Some(_)) => Next::Binary(Access::Awaited { has_begun: false }),
        };
        *state = next.into();
        None
    }

    /// Goes on with who a peer of the text protocol is.
    //= protocol.txt "Authentication"
    pub fn login(&mut self, state: &mut State) -> Step {
        let State::Login(token_bytes) = *state else { unreachable!() };
        match token_bytes {
            None => self.login_line(state),
            Some(token_bytes) => self.login_token(token_bytes as usize + LINE_END.len(), state),
        }
    }

    fn login_line(&mut self, state: &mut State) -> Step {
        let login = parse_login(self.rest());
        if login == Login::Partial {
            return Some(Verdict::NeedInput);
        }
        if let Some(verdict) = self.obstacle() {
            return Some(verdict);
        }
        self.pay();
        self.count(Metric::Requests);
        self.classify(Class::Other);
        match login {
            Login::Head { token_bytes, consumed } => {
                self.consume(consumed);
                *state = State::Login(Some(token_bytes));
                if token_bytes > TOKEN_BYTES_MAX {
                    self.count_login(false);
                    let bytes = u64::from(token_bytes) + LINE_END.len() as u64;
                    let (reply, next) = (AUTHENTICATION_FAILURE, Next::Login);
                    *state = State::Swallowing(Swallowing { bytes, reply, next });
                }
            }
            Login::Refused { reply, consumed } => {
                self.consume(consumed);
                self.output.put(reply);
            }
            Login::Quit { consumed } => {
                self.consume(consumed);
                *state = State::Closed;
                return Some(Verdict::Close);
            }
            Login::TooLong { consumed } => {
                self.consume(consumed);
                self.output.put(ProtocolError::HeadTooLong.reply());
                *state = State::Broken;
                return Some(Verdict::Close);
            }
            Login::Partial => unreachable!("it was not there"),
        }
        None
    }

    /// The token and its line end have so many bytes.
    fn login_token(&mut self, bytes: usize, state: &mut State) -> Step {
        let Some(token) = self.rest().get(..bytes) else { return Some(Verdict::NeedInput) };
        if self.output.is_full() {
            return Some(Verdict::OutputFull);
        }
        self.consume(bytes);
        let (next, reply) = match parse_token(token) {
            Ok((name, password)) if self.admit(name, password) => (Next::Text, reply::STORED),
            Ok(_) => (Next::Login, AUTHENTICATION_FAILURE),
            Err(reply) => (Next::Login, reply),
        };
        self.output.put(reply);
        *state = next.into();
        None
    }

    /// True of a user and the right password. Counts who asks.
    pub fn admit(&mut self, name: &[u8], password: &[u8]) -> bool {
        let auth = self.executor.shared.auth.as_ref();
        let is_user = auth.is_some_and(|auth| auth.users.admit(name, password));
        self.count_login(is_user);
        is_user
    }

    pub fn count_login(&self, is_user: bool) {
        self.count(Metric::AuthCmds);
        if !is_user {
            self.count(Metric::AuthErrors);
        }
    }
}
