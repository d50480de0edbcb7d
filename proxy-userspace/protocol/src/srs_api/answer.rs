//! What one origin answered.

use thiserror::Error;

use super::{
    item::{self, Kind},
    members::{self, Members, Object},
};
use crate::stream_url::StreamKey;

/// Why an answer cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AnswerError {
    /// No JSON object with a whole number as its `code`.
    #[error("the origin's answer is not JSON as SRS writes it")]
    Malformed,
    /// The origin says that it failed; SRS does so with status 200.
    #[error("the origin answered with code {0}")]
    Code(i64),
    /// What was asked for is not in it, or is something else.
    #[error("the origin's answer has no usable `{0}`")]
    Missing(&'static str),
}

/// The items of an origin's list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct List {
    /// Each as JSON, qualified; as many as were asked for.
    pub items: Vec<String>,
    /// How many there are, if the origin says so.
    pub total: Option<u64>,
}

/// An answer about one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// 0 if it was a success.
    pub code: i64,
    /// The whole answer, qualified.
    pub json: String,
}

/// Reads a list: of `stream` alone if there is one, and `most` items of it.
///
/// # Errors
///
/// Fails if it is no list.
pub fn list(
    kind: Kind,
    body: &[u8],
    origin: &str,
    stream: Option<&StreamKey>,
    most: usize,
) -> Result<List, AnswerError> {
    let (code, answer) = read(body)?;
    if code != 0 {
        return Err(AnswerError::Code(code));
    }
    let missing = AnswerError::Missing(kind.list());
    let listed = answer.get(kind.list()).ok_or(missing)?;
    let (mut items, mut count) = (Vec::new(), 0);
    let look = |item: &Members<'_>| {
        if stream.is_none_or(|stream| item::is_of(item, stream)) {
            count += 1;
            if items.len() < most {
                items.push(item::qualified(kind, item, origin));
            }
        }
    };
    members::each_object(listed.get(), look).ok_or(missing)?;
    let told = || answer.integer("total").and_then(|total| u64::try_from(total).ok());
    Ok(List { items, total: if stream.is_some() { Some(count) } else { told() } })
}

/// Reads an answer about one item.
///
/// # Errors
///
/// Fails if it is no answer of SRS, or a success without the item.
pub fn one(kind: Kind, body: &[u8], origin: &str) -> Result<Answer, AnswerError> {
    let (code, answer) = read(body)?;
    if code == 0 && answer.get(kind.one()).is_none() {
        return Err(AnswerError::Missing(kind.one()));
    }
    let mut object = Object::new();
    for (name, value) in answer.iter() {
        let item = Members::parse(value.get()).filter(|_| name == kind.one());
        let changed = item.map(|item| item::qualified(kind, &item, origin));
        object.member(name, changed.as_deref().unwrap_or(value.get()));
    }
    Ok(Answer { code, json: object.finish() })
}

/// Reads an answer in which nothing is changed.
///
/// # Errors
///
/// Fails if it is no answer of SRS.
pub fn plain(body: &[u8]) -> Result<Answer, AnswerError> {
    let (code, _) = read(body)?;
    Ok(Answer { code, json: str::from_utf8(body).map_err(|_| AnswerError::Malformed)?.to_owned() })
}

fn read(body: &[u8]) -> Result<(i64, Members<'_>), AnswerError> {
    let text = str::from_utf8(body).map_err(|_| AnswerError::Malformed)?;
    let answer = Members::parse(text).ok_or(AnswerError::Malformed)?;
    let code = answer.integer("code").ok_or(AnswerError::Malformed)?;
    Ok((code, answer))
}
