//! What is spoken, and who may speak: `-B`, `-S`, `-Y` and `-D`, by memcached's rules.
//!
//! Where a name and a password are asked for, both protocols ask for them. `-Y` alone leaves no
//! protocol but text, `-S` alone none but the binary one; together they leave both, and both ask
//! for the users of the same file. No address is a door without a lock.

use std::path::PathBuf;

use super::error::StartError;
use super::host::Host;
use super::options::Options;
use super::users::read_users;
use crate::base::protocol::Protocol;
use crate::base::users::Users;

/// What holds for every address that says nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Speech {
    pub(super) protocol: Protocol,
    /// The file of users, if peers have to say who they are.
    users_file: Option<PathBuf>,
    ascii: bool,
    sasl: bool,
}

/// Who may speak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthPlan {
    pub file: PathBuf,
    /// As they were when the file was read.
    pub users: Users,
    /// `-Y`: the text protocol lets them in.
    pub ascii: bool,
    /// `-S`: the binary protocol lets them in.
    pub sasl: bool,
}

impl Speech {
    /// Everybody may speak this.
    #[cfg(test)]
    pub(super) const fn open(protocol: Protocol) -> Speech {
        Speech { protocol, users_file: None, ascii: false, sasl: false }
    }

    /// True when peers have to say who they are.
    pub(super) fn asks_who(&self) -> bool {
        self.users_file.is_some()
    }

    pub(super) fn check(
        options: &Options,
        host: &Host,
        udp_port: Option<u16>,
    ) -> Result<Speech, StartError> {
        let said = options.protocol.as_deref().map(named).transpose()?;
        let (sasl, ascii) = (options.enable_sasl, options.auth_file.is_some());
        let refuse = |option: &str, cause: &str, remedy: &str| {
            Err(StartError::new("accept", option, cause, remedy))
        };
        let only = |protocol| said.is_none_or(|said| said == protocol);
        if sasl && !ascii && !only(Protocol::Binary) {
            let cause = "You cannot allow the ASCII protocol while using SASL.";
            return refuse("-S", cause, "Use -B binary, leave -B out, or add -Y FILE.");
        }
        if sasl && udp_port.is_some() {
            let cause = "Cannot enable UDP while using binary SASL authentication.";
            return refuse("-S", cause, "Leave -U out.");
        }
        if ascii && !sasl && !only(Protocol::Ascii) {
            let cause =
                "You cannot allow the BINARY protocol while using ascii authentication tokens.";
            return refuse("-Y", cause, "Use -B ascii, leave -B out, or add -S.");
        }
        if ascii && udp_port.is_some() {
            let cause = "Cannot use UDP with ascii authentication enabled (-U 0 to disable)";
            return refuse("-Y", cause, "Leave -U out.");
        }
        let users_file = options.auth_file.clone().or_else(|| match sasl {
            true => host.sasl_file.clone(),
            false => None,
        });
        if sasl && users_file.is_none() {
            let cause = "there is no file of users";
            let remedy = "Add -Y FILE, or name it in the environment: MEMCACHED_SASL_PWDB=FILE.";
            return refuse("-S", cause, remedy);
        }
        let protocol = match (said, sasl, ascii) {
            (Some(said), _, _) => said,
            (None, true, false) => Protocol::Binary,
            (None, false, true) => Protocol::Ascii,
            (None, true, true) | (None, false, false) => Protocol::Negotiating,
        };
        Ok(Speech { protocol, users_file, ascii, sasl })
    }

    /// Reads who may speak; `None` is everybody.
    pub(super) fn auth(&self) -> Result<Option<AuthPlan>, StartError> {
        let Speech { ascii, sasl, .. } = *self;
        let Some(file) = self.users_file.clone() else { return Ok(None) };
        let users = read_users(&file)?;
        Ok(Some(AuthPlan { file, users, ascii, sasl }))
    }

    /// What is spoken at an address whose entry in `-l` says `said`.
    pub(super) fn at(&self, said: Option<Protocol>) -> Result<Protocol, StartError> {
        let refuse = |subject: &str, cause: &str, remedy: &str| {
            Err(StartError::new("listen for", subject, cause, remedy))
        };
        match said {
            None => Ok(self.protocol),
            Some(Protocol::Binary) if self.ascii && !self.sasl => {
                let cause = "Cannot use binary protocol when ascii authentication enabled";
                refuse("proto[binary]", cause, "Add -S, or leave -Y or proto[binary] out.")
            }
            // As in memcached: it negotiates the only answer.
            Some(Protocol::Negotiating) if self.ascii && !self.sasl => Ok(Protocol::Ascii),
            Some(said @ (Protocol::Ascii | Protocol::Negotiating)) if self.sasl && !self.ascii => {
                let subject = format!("text (proto[...], {})", said.name());
                let cause = "-S asks for a password in the binary protocol alone";
                refuse(&subject, cause, "Add -Y FILE, leave -S out, or use proto[binary].")
            }
            Some(said) => Ok(said),
        }
    }
}

