//! What chunks carry (RTMP 1.0, section 6.1), and what each kind of message is for.

/// The message stream that everything about the connection itself uses.
pub const CONTROL_STREAM: u32 = 0;
/// The chunk stream of protocol control messages.
pub const CONTROL_CHUNK_STREAM: u32 = 2;
/// The chunk stream that connection-level commands usually use.
pub const COMMAND_CHUNK_STREAM: u32 = 3;

/// Message type ids (RTMP 1.0, sections 5.4 and 7.1).
pub mod kind {
    /// The sender's chunk size from now on: 31 bits, never zero.
    pub const SET_CHUNK_SIZE: u8 = 1;
    /// Discard the partly received message of a chunk stream.
    pub const ABORT: u8 = 2;
    /// How many bytes have been received.
    pub const ACKNOWLEDGEMENT: u8 = 3;
    /// An event and its data.
    pub const USER_CONTROL: u8 = 4;
    /// After how many bytes the sender wants an acknowledgement.
    pub const WINDOW_ACKNOWLEDGEMENT_SIZE: u8 = 5;
    /// How many unacknowledged bytes the peer may send.
    pub const SET_PEER_BANDWIDTH: u8 = 6;
    /// Audio.
    pub const AUDIO: u8 = 8;
    /// Video.
    pub const VIDEO: u8 = 9;
    /// Data in an AMF3 envelope.
    pub const DATA_AMF3: u8 = 15;
    /// A shared object in an AMF3 envelope.
    pub const SHARED_OBJECT_AMF3: u8 = 16;
    /// A command in an AMF3 envelope.
    pub const COMMAND_AMF3: u8 = 17;
    /// Data, as metadata.
    pub const DATA_AMF0: u8 = 18;
    /// A shared object.
    pub const SHARED_OBJECT_AMF0: u8 = 19;
    /// A command.
    pub const COMMAND_AMF0: u8 = 20;
    /// Several messages in one.
    pub const AGGREGATE: u8 = 22;
}

/// A whole message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The chunk stream it came on or goes out on.
    pub chunk_stream: u32,
    /// Milliseconds, modulo 2^32.
    pub timestamp: u32,
    /// See [`kind`].
    pub kind: u8,
    /// The message stream.
    pub stream: u32,
    /// At most 2^24 - 1 bytes.
    pub payload: Vec<u8>,
}
