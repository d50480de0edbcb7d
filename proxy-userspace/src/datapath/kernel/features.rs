//! What a device can do for XDP, as the kernel tells by its generic netlink family `netdev` (6.3 and later).

use std::{io, mem::MaybeUninit};

use rustix::{
    fd::OwnedFd,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType,
        netlink::{self, SocketAddrNetlink},
        recv, sendto, socket_with,
    },
};

/// `xdp-features` of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XdpFeatures(u64);

impl XdpFeatures {
    #[cfg(test)]
    pub(crate) const fn new(bits: u64) -> Self {
        Self(bits)
    }

    /// The driver runs programs that pass, drop, abort or send back.
    pub fn has_basic(self) -> bool {
        self.has(1 << 0)
    }

    /// The driver runs programs that redirect.
    pub fn has_redirect(self) -> bool {
        self.has(1 << 1)
    }

    /// Frames can be redirected to the device; on veth only while its peer takes them.
    pub fn has_ndo_xmit(self) -> bool {
        self.has(1 << 2)
    }

    /// The device receives frames in several buffers.
    pub fn has_rx_sg(self) -> bool {
        self.has(1 << 5)
    }

    /// Frames in several buffers can be redirected to the device.
    pub fn has_ndo_xmit_sg(self) -> bool {
        self.has(1 << 6)
    }

    fn has(self, bit: u64) -> bool {
        self.0 & bit != 0
    }
}

/// The device's features, or `None` if the kernel does not tell.
pub fn xdp_features(ifindex: u32) -> Option<XdpFeatures> {
    const NETDEV_CMD_DEV_GET: u8 = 1;
    const NETDEV_A_DEV_IFINDEX: u16 = 1;
    const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
    let socket = Socket::open().ok()?;
    let family = socket.family("netdev")?;
    let reply = socket.ask(family, NETDEV_CMD_DEV_GET, NETDEV_A_DEV_IFINDEX, &ifindex.to_ne_bytes()).ok()?;
    let features = attribute(&reply, NETDEV_A_DEV_XDP_FEATURES)?;
    Some(XdpFeatures(u64::from_ne_bytes(features.get(..8)?.try_into().ok()?)))
}

/// Whether the device takes VLAN tags out of the frames it receives (`ethtool -K DEV rxvlan on`), or `None` if the kernel does
/// not tell (before 5.6).
pub fn strips_vlan_tags(ifindex: u32) -> Option<bool> {
    // linux/ethtool_netlink.h; the header names the device, the answer the features that are on.
    const ETHTOOL_MSG_FEATURES_GET: u8 = 11;
    const ETHTOOL_A_FEATURES_HEADER: u16 = 1;
    const ETHTOOL_A_FEATURES_ACTIVE: u16 = 4;
    const ETHTOOL_A_HEADER_DEV_INDEX: u16 = 1;
    const NLA_F_NESTED: u16 = 1 << 15;
    let socket = Socket::open().ok()?;
    let family = socket.family("ethtool")?;
    let device = [&[8, 0], &ETHTOOL_A_HEADER_DEV_INDEX.to_ne_bytes()[..], &ifindex.to_ne_bytes()].concat();
    let header = ETHTOOL_A_FEATURES_HEADER | NLA_F_NESTED;
    let reply = socket.ask(family, ETHTOOL_MSG_FEATURES_GET, header, &device).ok()?;
    let active = attribute(&reply, ETHTOOL_A_FEATURES_ACTIVE)?;
    // The name of the feature ends with a zero, and no other ends as it does.
    Some(active.windows(RX_VLAN.len()).any(|name| name == RX_VLAN))
}

/// `NETIF_F_HW_VLAN_CTAG_RX` as ethtool spells it.
const RX_VLAN: &[u8] = b"rx-vlan-hw-parse\0";

struct Socket(OwnedFd);

impl Socket {
    fn open() -> io::Result<Self> {
        let (family, kind) = (AddressFamily::NETLINK, SocketType::RAW);
        Ok(Self(socket_with(family, kind, SocketFlags::CLOEXEC, Some(netlink::GENERIC))?))
    }

