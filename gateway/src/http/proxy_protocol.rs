//! The PROXY protocol, versions 1 and 2 (haproxy.org, proxy-protocol.txt): a header before a connection's first byte,
//! in which a proxy names its client. Not one byte after the header is read.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tokio::io::{AsyncRead, AsyncReadExt};

const SIGNATURE_V2: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The longest line of version 1, with its end.
const LINE_BYTES_MAX: usize = 107;
/// The longest block of version 2 that is read: the addresses and a few further fields.
const BLOCK_BYTES_MAX: usize = 2048;

/// Why a connection has no valid header.
#[derive(Debug, thiserror::Error)]
pub(super) enum HeaderError {
    /// It ended, or failed, before the header was complete.
    #[error("the connection ended or timed out before a complete PROXY header: {0}")]
    Io(#[from] std::io::Error),
    /// It begins with something else.
    #[error("the connection does not begin with a PROXY header; does the proxy send one?")]
    Missing,
    /// It is one, but not as the protocol wants it.
    #[error("the PROXY header is malformed: {0}")]
    Invalid(&'static str),
}

/// Reads the header: the client's address; `None` if the proxy connects for itself, or for no IP address.
///
/// # Errors
/// There is no valid header; the connection can't be used.
pub(super) async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Option<IpAddr>, HeaderError> {
    // Both versions are longer than this.
    let mut start = [0; 12];
    stream.read_exact(&mut start).await?;
    if start == SIGNATURE_V2 {
        read_block(stream).await
    } else if start.starts_with(b"PROXY ") {
        read_line(stream, &start).await
    } else {
        Err(HeaderError::Missing)
    }
}

async fn read_line<S: AsyncRead + Unpin>(stream: &mut S, start: &[u8]) -> Result<Option<IpAddr>, HeaderError> {
    let mut line = start.to_vec();
    // Byte by byte: what follows the line belongs to the request, and the line is short.
    while !line.ends_with(b"\n") {
        if line.len() >= LINE_BYTES_MAX {
            return Err(HeaderError::Invalid("the line is too long"));
        }
        line.push(stream.read_u8().await?);
    }
    let text = std::str::from_utf8(&line).ok().and_then(|line| line.strip_suffix("\r\n"));
    let mut words = text.ok_or(HeaderError::Invalid("the line has no valid end"))?.split(' ').skip(1);
    match words.next() {
        Some("UNKNOWN") => Ok(None),
        Some(family @ ("TCP4" | "TCP6")) => {
            let mut address = || words.next()?.parse::<IpAddr>().ok().filter(|ip| ip.is_ipv4() == (family == "TCP4"));
            let addresses = (address(), address());
            let mut port = || words.next()?.parse::<u16>().ok();
            let ports = (port(), port());
            match (addresses, ports, words.next()) {
                ((Some(source), Some(_)), (Some(_), Some(_)), None) => Ok(Some(source)),
                _ => Err(HeaderError::Invalid("its addresses or ports are none")),
            }
        }
        _ => Err(HeaderError::Invalid("it names another protocol than TCP4, TCP6 or UNKNOWN")),
    }
}

async fn read_block<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Option<IpAddr>, HeaderError> {
    let version_and_command = stream.read_u8().await?;
    let family = stream.read_u8().await?;
    let length = usize::from(stream.read_u16().await?);
    if length > BLOCK_BYTES_MAX {
        return Err(HeaderError::Invalid("the block is too long"));
    }
    let mut block = vec![0; length];
    stream.read_exact(&mut block).await?;
    match (version_and_command, family) {
        // LOCAL: the proxy's own check.
        (0x20, _) => Ok(None),
        (0x21, 0x11) if length >= 12 => Ok(block.first_chunk::<4>().map(|source| Ipv4Addr::from(*source).into())),
        (0x21, 0x21) if length >= 36 => Ok(block.first_chunk::<16>().map(|source| Ipv6Addr::from(*source).into())),
        (0x21, 0x11 | 0x21) => Err(HeaderError::Invalid("the block is too short for its addresses")),
        // Unspecified, or a Unix socket: no address to be had.
        (0x21, 0x00 | 0x31) => Ok(None),
        (0x21, _) => Err(HeaderError::Invalid("it is not about a TCP connection")),
        _ => Err(HeaderError::Invalid("its version or command is unknown")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The address, and what is left to read.
    async fn read_from(bytes: &[u8]) -> Result<(Option<IpAddr>, Vec<u8>), String> {
        let mut stream = bytes;
        let address = read(&mut stream).await.map_err(|fault| fault.to_string())?;
        Ok((address, stream.to_vec()))
    }

    fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).expect("short").to_be_bytes();
        [&SIGNATURE_V2[..], &[command, family], &length, block, b"GET /"].concat()
    }

    #[tokio::test]
    async fn both_versions_give_the_source_and_leave_the_request() {
        let v4 = [&[203, 0, 113, 7, 10, 0, 0, 1][..], &[0x10, 0, 0x1f, 0x96]].concat();
        let v6 = [&Ipv6Addr::LOCALHOST.octets()[..], &[0; 16], &[0; 4], b"\x04\0\x01x"].concat();
        for (bytes, source) in [
            (b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 8086\r\nGET /".to_vec(), Some("203.0.113.7")),
            (b"PROXY TCP6 2001:db8::7 ::1 4711 8086\r\nGET /".to_vec(), Some("2001:db8::7")),
            (b"PROXY UNKNOWN\r\nGET /".to_vec(), None),
            (b"PROXY UNKNOWN a b c d\r\nGET /".to_vec(), None),
            (v2(0x21, 0x11, &v4), Some("203.0.113.7")),
            (v2(0x21, 0x21, &v6), Some("::1")),
            (v2(0x20, 0x11, &v4), None),
            (v2(0x20, 0x00, &[]), None),
            (v2(0x21, 0x31, &[0; 216]), None),
        ] {
            let (address, rest) = read_from(&bytes).await.expect("a header");
            assert_eq!(address.map(|address| address.to_string()).as_deref(), source);
            assert_eq!(rest, b"GET /");
        }
    }

    #[tokio::test]
    async fn whatever_else_comes_is_refused() {
        let endless = [b"PROXY TCP4 ".to_vec(), vec![b'1'; 200]].concat();
        for bytes in [
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            b"PROXY TCP4 203.0.113.7 10.0.0.1 4711\r\n".to_vec(),
            b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 8086 9\r\n".to_vec(),
            b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 80860\r\n".to_vec(),
            b"PROXY TCP4 ::1 ::1 4711 8086\r\n".to_vec(),
            b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 8086\n".to_vec(),
            b"PROXY UDP4 203.0.113.7 10.0.0.1 4711 8086\r\n".to_vec(),
            b"PROXY TCP4 \xff\xff\xff\xff\r\n".to_vec(),
            endless,
            v2(0x21, 0x11, &[1, 2, 3]),
            v2(0x21, 0x12, &[0; 12]),
            v2(0x11, 0x11, &[0; 12]),
            v2(0x22, 0x11, &[0; 12]),
            v2(0x21, 0x11, &[0; 2049]),
            SIGNATURE_V2.to_vec(),
            b"PROXY".to_vec(),
            Vec::new(),
        ] {
            assert!(read_from(&bytes).await.is_err(), "{}", String::from_utf8_lossy(&bytes));
        }
    }
}
