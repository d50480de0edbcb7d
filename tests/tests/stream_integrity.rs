//! Long streams arrive byte for byte, either way, however they are carried, on a clean path and on one that loses, delays and
//! reorders packets.

#![expect(clippy::unwrap_used, reason = "a test ends at its first failure")]

use std::{
    io::{Read, Write},
    net::Shutdown,
    thread,
    time::Duration,
};

use integration_tests::{
    impaired::{Impaired, Impairment},
    live::{BareOrigin, Between, Ends, read_once, wait_for_connections},
    netns::Direct,
    proxy::{Engine, Proxy},
    rtmp::{Peer, media},
};
use sha2::{Digest as _, Sha256};

const SOON: Duration = Duration::from_secs(10);
const BLOCK: usize = 1 << 20;
const GIGABYTE: usize = 1024;
/// Through a path with losses.
const MODERATE: usize = 64;

/// Blocks of a mebibyte that do not repeat, and the checksum of those that were taken.
struct Source {
    block: Vec<u8>,
    number: u64,
    checksum: Sha256,
}

impl Source {
    fn new() -> Self {
        let mut block = vec![0; BLOCK];
        rand::fill(&mut block[..]);
        Self { block, number: 0, checksum: Sha256::new() }
    }

    fn next(&mut self) -> &[u8] {
        self.number += 1;
        self.block[..8].copy_from_slice(&self.number.to_be_bytes());
        self.checksum.update(&self.block);
        &self.block
    }
}

/// How whoever sends goes about it.
#[derive(Clone, Copy)]
enum Rhythm {
    /// As fast as it is taken.
    Bulk,
    /// Now and then a little at a time, so that a proxy which chooses changes its mind.
    Changing,
}

impl Rhythm {
    fn send(self, to: &mut impl Write, block: &[u8], number: usize) {
        const LITTLE: usize = 4 << 10;
        if matches!(self, Self::Changing) && number.is_multiple_of(16) {
            for part in block.chunks(LITTLE) {
                to.write_all(part).unwrap();
                thread::sleep(Duration::from_micros(500));
            }
        } else {
            to.write_all(block).unwrap();
        }
    }
}

/// Sends so many blocks and the end; returns their checksum.
fn send(to: &mut (impl Write + Send), blocks: usize, rhythm: Rhythm) -> String {
    let mut source = Source::new();
    for number in 0..blocks {
        rhythm.send(to, source.next(), number);
    }
    shown(source.checksum)
}

/// The checksum of everything up to the end, and how much that was.
fn receive(from: &mut impl Read) -> (String, usize) {
    let (mut checksum, mut got, mut buffer) = (Sha256::new(), 0, vec![0; 256 << 10]);
    loop {
        let bytes = read_once(from, &mut buffer).unwrap();
        if bytes == 0 {
            return (shown(checksum), got);
        }
        checksum.update(&buffer[..bytes]);
        got += bytes;
    }
}

