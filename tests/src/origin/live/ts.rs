//! Frames as MPEG-TS (ISO 13818-1), with the numbers that SRS uses: H.264 and AAC become elementary streams of one
//! program, and everything else is left out.

use anyhow::Result;
use mpeg2ts::{
    es::{StreamId, StreamType},
    pes::PesHeader,
    time::{ClockReference, Timestamp},
    ts::{
        AdaptationField, ContinuityCounter, EsInfo, Pid, ProgramAssociation, TransportScramblingControl,
        TsHeader, TsPacket, TsPacketWriter, TsPayload, VersionNumber, WriteTsPacket as _,
        payload::{Bytes, Pat, Pes, Pmt},
    },
};

use super::{aac, avc, frame::Frame};

const PROGRAM: u16 = 1;
const PMT_PID: u16 = 0x1001;
const VIDEO_PID: u16 = 0x100;
const AUDIO_PID: u16 = 0x101;

/// What a packet carries behind its header.
const ROOM: usize = TsPacket::SIZE - 4;
/// Of an adaptation field with nothing but a clock reference.
const CLOCK: usize = 8;
/// Of a PES header up to its times, and of a time.
const PES_HEADER: usize = 9;
const PES_TIME: usize = 5;
/// What the length of a PES packet does not count.
const UNCOUNTED: usize = 6;

/// Ticks of both clocks in a millisecond.
const TICKS: u64 = Timestamp::RESOLUTION / 1000;
const CLOCK_TICKS: u64 = ClockReference::RESOLUTION / 1000;
/// Players find out within this time what there is, in milliseconds.
const TABLES_EVERY: u32 = 500;

/// One transport stream.
#[derive(Debug, Default)]
pub(super) struct Remuxer {
    video: Option<avc::Config>,
    audio: Option<aac::Config>,
    version: VersionNumber,
    counters: Counters,
    tables_at: Option<u32>,
}

/// By packet identifier.
#[derive(Debug, Default)]
struct Counters {
    pat: ContinuityCounter,
    pmt: ContinuityCounter,
    video: ContinuityCounter,
    audio: ContinuityCounter,
}

/// An elementary stream's packet.
struct Unit<'a> {
    id: StreamId,
    pid: u16,
    is_key: bool,
    /// In milliseconds.
    shown: u64,
    decoded: u64,
    bytes: &'a [u8],
}

impl Remuxer {
    /// Has the tables come before whatever is next.
    pub(super) fn restart(&mut self) {
        self.tables_at = None;
    }

    /// Appends the packets of a frame. What is malformed is left out.
    ///
    /// # Errors
    /// When the packets cannot be written.
    pub(super) fn push(&mut self, frame: &Frame, out: &mut Vec<u8>) -> Result<()> {
        if frame.is_sequence_header() {
            self.set_up(frame);
            return Ok(());
        }
        if frame.is_avc() && frame.is_picture() {
            self.picture(frame, out)
        } else if frame.is_aac() {
            self.sound(frame, out)
        } else {
            Ok(())
        }
    }

    fn set_up(&mut self, frame: &Frame) {
        let known = (self.video.is_some(), self.audio.is_some());
        if frame.is_avc() {
            self.video = avc::Config::parse(&frame.payload);
        } else {
            self.audio = aac::Config::parse(&frame.payload);
        }
        if known != (self.video.is_some(), self.audio.is_some()) {
            self.version.increment();
            self.restart();
        }
    }

    fn picture(&mut self, frame: &Frame, out: &mut Vec<u8>) -> Result<()> {
        let is_key = frame.is_key();
        let unit = self.video.as_ref().and_then(|config| config.annex_b(&frame.payload, is_key));
        let Some((bytes, delay)) = unit.zip(avc::composition_time(&frame.payload)) else { return Ok(()) };
        let decoded = u64::from(frame.timestamp);
        let shown = decoded.saturating_add_signed(delay.into());
        let id = StreamId::new(StreamId::VIDEO_MIN);
        self.unit(&Unit { id, pid: VIDEO_PID, is_key, shown, decoded, bytes: &bytes }, out)
    }

    fn sound(&mut self, frame: &Frame, out: &mut Vec<u8>) -> Result<()> {
        let Some(bytes) = self.audio.and_then(|config| config.adts(&frame.payload)) else { return Ok(()) };
        let at = u64::from(frame.timestamp);
        let id = StreamId::new(StreamId::AUDIO_MIN);
        self.unit(&Unit { id, pid: AUDIO_PID, is_key: false, shown: at, decoded: at, bytes: &bytes }, out)
    }

    fn unit(&mut self, unit: &Unit<'_>, out: &mut Vec<u8>) -> Result<()> {
        let now = unit.decoded as u32;
        let is_due = self.tables_at.is_none_or(|then| now.wrapping_sub(then) >= TABLES_EVERY);
        if is_due || unit.is_key {
            self.tables(out)?;
            self.tables_at = Some(now);
        }
        let has_clock = unit.pid == self.clock_pid();
        let counter = if unit.pid == VIDEO_PID { &mut self.counters.video } else { &mut self.counters.audio };
        unit.write(counter, has_clock, out)
    }

