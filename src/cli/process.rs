//! Process setup: no core dumps, the TLS crypto provider, the main runtime.

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
}
