//! What a process that holds credentials owes them.

use rustix::process::{DumpableBehavior, Resource, Rlimit};

/// No core dumps, no ptrace by other processes of this user: a dump of this process
/// would hold every credential it has. The limit alone is not enough, because the kernel
/// ignores it where cores go to a program (core(5), `|` in `core_pattern`).
pub(super) fn forbid_core_dumps() -> std::io::Result<()> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    rustix::process::setrlimit(Resource::Core, none)?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// Which cryptography TLS uses, for every crate in the process. A second call changes
/// nothing.
pub(super) fn install_crypto() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// The runtime of everything but callers' requests: accepting connections, admin pages,
/// keys and names kept fresh, signals. Workers have their own, so that load there delays
/// nothing here.
pub(super) fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_forbidden() {
        forbid_core_dumps().unwrap();
        assert_eq!(rustix::process::getrlimit(Resource::Core).current, Some(0));
        let behavior = rustix::process::dumpable_behavior().unwrap();
        assert!(matches!(behavior, DumpableBehavior::NotDumpable));
        forbid_core_dumps().expect("again is fine");
    }
}