    /// Of the stream whose packets tell the time.
    fn clock_pid(&self) -> u16 {
        if self.video.is_some() { VIDEO_PID } else { AUDIO_PID }
    }

    fn tables(&mut self, out: &mut Vec<u8>) -> Result<()> {
        let program = ProgramAssociation { program_num: PROGRAM, program_map_pid: Pid::new(PMT_PID)? };
        let pat =
            Pat { transport_stream_id: PROGRAM, version_number: VersionNumber::new(), table: vec![program] };
        let video = self.video.is_some().then_some((StreamType::H264, VIDEO_PID));
        let audio = self.audio.is_some().then_some((StreamType::AdtsAac, AUDIO_PID));
        let streams = video.into_iter().chain(audio).map(|(stream_type, pid)| {
            Ok(EsInfo { stream_type, elementary_pid: Pid::new(pid)?, descriptors: Vec::new() })
        });
        let pmt = Pmt {
            program_num: PROGRAM,
            pcr_pid: Some(Pid::new(self.clock_pid())?),
            version_number: self.version,
            program_info: Vec::new(),
            es_info: streams.collect::<Result<_>>()?,
        };
        packet(Pid::PAT, &mut self.counters.pat, None, TsPayload::Pat(pat), out)?;
        packet(PMT_PID, &mut self.counters.pmt, None, TsPayload::Pmt(pmt), out)
    }
}

impl Unit<'_> {
    fn write(&self, counter: &mut ContinuityCounter, has_clock: bool, out: &mut Vec<u8>) -> Result<()> {
        let header = self.header()?;
        let clock = has_clock.then(|| self.clock()).transpose()?;
        let times = if header.dts.is_some() { 2 } else { 1 };
        let before = PES_HEADER + times * PES_TIME + if has_clock { CLOCK } else { 0 };
        let (first, rest) = self.bytes.split_at(self.bytes.len().min(ROOM - before));
        let length = PES_HEADER - UNCOUNTED + times * PES_TIME + self.bytes.len();
        // Pictures may be longer than can be said; zero is until the next one.
        let pes_packet_len = u16::try_from(length).unwrap_or(0);
        let pes = Pes { header, pes_packet_len, data: Bytes::new(first)? };
        packet(self.pid, counter, clock, TsPayload::PesStart(pes), out)?;
        for part in rest.chunks(ROOM) {
            packet(self.pid, counter, None, TsPayload::PesContinuation(Bytes::new(part)?), out)?;
        }
        Ok(())
    }

    fn header(&self) -> Result<PesHeader> {
        let time = |milliseconds: u64| Timestamp::new((milliseconds * TICKS) & Timestamp::MAX);
        Ok(PesHeader {
            stream_id: self.id,
            priority: false,
            data_alignment_indicator: false,
            copyright: false,
            original_or_copy: false,
            pts: Some(time(self.shown)?),
            dts: (self.shown != self.decoded).then(|| time(self.decoded)).transpose()?,
            escr: None,
        })
    }

    fn clock(&self) -> Result<AdaptationField> {
        let ticks = self.decoded * CLOCK_TICKS % ((Timestamp::MAX + 1) * (CLOCK_TICKS / TICKS));
        Ok(AdaptationField {
            discontinuity_indicator: false,
            random_access_indicator: self.is_key,
            es_priority_indicator: false,
            pcr: Some(ClockReference::new(ticks)?),
            opcr: None,
            splice_countdown: None,
            transport_private_data: Vec::new(),
            extension: None,
        })
    }
}

fn packet(
    pid: u16,
    counter: &mut ContinuityCounter,
    adaptation_field: Option<AdaptationField>,
    payload: TsPayload,
    out: &mut Vec<u8>,
) -> Result<()> {
    let header = TsHeader {
        transport_error_indicator: false,
        transport_priority: false,
        pid: Pid::new(pid)?,
        transport_scrambling_control: TransportScramblingControl::NotScrambled,
        continuity_counter: *counter,
    };
    counter.increment();
    let packet = TsPacket { header, adaptation_field, payload: Some(payload) };
    Ok(TsPacketWriter::new(out).write_ts_packet(&packet)?)
}

#[cfg(test)]
mod tests {
    use mpeg2ts::ts::{ReadTsPacket as _, TsPacketReader};

    use super::super::frame::{Kind, tests::frame};
    use super::*;

    const AVC: &[u8] = &[0x17, 0, 0, 0, 0, 1, 0x42, 0, 0x1e, 0xff, 0xe1, 0, 3, 0x67, 1, 2, 1, 0, 2, 0x68, 3];
    const AAC: &[u8] = &[0xaf, 0, 0x12, 0x10];

