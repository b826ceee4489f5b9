//! `[limits]`

use std::time::Duration;

use super::rate::{self, Rate};
use super::reader::{Reader, section};
use super::units::{show_duration, show_size};
use super::value::{Nested, Size};
use crate::gateway;
use crate::proxy::settings;
use crate::token::MAX_TOKEN_BYTES;

/// What a request's head needs besides the token, in bytes: request line, `Host` and a few fields.
const REST_OF_HEAD: u64 = 4 * 1024;

section! {
    /// Limits on callers' use of resources.
    pub(super) struct Limits {
        /// Largest request head (request line and headers); 1KiB to 1MiB.
        header_bytes: Size = [default "'32KiB'"],
        /// Longest bearer token that a caller may send; 1KiB to 32KiB. Raise header_bytes with it if the rest of
        /// the head would no longer fit.
        token_bytes: Size = [default "'8KiB'"],
        /// Longest request target (path and query); at least 256B, at most header_bytes.
        url_bytes: Size = [default "'16KiB'"],
        /// Time within which the whole request head must arrive; 10ms to 5m.
        header_timeout: Duration = [default "'10s'"],
        /// Timeout between two reads of a request body, and for each write to a caller; 10ms to 1h.
        body_timeout: Duration = [default "'60s'"],
        /// Bytes per second that a caller must send of a request body on average, after 5 seconds; with HTTP/2
        /// after body_timeout. Only time spent waiting for the caller counts, and only until the response
        /// begins. At most 1MiB; "0B" sets no minimum.
        min_body_rate: Size = [default "'240B'"],
        /// Time after which a caller's idle connection is closed; 10ms to 1h.
        keepalive_timeout: Duration = [default "'60s'"],
        /// Open connections from callers, over all listeners together; 1 to 1000000.
        connections: u64 = [default "10000"],
        /// Open connections from one IPv4 address or IPv6 /64 network; 1 to 1000000, or 0 for no limit.
        /// Half of connections, rounded up, when left out. Trusted proxies and Unix sockets are not
        /// limited; with proxy_protocol the client's address counts.
        connections_per_address: u64 = [optional],
        /// Requests in progress, over all listeners together; 1 to 1000000. Each HTTP/2 stream counts, and
        /// an upgraded connection counts until it closes. Further requests get 503.
        requests_in_flight: u64 = [default "10000"],
        /// Requests in progress of one client, by IPv4 address or IPv6 /64 network; 1 to 1000000, or 0 for no
        /// limit. Half of requests_in_flight, rounded up, when left out. Trusted proxies and Unix sockets
        /// are not limited; behind a trusted proxy the client's address counts.
        requests_in_flight_per_address: u64 = [optional],
        /// Largest request body; unlimited when left out.
        body: Size = [optional],
        /// Request bodies up to this size are buffered until the upstream has responded, so that they can
        /// be replayed after a 401; larger ones are streamed, and a 401 is passed on to the caller. At
        /// most 1GiB; with "0B", only requests without a body are replayed. The default is Taskcluster's
        /// own limit.
        replay_body: Size = [default "'10MiB'"],
        /// Memory for all buffered bodies together; at least replay_body. One client address may use half of
        /// it, or replay_body if that is more. When it is exhausted, bodies are streamed as if they were
        /// too large. Keep it below the process's memory limit.
        replay_memory: Size = [default "'256MiB'"],
        /// Rate limit of each client, over all routes and `[login]` together; unlimited when left out.
        rate: Nested<Rate> = [optional],
    }
}

