//! The PROXY protocol: the header in which a load balancer says for whom it connects, in versions 1
//! and 2.
//!
//! Exactly the header is read, since what follows is the client's. The crate reads its text; this
//! file knows where it ends.

use std::net::SocketAddr;

use proxy_header::{ParseConfig, Protocol, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::ops::metrics::ProxyRefusal;

/// `PROXY UNKNOWN\r\n`.
const V1_MIN: usize = 15;

/// Of the specification, its line's end included.
const V1_MAX: usize = 107;

const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Signature, version and command, family, length.
const V2_HEAD: usize = 16;

/// Addresses take 36 bytes; certificates' names and the like, which nobody asks for here, come
/// after them.
const V2_MAX: usize = 2 << 10;

/// Reads a header; returns the client's address, or `None` where the peer speaks for itself (its
/// health checks do).
///
/// # Errors
/// What is wrong with it.
pub(super) async fn read(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<Option<SocketAddr>, ProxyRefusal> {
    let mut header = Vec::with_capacity(V1_MAX);
    loop {
        let missing = missing(&header)?;
        if missing == 0 {
            return source(&header);
        }
        let got = (&mut *stream).take(missing as u64).read_to_end(&mut header).await;
        if got.ok() != Some(missing) {
            return Err(ProxyRefusal::Incomplete);
        }
    }
}

/// Returns how many more bytes belong to the header for certain; 0 if it is whole. A line's end is
/// looked for byte by byte.
fn missing(header: &[u8]) -> Result<usize, ProxyRefusal> {
    if header.len() < V1_MIN {
        return Ok(V1_MIN - header.len());
    }
    if header.starts_with(b"PROXY ") {
        let is_whole = header.ends_with(b"\n");
        return if is_whole || header.len() < V1_MAX {
            Ok(usize::from(!is_whole))
        } else {
            Err(ProxyRefusal::Malformed)
        };
    }
    if !header.starts_with(V2_SIGNATURE) {
        return Err(ProxyRefusal::Malformed);
    }
    let length = match header {
        [_, _, _, _, _, _, _, _, _, _, _, _, _, _, high, low, ..] => {
            u16::from_be_bytes([*high, *low])
        }
        _ => return Ok(V2_HEAD - header.len()),
    };
    let whole = V2_HEAD + usize::from(length);
    if whole > V2_MAX {
        Err(ProxyRefusal::Malformed)
    } else {
        Ok(whole.saturating_sub(header.len()))
    }
}

fn source(header: &[u8]) -> Result<Option<SocketAddr>, ProxyRefusal> {
    let config = ParseConfig { include_tlvs: false, ..ParseConfig::default() };
    let (parsed, end) = ProxyHeader::parse(header, config).map_err(|_| ProxyRefusal::Malformed)?;
    if end != header.len() {
        return Err(ProxyRefusal::Malformed);
    }
    let named = parsed.proxied_address().filter(|named| named.protocol == Protocol::Stream);
    Ok(named.map(|named| named.source))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::net::IpAddr;

    use proptest::prelude::*;
    use proxy_header::ProxiedAddress;

    use super::*;

    /// Reads a header, and what is left after it.
    fn read_all(bytes: &[u8]) -> (Result<Option<SocketAddr>, ProxyRefusal>, Vec<u8>) {
        let mut stream = Cursor::new(bytes.to_vec());
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let read = runtime.block_on(read(&mut stream));
        let at = usize::try_from(stream.position()).expect("small");
        (read, bytes.get(at..).expect("not more than there is").to_vec())
    }

    fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).expect("short enough").to_be_bytes();
        [V2_SIGNATURE, &[command, family], &length, block].concat()
    }

    fn v4_block() -> Vec<u8> {
        [&[203, 0, 113, 9][..], &[10, 0, 0, 1], &4711_u16.to_be_bytes(), &443_u16.to_be_bytes()]
            .concat()
    }

    fn v6_block() -> Vec<u8> {
        let address = |text: &str| text.parse::<std::net::Ipv6Addr>().expect("an address").octets();
        let ports = [4711_u16.to_be_bytes(), 443_u16.to_be_bytes()].concat();
        [&address("2001:db8::9")[..], &address("2001:db8::1"), &ports].concat()
    }

    #[test]
    fn good_headers_name_the_client_and_leave_what_follows() {
        let v4 = Some("203.0.113.9:4711");
        let v6 = Some("[2001:db8::9]:4711");
        let tlvs = [v4_block(), vec![0x04, 0, 3, 1, 2, 3]].concat();
        let largest = [v4_block(), vec![0; V2_MAX - V2_HEAD - 12]].concat();
        let unix = [0; 216];
        let cases: Vec<(Vec<u8>, Option<&str>)> = vec![
            (b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 443\r\n".to_vec(), v4),
            (b"PROXY TCP6 2001:db8::9 2001:db8::1 4711 443\r\n".to_vec(), v6),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n".to_vec(), None),
            (v2(0x21, 0x11, &v4_block()), v4),
            (v2(0x21, 0x11, &tlvs), v4),
            (v2(0x21, 0x11, &largest), v4),
            (v2(0x21, 0x21, &v6_block()), v6),
            (v2(0x20, 0x00, &[]), None),
            (v2(0x20, 0x11, &v4_block()), None),
            (v2(0x21, 0x00, &[1, 2, 3]), None),
            (v2(0x21, 0x12, &v4_block()), None),
            (v2(0x21, 0x31, &unix), None),
        ];
        for (header, expected) in cases {
            let expected = expected.map(|text| text.parse().expect("an address"));
            let bytes = [&header[..], b"GET /beta"].concat();
            assert_eq!(
                read_all(&bytes),
                (Ok(expected), b"GET /beta".to_vec()),
                "{}",
                header.escape_ascii()
            );
        }
    }

    #[test]
    fn bad_headers_are_malformed() {
        let too_long = [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; V1_MAX]].concat();
        let cases: Vec<Vec<u8>> = vec![
            b"GET /beta HTTP/1.1\r\n".to_vec(),
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00\x00\x00\x00".to_vec(),
            b"proxy TCP4 203.0.113.9 10.0.0.1 4711 443\r\n".to_vec(),
            b"PROXY_TCP4 203.0.113.9 10.0.0.1 4711 443\r\n".to_vec(),
            b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 443\n".to_vec(),
            b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 443\r\r\n".to_vec(),
            b"PROXY TCP4 203.0.113.9 10.0.0.1 4711\r\n".to_vec(),
            b"PROXY TCP4 203.0.113.9 10.0.0.1 65536 443\r\n".to_vec(),
            b"PROXY TCP4 203.0.113.256 10.0.0.1 4711 443\r\n".to_vec(),
            b"PROXY TCP4 2001:db8::9 2001:db8::1 4711 443\r\n".to_vec(),
            b"PROXY TCP6 203.0.113.9 10.0.0.1 4711 443\r\n".to_vec(),
            b"PROXY TCP9 203.0.113.9 10.0.0.1 4711 443\r\n".to_vec(),
            b"PROXY  TCP4 203.0.113.9 10.0.0.1 4711 443\r\n".to_vec(),
            b"PROXY TCP4 \xff\xfe 10.0.0.1 4711 443\r\n".to_vec(),
            too_long,
            v2(0x11, 0x11, &v4_block()),
            v2(0x22, 0x11, &v4_block()),
            v2(0x21, 0x41, &v4_block()),
            v2(0x21, 0x11, v4_block().get(..11).expect("bytes")),
            v2(0x21, 0x21, &v4_block()),
            v2(0x21, 0x31, &[0; 215]),
            v2(0x21, 0x11, &[0; V2_MAX]),
            v2(0x21, 0x11, &[0xff; 0xffff]),
        ];
        for header in cases {
            let (read, left) = read_all(&[&header[..], &[b'\n'; 200]].concat());
            assert_eq!(read, Err(ProxyRefusal::Malformed), "{}", header.escape_ascii());
            assert!(
                left.len() >= 90,
                "no more is read than a header may have: {}",
                header.escape_ascii()
            );
        }
    }

    #[test]
    fn a_header_that_ends_early_is_incomplete() {
        for whole in [
            b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 443\r\n".to_vec(),
            b"PROXY UNKNOWN\r\n".to_vec(),
            v2(0x21, 0x11, &v4_block()),
            v2(0x20, 0x00, &[]),
        ] {
            for end in 0..whole.len() {
                let part = whole.get(..end).expect("a part");
                assert_eq!(
                    read_all(part).0,
                    Err(ProxyRefusal::Incomplete),
                    "{}",
                    part.escape_ascii()
                );
            }
        }
    }

    proptest! {
        /// The crate writes, we read: the same address, and what follows untouched.
        #[test]
        fn what_is_written_is_read(source: IpAddr, port: u16, rest in prop::collection::vec(any::<u8>(), 0..40)) {
            let source = SocketAddr::new(source, port);
            let destination: SocketAddr = if source.is_ipv4() { "10.0.0.1:1" } else { "[::1]:1" }.parse().expect("an address");
            let header = ProxyHeader::with_address(ProxiedAddress::stream(source, destination));
            let (mut one, mut two) = ([0; 300], [0; 300]);
            let lengths = (header.encode_to_slice_v1(&mut one), header.encode_to_slice_v2(&mut two));
            for (buffer, length) in [(one, lengths.0), (two, lengths.1)] {
                let header = buffer.get(..length.expect("written")).expect("whole");
                prop_assert_eq!(read_all(&[header, &rest].concat()), (Ok(Some(source)), rest.clone()));
            }
        }

        /// No input does harm, and never more is taken than the longest header.
        #[test]
        fn any_input_is_survived(start in 0_usize..4, noise in prop::collection::vec(any::<u8>(), 0..3_000)) {
            let starts: [&[u8]; 4] = [b"", b"PROXY ", b"PROXY TCP4 ", b"\r\n\r\n\0\r\nQUIT\n\x21"];
            let bytes = [starts.get(start).copied().unwrap_or_default(), &noise].concat();
            let (_, left) = read_all(&bytes);
            prop_assert!(bytes.len() - left.len() <= V2_MAX);
        }
    }
}
