//! What is spoken, and who may speak: `-B`, `-S`, `-Y` and `-D`, by memcached's rules.
//!
//! A password goes with one protocol: `-S` with the binary one, `-Y` with text. Where the other
//! could be spoken beside it, there would be a door without a lock.

use std::path::PathBuf;

use super::error::StartError;
use super::options::Options;
use crate::base::protocol::Protocol;

/// What holds for every address that says nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Speech {
    pub(super) protocol: Protocol,
    pub(super) sasl: bool,
    pub(super) auth_file: Option<PathBuf>,
}

impl Speech {
    pub(super) fn check(options: &Options, udp_port: Option<u16>) -> Result<Speech, StartError> {
        let said = options.protocol.as_deref().map(named).transpose()?;
        let (sasl, auth_file) = (options.enable_sasl, options.auth_file.clone());
        let refuse = |option: &str, cause: &str, remedy: &str| {
            Err(StartError::new("accept", option, cause, remedy))
        };
        if sasl && auth_file.is_some() {
            let cause = "-S asks for a password in the binary protocol, -Y in text";
            return refuse("-S with -Y", cause, "Choose one.");
        }
        let only = |protocol| said.is_none_or(|said| said == protocol);
        if sasl && !only(Protocol::Binary) {
            let cause = "You cannot allow the ASCII protocol while using SASL.";
            return refuse("-S", cause, "Use -B binary, or leave -B out.");
        }
        if sasl && udp_port.is_some() {
            let cause = "Cannot enable UDP while using binary SASL authentication.";
            return refuse("-S", cause, "Leave -U out.");
        }
        if auth_file.is_some() && !only(Protocol::Ascii) {
            let cause =
                "You cannot allow the BINARY protocol while using ascii authentication tokens.";
            return refuse("-Y", cause, "Use -B ascii, or leave -B out.");
        }
        if auth_file.is_some() && udp_port.is_some() {
            let cause = "Cannot use UDP with ascii authentication enabled (-U 0 to disable)";
            return refuse("-Y", cause, "Leave -U out.");
        }
        let protocol = match (said, sasl, &auth_file) {
            (Some(said), _, _) => said,
            (None, true, _) => Protocol::Binary,
            (None, false, Some(_)) => Protocol::Ascii,
            (None, false, None) => Protocol::Negotiating,
        };
        Ok(Speech { protocol, sasl, auth_file })
    }

    /// What is spoken at an address whose entry in `-l` says `said`.
    pub(super) fn at(&self, said: Option<Protocol>) -> Result<Protocol, StartError> {
        let refuse = |subject: &str, cause: &str, remedy: &str| {
            Err(StartError::new("listen for", subject, cause, remedy))
        };
        match said {
            None => Ok(self.protocol),
            Some(Protocol::Binary) if self.auth_file.is_some() => {
                let cause = "Cannot use binary protocol when ascii authentication enabled";
                refuse("proto[binary]", cause, "Leave -Y or proto[binary] out.")
            }
            // As in memcached: it negotiates the only answer.
            Some(Protocol::Negotiating) if self.auth_file.is_some() => Ok(Protocol::Ascii),
            Some(said @ (Protocol::Ascii | Protocol::Negotiating)) if self.sasl => {
                let subject = format!("text (proto[...], {})", said.name());
                let cause = "it would pass by the password that -S asks for";
                refuse(&subject, cause, "Leave -S out, or use proto[binary].")
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
        Speech::check(&Options::try_parse_from(words).unwrap(), udp_port)
    }

    #[test]
    fn a_password_goes_with_one_protocol() {
        for (line, protocol) in [
            ("", Protocol::Negotiating),
            ("-B auto", Protocol::Negotiating),
            ("-B ascii", Protocol::Ascii),
            ("-B binary", Protocol::Binary),
            ("-S", Protocol::Binary),
            ("-S -B binary", Protocol::Binary),
            ("-Y f", Protocol::Ascii),
            ("-Y f -B ascii", Protocol::Ascii),
        ] {
            assert_eq!(speech(line, None).unwrap().protocol, protocol, "{line}");
        }
        for line in ["-S -B ascii", "-S -B auto", "-Y f -B binary", "-Y f -B auto", "-S -Y f"] {
            let refused = speech(line, None).and_then(|speech| speech.at(None));
            assert!(refused.is_err(), "{line}");
        }
        assert!(speech("-S", Some(5)).is_err() && speech("-Y f", Some(5)).is_err());
        assert!(speech("-B binary", Some(5)).is_ok());
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
