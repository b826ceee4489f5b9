//! What other software reads, for the differential targets, and a stream in memory.

pub mod client;
pub mod memory;
pub mod rfc;
pub mod server;

/// Replaces libFuzzer's panic hook, which ends the process even if the panic is caught, with one that
/// does so for panics in hawkgate only. For code that is known to catch the panics of a crate.
pub fn allow_panics_of_dependencies() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let location = info.location().map_or("", std::panic::Location::file);
        if !location.contains("/registry/src/") {
            hook(info);
        }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_reads_pipelined_requests() {
        let one = b"DELETE /x HTTP/1.1\r\nHost: a\r\n\r\n";
        let read = server::requests(&[&one[..], one, one].concat());
        assert_eq!(read.len(), 3, "{read:?}");
    }

    #[test]
    fn the_client_notices_what_follows_a_response() {
        let ends = |data: &[u8]| {
            let read = client::exact_exchange(&http::Method::GET, data);
            read.map(|(response, ends)| (response.content.len(), ends))
        };
        let one = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        assert_eq!(ends(one), Some((2, true)));
        assert_eq!(ends(&[&one[..], b"0\r\n\r\n"].concat()), Some((2, false)));
        assert_eq!(
            ends(b"HTTP/1.1 204 \r\nContent-Length: 0\r\n\r\n"),
            Some((0, true))
        );
        let cut_off = client::exchange(&http::Method::GET, &one[..one.len() - 1]);
        assert!(cut_off.is_none());
    }
}
