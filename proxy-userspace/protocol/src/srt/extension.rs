//! The blocks behind a conclusion (draft-sharabayko-srt-01, section 3.2.1.1): type, length in words of four bytes, content.

use super::HandshakeError;
use crate::reader::Reader;

/// The type of the block with the stream id.
const STREAM_ID: u16 = 5;
/// libsrt takes no longer stream id.
const LONGEST_STREAM_ID: usize = 512;

/// One block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extension<'a> {
    /// What it is.
    pub kind: u16,
    /// A multiple of four bytes.
    pub content: &'a [u8],
}

/// Reads block after block; nothing follows an error.
#[derive(Clone, Debug)]
pub struct Extensions<'a>(Reader<'a>);

impl<'a> Extensions<'a> {
    /// Of the bytes behind a handshake.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(Reader::new(bytes))
    }

    fn take(&mut self) -> Result<Extension<'a>, HandshakeError> {
        let kind = self.0.u16()?;
        let words = usize::from(self.0.u16()?);
        Ok(Extension { kind, content: self.0.bytes(words * 4)? })
    }

    /// The stream id, if there is one. Of several the last counts, as for libsrt.
    ///
    /// # Errors
    ///
    /// Fails if a block is cut, or the stream id is empty or too long.
    pub(super) fn stream_id(self) -> Result<Option<String>, HandshakeError> {
        let mut found = None;
        for extension in self {
            let Extension { kind, content } = extension?;
            if kind != STREAM_ID {
                continue;
            }
            if content.is_empty() || content.len() > LONGEST_STREAM_ID {
                return Err(HandshakeError::StreamId);
            }
            found = Some(text(content));
        }
        Ok(found)
    }
}

impl<'a> Iterator for Extensions<'a> {
    type Item = Result<Extension<'a>, HandshakeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let next = self.take();
        if next.is_err() {
            self.0 = Reader::new(&[]);
        }
        Some(next)
    }
}

/// Text is sent as words of the sender, whose bytes the network's order reverses, and padded with zeroes.
fn text(content: &[u8]) -> String {
    let (words, _none) = content.as_chunks::<4>();
    let bytes: Vec<u8> = words.iter().flat_map(|[a, b, c, d]| [*d, *c, *b, *a]).collect();
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    // It chooses an origin and is passed on as it came, so what is no text may be told apart as little as this.
    String::from_utf8_lossy(bytes.split_at(end).0).into_owned()
}

#[cfg(test)]
pub(super) fn stream_id_block(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    let words = u16::try_from(bytes.len() / 4).expect("a stream id of a test is short");
    let content = bytes.as_chunks::<4>().0.iter().flat_map(|[a, b, c, d]| [*d, *c, *b, *a]);
    STREAM_ID.to_be_bytes().into_iter().chain(words.to_be_bytes()).chain(content).collect()
}