impl Limits {
    /// The limits of the listeners, the longest token in bytes, and `rate`.
    pub(super) fn resolve(
        self,
        reader: &mut Reader<'_>,
    ) -> Option<(settings::Limits, usize, Option<gateway::rate_limit::Rate>)> {
        self.check(reader);
        let token_bytes = self.token_bytes.value?.bytes();
        let requests = usize::try_from(self.requests_in_flight.value?).ok()?;
        let limits = settings::Limits {
            header_bytes: self.header_bytes.value?.bytes(),
            url_bytes: self.url_bytes.value?.bytes(),
            header_timeout: self.header_timeout.value?,
            body_timeout: self.body_timeout.value?,
            min_body_rate: settings::MinRate {
                bytes_per_second: self.min_body_rate.value?.0,
                grace: settings::Limits::BODY_RATE_GRACE,
            },
            keepalive_timeout: self.keepalive_timeout.value?,
            unadmitted_keepalive: settings::Limits::UNADMITTED_KEEPALIVE,
            linger: settings::Limits::LINGER,
            connections: usize::try_from(self.connections.value?).ok()?,
            requests_in_flight: requests,
            requests_in_flight_per_address: match self.requests_in_flight_per_address.optional()? {
                Some(0) => usize::MAX,
                Some(limit) => usize::try_from(limit).ok()?,
                None => requests.div_ceil(2),
            },
            connections_per_address: match self.connections_per_address.optional()? {
                Some(limit) => Some(usize::try_from(limit).ok()?),
                None => None,
            },
            body: self.body.optional()?.map(|size| size.0),
            replay_body: self.replay_body.value?.bytes(),
            replay_memory: self.replay_memory.value?.bytes(),
        };
        Some((limits, token_bytes, rate::resolve(reader, self.rate)?))
    }

    fn check(&self, reader: &mut Reader<'_>) {
        const SHORTEST: Duration = Duration::from_millis(10);
        const HOUR: Duration = Duration::from_hours(1);
        let show = |size: Size| show_size(size.0);
        reader.check_range(&self.header_bytes, Size(1 << 10), Size(1 << 20), show);
        let longest = Size(MAX_TOKEN_BYTES as u64);
        reader.check_range(&self.token_bytes, Size(1 << 10), longest, show);
        self.check_token_fits(reader);
        let url_max = self.header_bytes.value.unwrap_or(Size(1 << 20));
        reader.check_range(&self.url_bytes, Size(256), url_max, show);
        let five_minutes = Duration::from_mins(5);
        reader.check_range(&self.header_timeout, SHORTEST, five_minutes, show_duration);
        reader.check_range(&self.body_timeout, SHORTEST, HOUR, show_duration);
        reader.check_range(&self.min_body_rate, Size(0), Size(1 << 20), show);
        reader.check_range(&self.keepalive_timeout, SHORTEST, HOUR, show_duration);
        reader.check_range(&self.connections, 1, 1_000_000, |n| n.to_string());
        let requests = &self.requests_in_flight;
        reader.check_range(requests, 1, 1_000_000, |n| n.to_string());
        let each = &self.requests_in_flight_per_address;
        reader.check_range(each, 0, 1_000_000, |n| n.to_string());
        let per_address = &self.connections_per_address;
        reader.check_range(per_address, 0, 1_000_000, |n| n.to_string());
        reader.check_range(&self.body, Size(1), Size(u64::MAX), show);
        reader.check_range(&self.replay_body, Size(0), Size(1 << 30), show);
        self.check_replay(reader);
    }

    /// A token that is explicitly allowed should also fit into a request.
    fn check_token_fits(&self, reader: &mut Reader<'_>) {
        let (Some(token), Some(head)) = (self.token_bytes.value, self.header_bytes.value) else {
            return;
        };
        let needed = token.0.saturating_add(REST_OF_HEAD);
        if self.token_bytes.given && needed > head.0 {
            let problem = format!(
                "a token of {} and the rest of a request's head do not fit into header_bytes ({})",
                show_size(token.0),
                show_size(head.0)
            );
            let remedy = format!("write header_bytes = \"{}\" or more", show_size(needed));
            reader.warn(&self.token_bytes.at, problem, remedy);
        }
    }

    fn check_replay(&self, reader: &mut Reader<'_>) {
        let (Some(body), Some(memory)) = (self.replay_body.value, self.replay_memory.value) else {
            return;
        };
        if body <= memory {
            return;
        }
        let field = if self.replay_memory.given {
            &self.replay_memory
        } else {
            &self.replay_body
        };
        let problem = format!(
            "replay_body ({}) is larger than replay_memory ({})",
            show_size(body.0),
            show_size(memory.0)
        );
        reader.error(
            &field.at,
            problem,
            "lower replay_body or raise replay_memory",
        );
    }
}
