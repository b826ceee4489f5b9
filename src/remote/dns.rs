//! Upstream addresses, resolved in the background: no request waits for a name server,
//! and a name server that is down takes nothing away that was known before.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use async_trait::async_trait;

/// How often a name is looked up again. The system's resolver does not tell a record's
/// lifetime; half a minute is what moving services commonly allow for.
pub const REFRESH: Duration = Duration::from_secs(30);

/// How soon after a failure the first time; doubles up to [`REFRESH`].
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// Longest wait for one look-up.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

/// More addresses than this are not kept.
const MAX_ADDRESSES: usize = 64;

/// A way to look names up.
#[async_trait]
pub trait Lookup: Send + Sync {
    /// Every address of `host`.
    async fn lookup(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>>;
}

/// The system's resolver.
#[derive(Clone, Copy, Debug)]
pub struct SystemLookup;

#[async_trait]
impl Lookup for SystemLookup {
    async fn lookup(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((host, port)).await?.collect())
    }
}

/// The address that `host` is by itself, if it is an IP literal (without brackets).
pub fn literal(host: &str, port: u16) -> Option<SocketAddr> {
    let address: IpAddr = host.parse().ok()?;
    Some(SocketAddr::new(address, port))
}

/// Looks `host` up once; a literal needs no look-up. Duplicates are dropped, the
/// resolver's order is kept.
///
/// # Errors
/// When the resolver fails, is too slow, or knows no address.
pub async fn resolve(lookup: &dyn Lookup, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Some(address) = literal(host, port) {
        return Ok(vec![address]);
    }
    let found = tokio::time::timeout(LOOKUP_TIMEOUT, lookup.lookup(host, port))
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

/// Gives `publish` the addresses of `host` now and whenever they may have changed, for
/// ever; for a literal once. After a failure nothing is published, so what was known stays.
pub async fn keep_fresh(
    lookup: &dyn Lookup,
    host: &str,
    port: u16,
    publish: impl Fn(Vec<SocketAddr>) + Send,
) {
    if let Some(address) = literal(host, port) {
        return publish(vec![address]);
    }
    let mut retry = FIRST_RETRY;
    loop {
        match resolve(lookup, host, port).await {
            Ok(addresses) => {
                publish(addresses);
                retry = FIRST_RETRY;
                tokio::time::sleep(REFRESH).await;
            }
            Err(error) => {
                tracing::warn!(host, %error, "cannot resolve the upstream's name");
                tokio::time::sleep(retry).await;
                retry = (retry * 2).min(REFRESH);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use tokio::sync::mpsc;

    use super::*;

    /// Answers from a list, then fails.
    struct Scripted(Mutex<VecDeque<io::Result<Vec<SocketAddr>>>>);

    impl Scripted {
        fn new(answers: impl IntoIterator<Item = io::Result<Vec<SocketAddr>>>) -> Self {
            Self(Mutex::new(answers.into_iter().collect()))
        }
    }

    #[async_trait]
    impl Lookup for Scripted {
        async fn lookup(&self, _: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
            let next = self.0.lock().unwrap().pop_front();
            next.unwrap_or_else(|| Err(io::ErrorKind::NotFound.into()))
        }
    }

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 443))
    }

    #[tokio::test]
    async fn literals_need_no_lookup() {
        let nobody = Scripted::new([]);
        assert_eq!(
            resolve(&nobody, "10.0.0.7", 443).await.unwrap(),
            [address(7)]
        );
        assert_eq!(
            resolve(&nobody, "::1", 80).await.unwrap(),
            ["[::1]:80".parse().unwrap()]
        );
        let (sent, mut published) = mpsc::unbounded_channel();
        keep_fresh(&nobody, "10.0.0.7", 443, move |a| sent.send(a).unwrap()).await;
        assert_eq!(published.recv().await.unwrap(), [address(7)]);
        assert_eq!(published.recv().await, None);
    }

    #[tokio::test]
    async fn no_address_is_an_error_and_duplicates_are_one() {
        let lookup = Scripted::new([Ok(vec![]), Ok(vec![address(1), address(2), address(1)])]);
        assert!(resolve(&lookup, "a.example", 443).await.is_err());
        assert_eq!(
            resolve(&lookup, "a.example", 443).await.unwrap(),
            [address(1), address(2)]
        );
    }

    #[tokio::test]
    async fn the_list_is_bounded() {
        let many = (0..1000).map(|port| SocketAddr::from(([10, 0, 0, 1], port)));
        let lookup = Scripted::new([Ok(many.collect())]);
        let found = resolve(&lookup, "a.example", 443).await.unwrap();
        assert_eq!(found.len(), MAX_ADDRESSES);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_publish_nothing_and_are_tried_again() {
        let failed = || Err(io::ErrorKind::TimedOut.into());
        let lookup = Scripted::new([
            failed(),
            Ok(vec![address(1)]),
            failed(),
            failed(),
            Ok(vec![address(2)]),
        ]);
        let (sent, mut published) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            keep_fresh(&lookup, "a.example", 443, move |a| sent.send(a).unwrap()).await;
        });
        assert_eq!(published.recv().await.unwrap(), [address(1)]);
        assert_eq!(published.recv().await.unwrap(), [address(2)]);
        task.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_resolver_is_given_up() {
        struct Silent;
        #[async_trait]
        impl Lookup for Silent {
            async fn lookup(&self, _: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
                std::future::pending().await
            }
        }
        let error = resolve(&Silent, "a.example", 443).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
