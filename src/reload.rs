//! Reloads the configuration when a file changes, without a restart.
//!
//! [`load`] reads the configuration and records the state of every file that it depends on.
//! [`start`] watches those files and applies a changed configuration to a [`Target`]. A
//! configuration that cannot be applied changes nothing.

mod fingerprint;
mod restart;
#[cfg(test)]
mod tests;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinError};

use crate::config::{self, Config, ConfigErrors, Server, Warning};
pub use fingerprint::Fingerprints;
pub use restart::{applicable, applicable_server, restart_needed};
use watch::Watch;

/// How often watched files are checked. A change takes effect once two checks in a row find
/// the same content.
pub const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// A configuration, and the state of its files when it was read.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Things that are valid but probably unintended.
    pub warnings: Vec<Warning>,
    /// The fingerprints of the file and every file that it refers to.
    pub fingerprints: Fingerprints,
}

/// An invalid configuration, and the state of its files when it was read.
#[derive(Debug, thiserror::Error)]
#[error("{errors}")]
pub struct LoadError {
    /// Every error.
    pub errors: ConfigErrors,
    /// The fingerprints of the file and every file that it refers to, as far as it could be read.
    pub fingerprints: Fingerprints,
}

/// The effect of a changed configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The parts that were built or rebuilt, such as `issuer auth0`. The others continue
    /// unchanged, with their keys and caches.
    pub built: Vec<String>,
    /// The changed keys that only take effect after a restart.
    pub restart_needed: Vec<&'static str>,
}

/// The result of a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadResult {
    /// The new configuration is in effect, except for keys that need a restart.
    Success,
    /// The file, or one that it refers to, is unusable; nothing has changed.
    Invalid,
}

/// Applies a changed configuration.
#[async_trait]
pub trait Target: Send + Sync + 'static {
    /// The `[server]` section, which stays in effect until the next start.
    fn server(&self) -> &Server;

    /// Files that stay in use whatever the new configuration says.
    fn files(&self) -> Vec<PathBuf>;

    /// Applies `config` completely or not at all. `fingerprints` were taken after the file was read
    /// and before anything that it refers to is used.
    ///
    /// # Errors
    /// The reason, for the operator; it contains no secret.
    async fn apply(&self, config: Config, fingerprints: &Fingerprints) -> Result<Applied, String>;

    /// Called after each reload, for metrics.
    fn ended(&self, result: ReloadResult);
}

/// Reads the configuration at `path`. For a running hawkgate, `running` holds its `[server]`
/// section and the files in use. Blocks.
///
/// # Errors
/// Every error in the file.
pub fn load(path: &Path, running: Option<(&Server, &[PathBuf])>) -> Result<Loaded, LoadError> {
    // Taken before the file is read, so that a change in between is noticed at the next check.
    let own = Fingerprints::of([path]);
    let checked = match running {
        None => config::check(path),
        Some((server, _)) => config::check_reload(path, server),
    };
    let in_use = running.map(|(_, files)| files).unwrap_or_default();
    match checked {
        Ok((config, warnings)) => {
            let named = config.files.iter().map(|file| &file.path);
            Ok(Loaded {
                fingerprints: own.and(fingerprints(named.chain(in_use))),
                config,
                warnings,
            })
        }
        Err(errors) => Err(LoadError {
            fingerprints: own.and(fingerprints(errors.files.iter().chain(in_use))),
            errors,
        }),
    }
}

fn fingerprints<'a>(paths: impl Iterator<Item = &'a PathBuf>) -> Fingerprints {
    Fingerprints::of(paths.map(PathBuf::as_path))
}

/// The task that reloads. Aborted on drop.
#[derive(Debug)]
pub struct Reloads {
    requests: mpsc::Sender<()>,
    task: AbortHandle,
}

impl Reloads {
    /// Requests a reload, whether or not a file has changed. Several requests during a reload
    /// cause one more.
    pub fn request(&self) {
        // If the channel is full, a reload that has not started yet covers this request.
        let _ = self.requests.try_send(());
    }
}

impl Drop for Reloads {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reloads `target` from the file at `path` on request and, if `every` is given, whenever one
/// of the files in `loaded` has changed. Must be called within a Tokio runtime.
pub fn start(
    path: PathBuf,
    loaded: Fingerprints,
    every: Option<Duration>,
    target: Arc<dyn Target>,
) -> Reloads {
    let (requests, requested) = mpsc::channel(1);
    let task = tokio::spawn(run(path, loaded, every, target, requested)).abort_handle();
    Reloads { requests, task }
}

async fn run(
    path: PathBuf,
    loaded: Fingerprints,
    every: Option<Duration>,
    target: Arc<dyn Target>,
    mut requested: mpsc::Receiver<()>,
) {
    let mut watch = Watch::new(loaded, every);
    loop {
        tokio::select! {
            request = requested.recv() => {
                if request.is_none() {
                    return;
                }
                tracing::info!("reloading the configuration: requested");
            }
            files = watch.changed() => {
                let files = files.join(", ");
                tracing::info!(files, "reloading the configuration: files have changed");
            }
        }
        match reload(&path, &target).await {
            Ok((result, fingerprints)) => {
                target.ended(result);
                watch.reloaded(result, fingerprints);
            }
            Err(error) => {
                tracing::error!(%error, "the reload failed; the previous configuration stays in effect");
                target.ended(ReloadResult::Invalid);
                watch.reloaded(ReloadResult::Invalid, Fingerprints::default());
            }
        }
    }
}

/// Performs and logs one reload.
async fn reload(
    path: &Path,
    target: &Arc<dyn Target>,
) -> Result<(ReloadResult, Fingerprints), JoinError> {
    let (path, running) = (path.to_owned(), Arc::clone(target));
    let loading = move || load(&path, Some((running.server(), &running.files())));
    let Loaded {
        config,
        warnings,
        fingerprints,
    } = match tokio::task::spawn_blocking(loading).await? {
        Ok(loaded) => loaded,
        Err(refused) => {
            refused.errors.log();
            tracing::error!("the configuration is invalid; the previous one stays in effect");
            return Ok((ReloadResult::Invalid, refused.fingerprints));
        }
    };
    for warning in warnings {
        warning.log();
    }
    // A separate task, so that the configuration is applied completely even if the reload task
    // is aborted meanwhile.
    let (target, read) = (Arc::clone(target), fingerprints.clone());
    let applying = tokio::spawn(async move { target.apply(config, &read).await });
    let result = match applying.await? {
        Ok(applied) => {
            log_applied(&applied);
            ReloadResult::Success
        }
        Err(cause) => {
            tracing::error!("{cause}");
            tracing::error!(
                "the configuration cannot be applied; the previous one stays in effect"
            );
            ReloadResult::Invalid
        }
    };
    Ok((result, fingerprints))
}

fn log_applied(applied: &Applied) {
    if !applied.restart_needed.is_empty() {
        let keys = applied.restart_needed.join(", ");
        tracing::warn!(
            keys,
            "restart needed: the changes to these keys take effect at the next start"
        );
    }
    let built = applied.built.join(", ");
    tracing::info!(
        made = built,
        "the configuration is in effect; parts that are not listed are unchanged"
    );
}
