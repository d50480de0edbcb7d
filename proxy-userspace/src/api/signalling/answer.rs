//! Where the SDP stands in an origin's answer: it is the body, or one string within a JSON object.

use std::ops::Range;

use axum::body::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::endpoint::Endpoint;

/// The SDP of an answer, and its place.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OriginAnswer {
    pub(super) sdp: String,
    place: Place,
}

#[derive(Debug, PartialEq, Eq)]
enum Place {
    Body,
    /// The bytes of the JSON string, quotes included.
    Member(Range<usize>),
}

/// The answer is neither SDP nor JSON of the expected shape.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

#[derive(Deserialize)]
struct JsonAnswer<'a> {
    code: i64,
    #[serde(borrow)]
    sdp: Option<&'a RawValue>,
}

impl OriginAnswer {
    /// Finds the SDP; there is none if a JSON answer reports an error, which SRS does with status 200.
    pub(super) fn read(endpoint: Endpoint, body: &[u8]) -> Result<Option<Self>, Malformed> {
        let text = str::from_utf8(body).map_err(|_| Malformed)?;
        if !endpoint.is_json() {
            return Ok(Some(Self { sdp: text.into(), place: Place::Body }));
        }
        let answer: JsonAnswer<'_> = serde_json::from_str(text).map_err(|_| Malformed)?;
        if answer.code != 0 {
            return Ok(None);
        }
        let member = answer.sdp.ok_or(Malformed)?.get();
        let sdp = serde_json::from_str(member).map_err(|_| Malformed)?;
        let start = member.as_ptr().addr() - text.as_ptr().addr();
        Ok(Some(Self { sdp, place: Place::Member(start..start + member.len()) }))
    }

    /// `body`, the one this was read from, with another SDP; every other byte stays.
    pub(super) fn replace_sdp(&self, body: &[u8], sdp: &str) -> Bytes {
        match &self.place {
            Place::Body => Bytes::copy_from_slice(sdp.as_bytes()),
            Place::Member(range) => {
                let (before, rest) = body.split_at(range.start);
                let after = rest.split_at(range.len()).1;
                let member = serde_json::to_string(sdp).expect("a string is always JSON");
                [before, member.as_bytes(), after].concat().into()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_of_a_whip_answer_is_its_sdp() {
        let answer = OriginAnswer::read(Endpoint::Whip, b"v=0\r\n").unwrap().unwrap();
        assert_eq!(answer.sdp, "v=0\r\n");
        assert_eq!(answer.replace_sdp(b"v=0\r\n", "v=1"), "v=1");
    }

    #[test]
    fn only_the_sdp_of_a_json_answer_is_replaced() {
        let body = br#"{ "code":0, "server":"vid","sdp" : "v=0\r\na=\u00e9" ,"sessionid":"a:b", "n":1.0 }"#;
        let answer = OriginAnswer::read(Endpoint::Play, body).unwrap().unwrap();
        assert_eq!(answer.sdp, "v=0\r\na=é");
        let replaced = answer.replace_sdp(body, "v=0\r\nx");
        assert_eq!(
            replaced,
            &br#"{ "code":0, "server":"vid","sdp" : "v=0\r\nx" ,"sessionid":"a:b", "n":1.0 }"#[..]
        );
    }

    #[test]
    fn a_json_error_has_no_sdp() {
        assert_eq!(OriginAnswer::read(Endpoint::Play, br#"{"code":400}"#), Ok(None));
    }

    #[test]
    fn other_answers_are_malformed() {
        for body in [&b"{"[..], b"{}", br#"{"code":0}"#, br#"{"code":0,"sdp":1}"#, b"\xff"] {
            assert_eq!(OriginAnswer::read(Endpoint::Publish, body), Err(Malformed));
        }
    }
}
