//! Reports the service's state to systemd (sd_notify(3)).

use sd_notify::NotifyState;

/// Reports that hawkgate accepts connections.
pub(super) fn ready() {
    notify(&NotifyState::Ready);
}

/// Reports that hawkgate is shutting down.
pub(super) fn stopping() {
    notify(&NotifyState::Stopping);
}

/// Does nothing unless a service manager has set `NOTIFY_SOCKET`. Serving does not depend on
/// it, so a failure is only logged.
fn notify(state: &NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(std::slice::from_ref(state)) {
        tracing::warn!(%error, %state, "cannot notify the service manager");
    }
}
