//! RTMP, as "Adobe's Real Time Messaging Protocol" 1.0 describes it and SRS, ffmpeg and OBS speak it.

pub mod message;

pub use message::Message;
