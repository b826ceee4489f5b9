//! A changed file takes effect without a restart: watch, load, hand over.
//!
//! [`load`] reads the configuration and notes what each file held then; [`start`] watches
//! those files and has a [`Target`] take over what they say now. What cannot be taken over
//! leaves everything as it was.

mod restart;
mod stamp;
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
pub use restart::{applicable, restart_needed};
pub use stamp::Stamps;
use watch::Watch;

/// How often watched files are looked at, unless a test is in a hurry. A change takes
/// effect when two looks in a row have found the same.
pub const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// A configuration, and what the files were when it was read.
#[derive(Debug)]
pub struct Loaded {
    /// What the file means.
    pub config: Config,
    /// What is valid but probably not meant.
    pub warnings: Vec<Warning>,
    /// The file itself and every file that it names.
    pub stamps: Stamps,
}

/// A configuration that is refused, and what the files were when it was read.
#[derive(Debug, thiserror::Error)]
#[error("{errors}")]
pub struct Refused {
    /// Everything that is wrong.
    pub errors: ConfigErrors,
    /// The file itself and every file that it names, as far as that could be read.
    pub stamps: Stamps,
}

/// What a changed configuration did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The parts that are new or made anew: `issuer "auth0"`. The others went on as they
    /// were, with their keys and caches.
    pub made: Vec<String>,
    /// The keys that differ from what runs and take effect at the next start only.
    pub restart_needed: Vec<&'static str>,
}

/// How a reload ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadResult {
    /// What the files say is in force, but for what needs a restart.
    Success,
    /// The file, or one that it names, is unusable; nothing has changed.
    Invalid,
}

/// Who takes over a changed configuration.
#[async_trait]
pub trait Target: Send + Sync + 'static {
    /// What is listened at, until the next start.
    fn server(&self) -> &Server;

    /// Files that are in use whatever the configuration says now.
    fn files(&self) -> Vec<PathBuf>;

    /// Takes `config` over as a whole, or nothing of it. `stamps` were made after the text
    /// was read and before anything that it names is used.
    ///
    /// # Errors
    /// With the reason for operators; it holds no secret.
    async fn apply(&self, config: Config, stamps: &Stamps) -> Result<Applied, String>;

    /// For metrics.
    fn ended(&self, result: ReloadResult);
}

/// Reads the configuration at `path`; for a running hawkgate with where it listens and the
/// files that it has in use. Blocks.
///
/// # Errors
/// With everything that is wrong with the file.
pub fn load(path: &Path, running: Option<(&Server, &[PathBuf])>) -> Result<Loaded, Refused> {
    // Before it is read: a change in between is noticed later, and not missed.
    let own = Stamps::of([path]);
    let checked = match running {
        None => config::check(path),
        Some((server, _)) => config::check_again(path, server),
    };
    let in_use = running.map(|(_, files)| files).unwrap_or_default();
    match checked {
        Ok((config, warnings)) => {
            let named = config.files.iter().map(|file| &file.path);
            Ok(Loaded {
                stamps: own.and(stamps(named.chain(in_use))),
                config,
                warnings,
            })
        }
        Err(errors) => Err(Refused {
            stamps: own.and(stamps(errors.files.iter().chain(in_use))),
            errors,
        }),
    }
}

fn stamps<'a>(paths: impl Iterator<Item = &'a PathBuf>) -> Stamps {
    Stamps::of(paths.map(PathBuf::as_path))
}

/// Reloads under way and to come; they end when this is dropped.
#[derive(Debug)]
pub struct Reloads {
    requests: mpsc::Sender<()>,
    task: AbortHandle,
}

impl Reloads {
    /// Reloads now, whatever is watched. Several requests while a reload is under way make
    /// one more.
    pub fn request(&self) {
        // Full: one that has not begun will do what this one asks for.
        let _ = self.requests.try_send(());
    }
}

impl Drop for Reloads {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reloads `target` from the file at `path` on request and, if `every` is given, when one of
/// the files in `loaded` is not what it was. Needs a Tokio runtime.
pub fn start(
    path: PathBuf,
    loaded: Stamps,
    every: Option<Duration>,
    target: Arc<dyn Target>,
) -> Reloads {
    let (requests, requested) = mpsc::channel(1);
    let task = tokio::spawn(run(path, loaded, every, target, requested)).abort_handle();
    Reloads { requests, task }
}

async fn run(
    path: PathBuf,
    loaded: Stamps,
    every: Option<Duration>,
    target: Arc<dyn Target>,
    mut requested: mpsc::Receiver<()>,
) {
    let mut watch = Watch::new(loaded, every);
    loop {
        tokio::select! {
            asked = requested.recv() => {
                if asked.is_none() {
                    return;
                }
                tracing::info!("reloading the configuration: asked to");
            }
            files = watch.changed() => {
                let files = files.join(", ");
                tracing::info!(files, "reloading the configuration: files have changed");
            }
        }
        match reload(&path, &target).await {
            Ok((result, stamps)) => {
                target.ended(result);
                watch.reloaded(result, stamps);
            }
            Err(error) => {
                tracing::error!(%error, "a reload broke off; the old configuration stays");
                target.ended(ReloadResult::Invalid);
                watch.reloaded(ReloadResult::Invalid, Stamps::default());
            }
        }
    }
}

/// One reload, logged.
async fn reload(
    path: &Path,
    target: &Arc<dyn Target>,
) -> Result<(ReloadResult, Stamps), JoinError> {
    let (path, asked) = (path.to_owned(), Arc::clone(target));
    let loading = move || load(&path, Some((asked.server(), &asked.files())));
    let Loaded {
        config,
        warnings,
        stamps,
    } = match tokio::task::spawn_blocking(loading).await? {
        Ok(loaded) => loaded,
        Err(refused) => {
            for line in refused.errors.lines() {
                tracing::error!("{line}");
            }
            tracing::error!("the configuration is invalid; the old one stays in use");
            return Ok((ReloadResult::Invalid, refused.stamps));
        }
    };
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    // In a task of its own: it is taken over as a whole even if the reloads end meanwhile.
    let (target, read) = (Arc::clone(target), stamps.clone());
    let applying = tokio::spawn(async move { target.apply(config, &read).await });
    let result = match applying.await? {
        Ok(applied) => {
            say(&applied);
            ReloadResult::Success
        }
        Err(cause) => {
            tracing::error!("{cause}");
            tracing::error!("the configuration cannot be used; the old one stays in use");
            ReloadResult::Invalid
        }
    };
    Ok((result, stamps))
}

fn say(applied: &Applied) {
    if !applied.restart_needed.is_empty() {
        let keys = applied.restart_needed.join(", ");
        tracing::warn!(
            keys,
            "restart needed: these keys have changed and stay as they were until the next start"
        );
    }
    let made = applied.made.join(", ");
    tracing::info!(
        made,
        "the configuration is in use; what is not listed went on unchanged"
    );
}