    /// The message type of a generic netlink family.
    fn family(&self, name: &str) -> Option<u16> {
        const GENL_ID_CTRL: u16 = 16;
        const CTRL_CMD_GETFAMILY: u8 = 3;
        const CTRL_ATTR_FAMILY_ID: u16 = 1;
        const CTRL_ATTR_FAMILY_NAME: u16 = 2;
        let name = [name.as_bytes(), &[0]].concat();
        let reply = self.ask(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_NAME, &name).ok()?;
        Some(u16::from_ne_bytes(attribute(&reply, CTRL_ATTR_FAMILY_ID)?.get(..2)?.try_into().ok()?))
    }

    /// Sends a request with one attribute and returns the attributes of the answer.
    fn ask(&self, family: u16, command: u8, attribute: u16, value: &[u8]) -> io::Result<Vec<u8>> {
        let request = request(family, command, attribute, value);
        sendto(&self.0, &request, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        let mut answer = [const { MaybeUninit::uninit() }; LONGEST];
        let ((answer, _), _) = recv(&self.0, &mut answer, RecvFlags::empty())?;
        payload(answer).map(<[u8]>::to_vec).ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))
    }
}

/// The features of a device by their names are four lists of some sixty.
const LONGEST: usize = 32 << 10;
/// Length of `nlmsghdr` and of `genlmsghdr`.
const HEADERS: usize = 16 + 4;
const ATTRIBUTE_HEADER: usize = 4;

fn request(family: u16, command: u8, attribute: u16, value: &[u8]) -> Vec<u8> {
    const NLM_F_REQUEST: u16 = 1;
    const GENL_VERSION: u8 = 1;
    let attribute_length = ATTRIBUTE_HEADER + value.len();
    let length = (HEADERS + attribute_length).next_multiple_of(4);
    let mut message = Vec::with_capacity(length);
    message.extend(u32::try_from(length).expect("requests are short").to_ne_bytes());
    message.extend(family.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    // Sequence and port: one question is open at a time, and the kernel fills in the port.
    message.extend([0; 8]);
    message.extend([command, GENL_VERSION, 0, 0]);
    message.extend(u16::try_from(attribute_length).expect("requests are short").to_ne_bytes());
    message.extend(attribute.to_ne_bytes());
    message.extend(value);
    message.resize(length, 0);
    message
}

/// The attributes of an answer, or `None` if it is an error.
fn payload(message: &[u8]) -> Option<&[u8]> {
    const NLMSG_ERROR: u16 = 2;
    let kind = u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?);
    if kind == NLMSG_ERROR {
        return None;
    }
    let length = u32::from_ne_bytes(message.get(..4)?.try_into().ok()?);
    message.get(HEADERS..usize::try_from(length).ok()?)
}

/// The value of the first attribute of this kind.
pub(super) fn attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    const FLAGS: u16 = 0xc000;
    loop {
        let length = usize::from(u16::from_ne_bytes(attributes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(attributes.get(2..4)?.try_into().ok()?) & !FLAGS;
        let value = attributes.get(ATTRIBUTE_HEADER..length)?;
        if kind == wanted {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_an_attribute_behind_a_padded_one() {
        let request = request(16, 3, 2, b"abc");
        let mut attributes = request[HEADERS..].to_vec();
        attributes.extend([8, 0, 7, 0, 1, 2, 3, 4]);
        assert_eq!(attribute(&attributes, 7), Some([1, 2, 3, 4].as_slice()));
        assert_eq!(attribute(&attributes, 9), None);
    }

    #[test]
    fn every_truncation_of_an_answer_is_refused() {
        let answer = request(16, 3, 2, b"netdev\0");
        for length in 0..answer.len() {
            assert_eq!(payload(&answer[..length]), None, "{length} bytes");
        }
    }

    #[test]
    fn the_loopback_device_has_no_native_xdp() {
        let Some(features) = xdp_features(1) else { return };
        assert!(!features.has_basic());
    }

    #[test]
    fn the_loopback_device_takes_no_tags() {
        assert_eq!(strips_vlan_tags(1), Some(false));
    }

    #[test]
    fn a_device_that_is_not_there_tells_nothing() {
        assert_eq!(strips_vlan_tags(u32::MAX >> 1), None);
    }
}