fn shown(checksum: Sha256) -> String {
    checksum.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What an origin sends arrives at the client.
#[track_caller]
fn holds_to_the_client(stage: &Between<'_>, blocks: usize, rhythm: Rhythm) {
    let Ends { mut client, mut origin } = stage.fetched("whole.flv").unwrap();
    let (sent, (received, length)) = thread::scope(|scope| {
        let sending = scope.spawn(move || {
            let sent = send(&mut origin, blocks, rhythm);
            origin.shutdown(Shutdown::Write).unwrap();
            sent
        });
        let received = receive(&mut client);
        (sending.join().unwrap(), received)
    });
    assert_eq!((received, length), (sent, blocks * BLOCK));
    drop(client);
    wait_for_connections(&stage.proxy, SOON, <[_]>::is_empty).unwrap();
}

/// What a publisher sends arrives at the origin, message for message.
#[track_caller]
fn holds_to_the_origin(stage: &Between<'_>, blocks: usize, rhythm: Rhythm) {
    const CHUNK: u32 = 60_000;
    let Ends { mut client, mut origin } = stage.published("whole").unwrap();
    client.set_chunk_size(CHUNK).unwrap();
    let (sent, received) = thread::scope(|scope| {
        let sending = scope.spawn(move || publish(&mut client, blocks, rhythm));
        let received = published(&mut origin, blocks);
        (sending.join().unwrap(), received)
    });
    assert_eq!(received, sent);
    drop(origin);
    wait_for_connections(&stage.proxy, SOON, <[_]>::is_empty).unwrap();
}

/// Publishes so many blocks, each a message.
fn publish(client: &mut Peer, blocks: usize, rhythm: Rhythm) -> String {
    let mut source = Source::new();
    for number in 0..blocks {
        let message = media(6, u32::try_from(number).unwrap() * 40, source.next().to_vec());
        let chunks = client.chunks(&message).unwrap();
        rhythm.send(&mut client.stream(), &chunks, number);
    }
    shown(source.checksum)
}

/// The checksum of so many messages of a block each.
fn published(origin: &mut Peer, blocks: usize) -> String {
    let (mut checksum, mut whole) = (Sha256::new(), 0);
    origin
        .pieces(|piece| {
            if piece.header.length() != BLOCK {
                return false;
            }
            checksum.update(piece.bytes);
            whole += usize::from(piece.ends());
            whole == blocks
        })
        .unwrap();
    shown(checksum)
}

#[track_caller]
fn arrives_whole(means: &str) {
    let network = Direct::new().unwrap();
    let stage = Between::start(&network, &[("PROXY_TCP_JOIN", means)]).unwrap();
    holds_to_the_client(&stage, GIGABYTE, Rhythm::Bulk);
    holds_to_the_origin(&stage, GIGABYTE, Rhythm::Bulk);
    stage.proxy.stop().unwrap();
}

#[test]
fn a_gigabyte_arrives_whole_either_way_when_copied() {
    arrives_whole("copy");
}

#[test]
fn a_gigabyte_arrives_whole_either_way_when_spliced() {
    arrives_whole("splice");
}

/// Clients are at the far end of a path that does everything that a path may do to packets.
#[track_caller]
fn arrives_whole_through_losses(means: &str, rhythm: Rhythm) {
    const PATH: Impairment = Impairment { delay: Duration::from_millis(1), lost: 3, overtaken: 20 };
    let network = Impaired::new(PATH).unwrap();
    let settings = [("PROXY_TCP_JOIN", means)];
    let proxy = Proxy::start(&network.proxy, Impaired::PROXY, Engine::Userspace, &settings).unwrap();
    let origin = BareOrigin::start(&network.origin, Impaired::ORIGIN, &network.proxy, "vid-live").unwrap();
    let stage = Between::of(proxy, origin, &network.client, Impaired::PROXY).unwrap();
    holds_to_the_client(&stage, MODERATE, rhythm);
    holds_to_the_origin(&stage, MODERATE, rhythm);
    let (lost, overtaken) = network.tally();
    assert!(lost > 50 && overtaken > 200, "{lost} packets were lost, {overtaken} overtaken");
    stage.proxy.stop().unwrap();
}

#[test]
fn a_stream_arrives_whole_through_loss_delay_and_reordering_when_copied() {
    arrives_whole_through_losses("copy", Rhythm::Bulk);
}

#[test]
fn a_stream_arrives_whole_through_loss_delay_and_reordering_when_spliced() {
    arrives_whole_through_losses("splice", Rhythm::Bulk);
}

#[test]
fn a_stream_arrives_whole_through_loss_delay_and_reordering_while_the_proxy_changes_its_mind() {
    arrives_whole_through_losses("auto", Rhythm::Changing);
}

/// Once connections are joined nobody reads what goes through them: bytes that are no chunks at all arrive too.
#[test]
fn defect_33_chunks_of_a_joined_stream_arrive_as_they_were_cut() {
    const BYTES: usize = 3 << 20;
    let network = Direct::new().unwrap();
    let stage = Between::start(&network, &[]).unwrap();
    let Ends { mut client, mut origin } = stage.published("raw").unwrap();
    client.send(&media(6, 0, vec![1; 5000])).unwrap();
    origin.next_media().unwrap();
    // Whatever else was said is before this.
    origin.send(&media(6, 0, vec![1; 5000])).unwrap();
    client.next_media().unwrap();
    for (from, to) in [(client.stream(), origin.stream()), (origin.stream(), client.stream())] {
        let (mut sent, mut got) = (vec![0; BYTES], vec![0; BYTES]);
        rand::fill(&mut sent[..]);
        thread::scope(|scope| {
            scope.spawn(|| (&*from).write_all(&sent).unwrap());
            (&*to).read_exact(&mut got).unwrap();
        });
        assert!(got == sent);
    }
}
