//! Resolution of upstream names. `gateway/upstream_addresses.rs` decides when.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use async_trait::async_trait;

/// The timeout of one lookup.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

/// The most addresses kept per name.
const MAX_ADDRESSES: usize = 64;

/// A DNS resolver.
#[async_trait]
pub trait Resolver: std::fmt::Debug + Send + Sync {
    /// All addresses of `host`.
    async fn lookup(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>>;
}

/// The system resolver (getaddrinfo).
#[derive(Clone, Copy, Debug)]
pub struct SystemResolver;

#[async_trait]
impl Resolver for SystemResolver {
    async fn lookup(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((host, port)).await?.collect())
    }
}

/// Parses `host` as an IP literal, without brackets.
pub fn ip_literal(host: &str, port: u16) -> Option<SocketAddr> {
    let address: IpAddr = host.parse().ok()?;
    Some(SocketAddr::new(address, port))
}

/// Resolves `host` once. Drops duplicates and keeps the resolver's order. An IP literal needs no
/// lookup.
///
/// # Errors
/// When the resolver fails, times out, or has no address.
pub async fn resolve(
    resolver: &dyn Resolver,
    host: &str,
    port: u16,
) -> io::Result<Vec<SocketAddr>> {
    if let Some(address) = ip_literal(host, port) {
        return Ok(vec![address]);
    }
    let found = tokio::time::timeout(LOOKUP_TIMEOUT, resolver.lookup(host, port))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in found {
        if addresses.len() < MAX_ADDRESSES && !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "no address"));
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use super::*;

    /// Returns the given results in turn, then fails.
    #[derive(Debug)]
    struct FakeResolver(Mutex<VecDeque<io::Result<Vec<SocketAddr>>>>);

    impl FakeResolver {
        fn new(results: impl IntoIterator<Item = io::Result<Vec<SocketAddr>>>) -> Self {
            Self(Mutex::new(results.into_iter().collect()))
        }
    }

    #[async_trait]
    impl Resolver for FakeResolver {
        async fn lookup(&self, _: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
            let next = self.0.lock().unwrap().pop_front();
            next.unwrap_or_else(|| Err(io::ErrorKind::NotFound.into()))
        }
    }

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 443))
    }

    #[tokio::test]
    async fn ip_literals_need_no_lookup() {
        let empty = FakeResolver::new([]);
        assert_eq!(
            resolve(&empty, "10.0.0.7", 443).await.unwrap(),
            [address(7)]
        );
        assert_eq!(
            resolve(&empty, "::1", 80).await.unwrap(),
            ["[::1]:80".parse().unwrap()]
        );
    }

    #[tokio::test]
    async fn no_address_is_an_error_and_duplicates_are_dropped() {
        let resolver =
            FakeResolver::new([Ok(vec![]), Ok(vec![address(1), address(2), address(1)])]);
        assert!(resolve(&resolver, "a.example", 443).await.is_err());
        assert_eq!(
            resolve(&resolver, "a.example", 443).await.unwrap(),
            [address(1), address(2)]
        );
    }

    #[tokio::test]
    async fn the_number_of_addresses_is_bounded() {
        let many = (0..1000).map(|port| SocketAddr::from(([10, 0, 0, 1], port)));
        let resolver = FakeResolver::new([Ok(many.collect())]);
        let found = resolve(&resolver, "a.example", 443).await.unwrap();
        assert_eq!(found.len(), MAX_ADDRESSES);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_resolver_times_out() {
        #[derive(Debug)]
        struct SilentResolver;
        #[async_trait]
        impl Resolver for SilentResolver {
            async fn lookup(&self, _: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
                std::future::pending().await
            }
        }
        let error = resolve(&SilentResolver, "a.example", 443)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