    fn picture(at: u32, length: u32) -> Frame {
        let unit = [&[0x17, 1, 0, 0, 80][..], &length.to_be_bytes(), &vec![0x65; length as usize]].concat();
        frame(Kind::Video, at, &unit)
    }

    fn remuxed(frames: &[Frame]) -> Vec<TsPacket> {
        let (mut remuxer, mut out) = (Remuxer::default(), Vec::new());
        frames.iter().for_each(|frame| remuxer.push(frame, &mut out).unwrap());
        assert_eq!(out.len() % TsPacket::SIZE, 0);
        let mut reader = TsPacketReader::new(&out[..]);
        std::iter::from_fn(|| reader.read_ts_packet().unwrap()).collect()
    }

    fn bytes_of(packets: &[TsPacket], pid: u16) -> Vec<u8> {
        let of_pid = packets.iter().filter(|packet| packet.header.pid.as_u16() == pid);
        let bytes = of_pid.flat_map(|packet| match packet.payload.as_ref().unwrap() {
            TsPayload::PesStart(pes) => pes.data.to_vec(),
            TsPayload::PesContinuation(bytes) | TsPayload::Raw(bytes) => bytes.to_vec(),
            TsPayload::Pat(_) | TsPayload::Pmt(_) | TsPayload::Section(_) | TsPayload::Null(_) => Vec::new(),
        });
        bytes.collect()
    }

    #[test]
    fn pictures_of_any_length_arrive_whole() {
        let headers = [frame(Kind::Video, 0, AVC), frame(Kind::Audio, 0, AAC)];
        for length in (1..600).chain([65_500, 70_000]) {
            let packets = remuxed(&[&headers[..], &[picture(40, length)]].concat());
            let config = avc::Config::parse(AVC).unwrap();
            let sent = config.annex_b(&picture(40, length).payload, true).unwrap();
            assert_eq!(bytes_of(&packets, VIDEO_PID), sent, "{length}");
        }
    }

    #[test]
    fn a_player_learns_what_there_is_before_it_comes_and_what_time_it_is() {
        let sound = frame(Kind::Audio, 50, &[0xaf, 1, 1, 2, 3]);
        let packets =
            remuxed(&[frame(Kind::Video, 0, AVC), frame(Kind::Audio, 0, AAC), picture(40, 10), sound]);
        let [pat, pmt, video, audio] = &packets[..] else { panic!("{packets:?}") };
        assert!(
            matches!(&pat.payload, Some(TsPayload::Pat(pat)) if pat.table[0].program_map_pid.as_u16() == PMT_PID)
        );
        let Some(TsPayload::Pmt(pmt)) = &pmt.payload else { panic!("{pmt:?}") };
        let streams: Vec<_> = pmt.es_info.iter().map(|stream| stream.elementary_pid.as_u16()).collect();
        assert_eq!(streams, [VIDEO_PID, AUDIO_PID]);
        let clock = video.adaptation_field.as_ref().unwrap();
        assert_eq!((clock.random_access_indicator, clock.pcr.unwrap().as_u64()), (true, 40 * CLOCK_TICKS));
        let Some(TsPayload::PesStart(pes)) = &video.payload else { panic!("{video:?}") };
        let ticks = |time: Option<Timestamp>| time.map(|time| time.as_u64());
        assert_eq!([ticks(pes.header.pts), ticks(pes.header.dts)], [Some(120 * TICKS), Some(40 * TICKS)]);
        let Some(TsPayload::PesStart(pes)) = &audio.payload else { panic!("{audio:?}") };
        assert_eq!([ticks(pes.header.pts), ticks(pes.header.dts)], [Some(50 * TICKS), None]);
    }

    #[test]
    fn counters_go_on_and_turn_over() {
        let mut frames = vec![frame(Kind::Video, 0, AVC)];
        frames.extend((0..40).map(|at| picture(at * 40, 300)));
        let packets = remuxed(&frames);
        let counters = packets.iter().filter(|packet| packet.header.pid.as_u16() == VIDEO_PID);
        let counters: Vec<_> = counters.map(|packet| packet.header.continuity_counter.as_u8()).collect();
        assert!(counters.windows(2).all(|pair| pair[1] == (pair[0] + 1) % 16), "{counters:?}");
    }

    #[test]
    fn times_turn_over_where_33_bits_do() {
        remuxed(&[frame(Kind::Video, 0, AVC), picture(u32::MAX, 10)]);
    }

    #[test]
    fn what_nobody_can_decode_is_left_out() {
        assert_eq!(remuxed(&[picture(0, 10), frame(Kind::Audio, 0, &[0xaf, 1, 1])]), []);
        assert_eq!(
            remuxed(&[frame(Kind::Video, 0, AVC), frame(Kind::Video, 40, &[0x27, 1, 0, 0, 0, 0, 9])]),
            []
        );
    }
}
