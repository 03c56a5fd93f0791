//! Who a peer of the binary protocol is.
//!
//! ```text
//!               a token, and it is right
//!   Awaited ------------------------------> Granted
//!     ^  | another request: closed             |
//!     +--+                                     |
//!     ^      a new token, and it is wrong      |
//!     +----------------------------------------+
//! ```

use super::super::batch::Batch;
use super::super::login::TOKEN_BYTES_MAX;
use super::super::session::{Access, State};
use super::swallowing_packet;
use crate::base::output::Output;
use crate::protocol::binary::{
    Echo, Head, MECHANISM_BYTES_MAX, MECHANISMS, Request, Status, parse_plain, reply,
};

/// A request to be let in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Credentials<'a> {
    pub echo: Echo,
    pub mechanism: &'a [u8],
    pub token_bytes: u32,
    /// It goes on where another one has begun.
    pub is_step: bool,
}

/// True of what may be asked by anybody.
pub(super) fn is_free(request: &Request<'_>) -> bool {
    matches!(
        request,
        Request::SaslList | Request::SaslAuth { .. } | Request::SaslStep { .. } | Request::Version
    )
}

impl<O: Output> Batch<'_, O> {
    fn has_sasl(&self) -> bool {
        self.executor.shared.auth.as_ref().is_some_and(|auth| auth.sasl)
    }

    /// How much of a request that follows its head has to be there before it is begun.
    pub(super) fn token_bytes(&self, head: &Head<'_>) -> usize {
        if let Request::SaslAuth { mechanism, token_bytes }
        | Request::SaslStep { mechanism, token_bytes } = head.request
            && self.is_looked_at(mechanism, token_bytes)
        {
            return token_bytes as usize;
        }
        0
    }

    fn is_looked_at(&self, mechanism: &[u8], token_bytes: u32) -> bool {
        let is_short = mechanism.len() <= MECHANISM_BYTES_MAX && token_bytes <= TOKEN_BYTES_MAX;
        is_short && self.has_sasl()
    }

    pub(super) fn sasl_list(&mut self, echo: Echo) {
        match self.has_sasl() {
            true => reply::text(self.output, echo, MECHANISMS),
            false => reply::error(self.output, echo, Status::UnknownCommand),
        }
    }

    /// `access` is what the peer had before. All of a token that is looked at is there.
    pub(super) fn sasl_auth(&mut self, asked: Credentials<'_>, access: Access, state: &mut State) {
        let Credentials { echo, mechanism, token_bytes, is_step } = asked;
        if !self.is_looked_at(mechanism, token_bytes) {
            let (status, access) = if !self.has_sasl() {
                (Status::UnknownCommand, access)
            } else if mechanism.len() > MECHANISM_BYTES_MAX {
                (Status::Invalid, access)
            } else {
                self.count_login(false);
                (Status::AuthFailure, Access::Awaited { has_begun: false })
            };
            reply::error(self.output, echo, status);
            *state = swallowing_packet(token_bytes.into(), access);
            return;
        }
        let token = &self.rest()[..token_bytes as usize];
        self.consume(token.len());
        let has_begun = !is_step || access == Access::Awaited { has_begun: true };
        let can_begin = mechanism == MECHANISMS && has_begun;
        if can_begin && !is_step && token.is_empty() {
            reply::error(self.output, echo, Status::AuthContinue);
            *state = State::Binary(Access::Awaited { has_begun: true });
            return;
        }
        let is_user = match parse_plain(token).filter(|_| can_begin) {
            Some((name, password)) => self.admit(name, password),
            None => {
                self.count_login(false);
                false
            }
        };
        *state = State::Binary(match is_user {
            true => {
                reply::text(self.output, echo, reply::AUTHENTICATED);
                Access::Granted
            }
            false => {
                reply::error(self.output, echo, Status::AuthFailure);
                Access::Awaited { has_begun: false }
            }
        });
    }
}
