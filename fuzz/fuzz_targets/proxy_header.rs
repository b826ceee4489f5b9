#![no_main]

use std::net::{IpAddr, SocketAddr};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((Some(client), length)) = hawkgate::fuzzing::proxy_header(data) else {
        return;
    };
    // The same address, written in version 2, is read back.
    if let Some(header) = version_2(client) {
        assert_eq!(
            hawkgate::fuzzing::proxy_header(&header),
            Some((Some(client), header.len())),
            "{length}"
        );
    }
});

fn version_2(client: SocketAddr) -> Option<Vec<u8>> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21".to_vec();
    match client.ip() {
        IpAddr::V4(ip) => header.extend([&[0x11, 0, 12][..], &ip.octets(), &[0; 4]].concat()),
        IpAddr::V6(ip) => header.extend([&[0x21, 0, 36][..], &ip.octets(), &[0; 16]].concat()),
    }
    header.extend(client.port().to_be_bytes());
    header.extend([0, 0]);
    Some(header)
}
