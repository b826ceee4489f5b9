//! Process setup: no core dumps, file descriptors, the TLS crypto provider, the main runtime.

use rustix::process::{DumpableBehavior, Resource, Rlimit};

/// Disables core dumps and ptrace by other processes of this user, since a dump would contain
/// every credential in memory. The resource limit alone is not enough: the kernel ignores it
/// where core dumps are piped to a program (core(5), `|` in `core_pattern`).
pub(super) fn forbid_core_dumps() -> std::io::Result<()> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    rustix::process::setrlimit(Resource::Core, none)?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// Raises the soft limit of file descriptors (`RLIMIT_NOFILE`) to the hard limit, and returns the
/// limit now in force; `None` if there is none. The soft limit of 1024 that services and containers
/// start with protects programs that call select(2), and hawkgate does not. Nothing that `run`,
/// `taskcluster-proxy` and `demo` do starts another program, which would inherit the limit.
///
/// # Errors
/// If the system refuses, for example because `fs.nr_open` is lower than the hard limit. The
/// limits are unchanged then.
pub(super) fn raise_descriptor_limit() -> std::io::Result<Option<u64>> {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    rustix::process::setrlimit(Resource::Nofile, raised)?;
    Ok(raised.current)
}

/// The number of file descriptors that this process may open at present; `None` for no limit.
pub(super) fn descriptor_limit() -> Option<u64> {
    rustix::process::getrlimit(Resource::Nofile).current
}

/// The number of file descriptors to which [`raise_descriptor_limit`] can raise the limit; `None`
/// for no limit.
pub(super) fn hard_descriptor_limit() -> Option<u64> {
    rustix::process::getrlimit(Resource::Nofile).maximum
}

/// Returns a warning if `limit` file descriptors are too few for the `connections` of
/// `limits.connections`. While a request is served, its connection needs two: its own and the
/// upstream's.
pub(super) fn descriptor_warning(limit: Option<u64>, connections: usize) -> Option<String> {
    /// For everything else: listeners, threads, the admin listener's connections, issuers, exchanges.
    const OTHERS: u64 = 256;
    let limit = limit?;
    let connections = u64::try_from(connections).unwrap_or(u64::MAX);
    let needed = connections.saturating_mul(2);
    (limit < needed).then(|| {
        let lower = match limit.saturating_sub(OTHERS) / 2 {
            0 => String::new(),
            fewer => format!(", or lower limits.connections to {fewer}"),
        };
        format!(
            "limits.connections = {connections} needs {needed} file descriptors, two for each connection, but this \
             process may open only {limit}; raise the hard limit of open files (LimitNOFILE= in systemd, \
             `--ulimit nofile=` in Docker, `ulimit -Hn` in a shell) to {}{lower}",
            needed.saturating_add(OTHERS),
        )
    })
}

/// Installs aws-lc-rs as the process-wide rustls provider. Further calls have no effect.
pub(super) fn install_crypto() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// The runtime for everything except requests: accepting connections, admin pages, refreshing
/// keys and DNS names, signals. Workers have their own runtimes, so load does not delay these.
pub(super) fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn core_dumps_are_disabled() {
        forbid_core_dumps().unwrap();
        assert_eq!(rustix::process::getrlimit(Resource::Core).current, Some(0));
        let behavior = rustix::process::dumpable_behavior().unwrap();
        assert!(matches!(behavior, DumpableBehavior::NotDumpable));
        forbid_core_dumps().expect("calling it again succeeds");
    }

    #[test]
    fn the_soft_limit_of_descriptors_becomes_the_hard_limit() {
        let hard = hard_descriptor_limit();
        assert_eq!(raise_descriptor_limit().unwrap(), hard);
        assert_eq!(descriptor_limit(), hard);
        assert_eq!(hard_descriptor_limit(), hard);
    }

    #[test]
    fn too_few_descriptors_cause_a_warning_with_a_remedy() {
        for (limit, connections) in [
            (None, 1_000_000),
            (Some(20_000), 10_000),
            (Some(524_288), 10_000),
            (Some(2), 1),
        ] {
            assert_eq!(descriptor_warning(limit, connections), None);
        }
        let warning = descriptor_warning(Some(4096), 10_000).unwrap();
        for part in [
            "limits.connections = 10000 needs 20000",
            "may open only 4096",
            "to 20256",
            "lower limits.connections to 1920",
        ] {
            assert!(warning.contains(part), "{part}: {warning}");
        }
        let warning = descriptor_warning(Some(64), 10_000).unwrap();
        assert!(!warning.contains("or lower"), "{warning}");
        assert!(descriptor_warning(Some(u64::MAX), usize::MAX).is_none_or(|w| w.contains("needs")));
    }
}
