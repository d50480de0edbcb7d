//! The few lines of an SDP offer or answer that the proxy reads, and the candidates it puts in place of the origin's.
//!
//! DTLS and SRTP run end to end, so everything else in a description is none of our business: a description is a list
//! of lines whose text, order and line ends stay as they are.

mod rewrite;

use std::{net::IpAddr, str::FromStr};

use thiserror::Error;

use crate::ice::{IceError, IcePwd, Ufrag};

/// Why a text is not a session description the proxy can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SdpError {
    /// The first line is not `v=0`.
    #[error("not a session description: first line is not v=0")]
    Version,
    /// There is no `m=` line.
    #[error("session description has no media")]
    NoMedia,
    /// There is no `a=ice-ufrag` line.
    #[error("session description has no ice-ufrag")]
    NoUfrag,
    /// There is no `a=ice-pwd` line.
    #[error("session description has no ice-pwd")]
    NoPwd,
    /// The ufrag or the password is not what ICE allows.
    #[error(transparent)]
    Credential(#[from] IceError),
    /// An `a=candidate` line does not have the fields of RFC 8839, section 5.1.
    #[error("session description has a malformed candidate")]
    Candidate,
}

/// What carries a candidate's media.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Plain ICE.
    Udp,
    /// ICE over TCP (RFC 6544).
    Tcp,
}

impl FromStr for Transport {
    type Err = SdpError;

    fn from_str(text: &str) -> Result<Self, SdpError> {
        if text.eq_ignore_ascii_case("udp") {
            Ok(Self::Udp)
        } else if text.eq_ignore_ascii_case("tcp") {
            Ok(Self::Tcp)
        } else {
            Err(SdpError::Candidate)
        }
    }
}

/// An address the origin listed in its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// UDP or TCP.
    pub transport: Transport,
    /// An IP address; some agents write a name.
    pub host: &'a str,
    /// The port of that host.
    pub port: u16,
}

impl<'a> Candidate<'a> {
    /// Reads what follows `a=candidate:`, up to the port.
    fn parse(value: &'a str) -> Result<Self, SdpError> {
        let mut fields = value.split(' ');
        let mut next = || fields.next().filter(|field| !field.is_empty()).ok_or(SdpError::Candidate);
        let (_foundation, _component) = (next()?, next()?);
        let transport = next()?.parse()?;
        let _priority = next()?;
        Ok(Self { transport, host: next()?, port: next()?.parse().map_err(|_| SdpError::Candidate)? })
    }
}

/// An address of the proxy that clients can send media to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HostCandidate {
    /// The address as clients reach it.
    pub ip: IpAddr,
    /// The port at that address.
    pub port: u16,
}

/// The addresses of the proxy by transport, in the order in which clients should prefer them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OurCandidates<'a> {
    /// Where datagrams are received.
    pub udp: &'a [HostCandidate],
    /// Where connections are accepted.
    pub tcp: &'a [HostCandidate],
}

/// An origin's SDP answer.
#[derive(Debug, Clone)]
pub struct Answer<'a> {
    text: &'a str,
    ufrag: Ufrag,
    pwd: IcePwd,
    candidates: Vec<Candidate<'a>>,
}

impl<'a> Answer<'a> {
    /// Reads an answer; the caller bounds its size.
    ///
    /// # Errors
    ///
    /// Fails if the text is no session description, has no ICE credentials, or lists malformed candidates.
    pub fn parse(text: &'a str) -> Result<Self, SdpError> {
        check_version(text)?;
        lines(text).find(|line| is_media(line)).ok_or(SdpError::NoMedia)?;
        let ufrag = first_ufrag(text)?;
        let pwd = first_value(text, "a=ice-pwd:").ok_or(SdpError::NoPwd)?.parse()?;
        let candidates =
            lines(text).filter_map(candidate_value).map(Candidate::parse).collect::<Result<_, _>>()?;
        Ok(Self { text, ufrag, pwd, candidates })
    }

    /// The origin's ufrag; SRS bundles all media, so the first one is the only one.
    #[must_use]
    pub const fn ufrag(&self) -> &Ufrag {
        &self.ufrag
    }

    /// The key of requests sent to the origin, and of its answers to them.
    #[must_use]
    pub const fn pwd(&self) -> &IcePwd {
        &self.pwd
    }

    /// The origin's candidates of all media, in the order of the text.
    #[must_use]
    pub fn candidates(&self) -> &[Candidate<'a>] {
        &self.candidates
    }

    /// The number of `m=` lines.
    #[must_use]
    pub fn media_count(&self) -> usize {
        lines(self.text).filter(|line| is_media(line)).count()
    }

    /// The answer with `ours` in place of the origin's candidates, the first being preferred.
    ///
    /// They stand where a media section had its first candidate; if no section had any, each gets them at its end. The
    /// origin's TCP candidates go. Every other byte stays.
    #[must_use]
    pub fn with_candidates(&self, ours: &[HostCandidate]) -> String {
        rewrite::replace_candidates(self.text, &OurCandidates { udp: ours, tcp: &[] })
    }

    /// The answer with ours in place of the origin's candidates, each by the transport that the origin offers.
    ///
    /// Where the origin lists UDP, or nothing at all, `ours.udp` come first; where it lists TCP, `ours.tcp` follow, as
    /// passive ones: the client connects. Everything else is as in [`Answer::with_candidates`].
    #[must_use]
    pub fn with_candidates_by_transport(&self, ours: &OurCandidates<'_>) -> String {
        let offers = |transport| self.candidates.iter().any(|candidate| candidate.transport == transport);
        let udp = if offers(Transport::Udp) || self.candidates.is_empty() { ours.udp } else { &[] };
        let tcp = if offers(Transport::Tcp) { ours.tcp } else { &[] };
        rewrite::replace_candidates(self.text, &OurCandidates { udp, tcp })
    }
}

/// The ufrag of the client, read from its offer; the caller bounds the size.
///
/// # Errors
///
/// Fails if the text is no session description or has no valid ufrag.
pub fn offer_ufrag(offer: &str) -> Result<Ufrag, SdpError> {
    check_version(offer)?;
    first_ufrag(offer)
}

fn check_version(text: &str) -> Result<(), SdpError> {
    if lines(text).next().map(content) == Some("v=0") { Ok(()) } else { Err(SdpError::Version) }
}

fn first_ufrag(text: &str) -> Result<Ufrag, SdpError> {
    Ok(first_value(text, "a=ice-ufrag:").ok_or(SdpError::NoUfrag)?.parse()?)
}

fn first_value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    lines(text).find_map(|line| content(line).strip_prefix(name))
}

/// The lines of a description, each with its line end.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive('\n')
}

fn content(line: &str) -> &str {
    line.trim_end_matches(['\r', '\n'])
}

fn is_media(line: &str) -> bool {
    line.starts_with("m=")
}

fn candidate_value(line: &str) -> Option<&str> {
    content(line).strip_prefix("a=candidate:")
}

#[cfg(test)]
mod tests;
