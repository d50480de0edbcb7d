//! From a publisher's packet to a player's: payload type and m-line change, the sequence number does not.

use std::collections::HashMap;

use str0m::Rtc;
use str0m::format::PayloadParams;
use str0m::media::{MediaKind, Mid, Pt};
use str0m::rtp::{RtpWrite, SeqNo};

use super::session::{MediaPacket, SessionId, Track};

/// Where a publisher's payload type goes at one player.
#[derive(Debug, Clone, Copy)]
struct Lane {
    mid: Mid,
    pt: Pt,
}

/// The lanes of one player, found once per publisher and payload type.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    lanes: HashMap<(SessionId, Pt), Option<Lane>>,
    newest: HashMap<Mid, u64>,
}

impl Lanes {
    /// Queues the packet; `None` when the player has no m-line or codec for it.
    pub(super) fn write(&mut self, rtc: &mut Rtc, tracks: &[Track], packet: &MediaPacket) -> Option<()> {
        let key = (packet.from, packet.params.pt());
        let lane = (*self.lanes.entry(key).or_insert_with(|| find_lane(rtc, tracks, packet)))?;
        let sequence = self.extend(lane.mid, packet.rtp.header.sequence_number)?;
        let header = &packet.rtp.header;
        let mut extensions = header.ext_vals.clone();
        (extensions.mid, extensions.rid, extensions.transport_cc) = (None, None, None);
        let (received, payload) = (packet.rtp.timestamp, packet.rtp.payload.clone());
        let write = RtpWrite::new(lane.pt, sequence, header.timestamp, received, payload)
            .marker(header.marker)
            .ext_vals(extensions)
            .nackable(packet.kind == MediaKind::Video);
        rtc.direct_api().stream_tx_by_mid(lane.mid, None)?.write_rtp(write);
        Some(())
    }

    /// The player's SRTP roll-over counter starts at its own first packet, whatever the publisher's is.
    fn extend(&mut self, mid: Mid, sequence: u16) -> Option<SeqNo> {
        let newest = self.newest.get(&mid).copied();
        let extended = newest.map_or(Some(sequence.into()), |newest| extend(newest, sequence))?;
        self.newest.insert(mid, extended.max(newest.unwrap_or(0)));
        Some(extended.into())
    }
}

/// The extended number nearest to the newest one, `None` before the first.
fn extend(newest: u64, sequence: u16) -> Option<u64> {
    let distance = sequence.wrapping_sub(newest as u16).cast_signed();
    newest.checked_add_signed(distance.into())
}

fn find_lane(rtc: &Rtc, tracks: &[Track], packet: &MediaPacket) -> Option<Lane> {
    let track = tracks.iter().find(|track| track.kind == packet.kind && track.direction.is_sending())?;
    let offered = rtc.media(track.mid)?.remote_pts();
    let known = offered.iter().filter_map(|pt| rtc.codec_config().find(|params| params.pt() == *pt));
    let pt = known.filter_map(|params| Some((likeness(params, &packet.params)?, params.pt()))).max()?.1;
    Some(Lane { mid: track.mid, pt })
}

/// How well a player's payload type suits the publisher's codec.
fn likeness(offered: &PayloadParams, published: &PayloadParams) -> Option<u8> {
    let (offered, published) = (offered.spec(), published.spec());
    let same_mode = offered.format.packetization_mode == published.format.packetization_mode;
    (offered.codec == published.codec).then_some(match (offered.format == published.format, same_mode) {
        (true, _) => 2,
        (false, true) => 1,
        (false, false) => 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_numbers_follow_the_nearest_way_around() {
        assert_eq!(extend(65_535, 0), Some(65_536));
        assert_eq!(extend(65_536, 65_535), Some(65_535));
        assert_eq!(extend(10, 11), Some(11));
        assert_eq!(extend(3, 65_000), None);
    }
}
