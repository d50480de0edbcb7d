//! An RTMP end point that completes the simple handshake and closes: enough for a proxy that probes it.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::http::Server;

const VERSION: u8 = 3;
const BLOCK: usize = 1536;

pub(super) fn serve(address: SocketAddr) -> io::Result<Server> {
    Server::accept(address, |stream| {
        let _ = shake_hands(stream);
    })
}

fn shake_hands(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut c0c1 = [0; 1 + BLOCK];
    stream.read_exact(&mut c0c1)?;
    let mut s0s1s2 = vec![VERSION];
    s0s1s2.resize(1 + BLOCK, 0);
    s0s1s2.extend_from_slice(&c0c1[1..]);
    stream.write_all(&s0s1s2)?;
    stream.read_exact(&mut [0; BLOCK])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn echoes_the_client_block_in_s2() {
        let server = serve(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let mut stream = TcpStream::connect(server.address()).unwrap();
        let mut c0c1 = vec![VERSION];
        c0c1.resize(1 + BLOCK, 0x5a);
        stream.write_all(&c0c1).unwrap();
        let mut answer = [0; 1 + 2 * BLOCK];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!((answer[0], &answer[1 + BLOCK..]), (VERSION, &c0c1[1..]));
    }
}