/// A protocol by the name that `-B` has for it.
fn named(name: &str) -> Result<Protocol, StartError> {
    match name {
        "auto" => Ok(Protocol::Negotiating),
        "ascii" => Ok(Protocol::Ascii),
        "binary" => Ok(Protocol::Binary),
        _ => {
            let cause = format!("Invalid value for binding protocol: {name}");
            let remedy = "Use one of auto, binary, or ascii.";
            Err(StartError::new("accept", format!("-B {name}"), cause, remedy))
        }
    }
}

/// The first byte of what `-D` is given.
pub(super) fn delimiter(text: Option<&str>) -> Result<u8, StartError> {
    let Some(text) = text else { return Ok(b':') };
    text.trim_start().bytes().next().ok_or_else(|| {
        StartError::new("accept", "-D", "No delimiter specified", "Use -D :, or another character.")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn speech(line: &str, udp_port: Option<u16>) -> Result<Speech, StartError> {
        let words = std::iter::once("ringcached").chain(line.split_whitespace());
        let host = Host { sasl_file: line.contains("-S").then(|| "pwdb".into()), ..Host::here() };
        Speech::check(&Options::try_parse_from(words).unwrap(), &host, udp_port)
    }

    #[test]
    fn a_password_leaves_the_protocols_that_ask_for_it() {
        for (line, protocol) in [
            ("", Protocol::Negotiating),
            ("-B auto", Protocol::Negotiating),
            ("-B ascii", Protocol::Ascii),
            ("-B binary", Protocol::Binary),
            ("-S", Protocol::Binary),
            ("-S -B binary", Protocol::Binary),
            ("-Y f", Protocol::Ascii),
            ("-Y f -B ascii", Protocol::Ascii),
            ("-S -Y f", Protocol::Negotiating),
            ("-S -Y f -B ascii", Protocol::Ascii),
            ("-S -Y f -B binary", Protocol::Binary),
        ] {
            assert_eq!(speech(line, None).unwrap().protocol, protocol, "{line}");
        }
        for line in ["-S -B ascii", "-S -B auto", "-Y f -B binary", "-Y f -B auto"] {
            assert!(speech(line, None).is_err(), "{line}");
        }
        for line in ["-S", "-Y f", "-S -Y f"] {
            assert!(speech(line, Some(5)).is_err(), "{line}");
        }
        assert!(speech("-B binary", Some(5)).is_ok());
    }

    #[test]
    fn sasl_needs_a_file_of_users() {
        let words = Options::try_parse_from(["ringcached", "-S"]).unwrap();
        let host = Host { sasl_file: None, ..Host::here() };
        assert!(Speech::check(&words, &host, None).unwrap_err().remedy.contains("-Y FILE"));
        assert_eq!(speech("-S", None).unwrap().users_file, Some("pwdb".into()));
        assert_eq!(speech("-S -Y f", None).unwrap().users_file, Some("f".into()));
        assert_eq!(speech("-B binary", None).unwrap().auth(), Ok(None));
        assert!(speech("-Y /nowhere/f", None).unwrap().auth().is_err());
    }

    #[test]
    fn no_address_passes_by_the_password() {
        let (ascii, binary) = (Some(Protocol::Ascii), Some(Protocol::Binary));
        let negotiating = Some(Protocol::Negotiating);
        let sasl = speech("-S", None).unwrap();
        assert!(sasl.at(ascii).is_err() && sasl.at(negotiating).is_err());
        assert_eq!(sasl.at(binary), Ok(Protocol::Binary));
        assert_eq!(sasl.at(None), Ok(Protocol::Binary));
        let file = speech("-Y f", None).unwrap();
        assert!(file.at(binary).is_err());
        assert_eq!(file.at(negotiating), Ok(Protocol::Ascii));
        let both = speech("-S -Y f", None).unwrap();
        for said in [Protocol::Ascii, Protocol::Binary, Protocol::Negotiating] {
            assert_eq!(both.at(Some(said)), Ok(said));
        }
        let open = speech("-B ascii", None).unwrap();
        assert_eq!((open.at(binary), open.at(None)), (Ok(Protocol::Binary), Ok(Protocol::Ascii)));
    }

    #[test]
    fn delimiters() {
        assert_eq!(delimiter(None), Ok(b':'));
        assert_eq!(delimiter(Some("/x")), Ok(b'/'));
        assert!(delimiter(Some("")).is_err() && delimiter(Some(" ")).is_err());
    }
}
