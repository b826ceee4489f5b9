//! `log.level`: which events are logged.

use std::str::FromStr;

use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

/// The target of access lines.
pub(super) const ACCESS: &str = "access";
/// The target of audit lines.
pub(super) const AUDIT: &str = "audit";
const CRATE: &str = "hawkgate";

/// Log levels such as `info` or `info,hawkgate=debug,access=off`: a general level (by default
/// `info`) and levels for individual targets.
///
/// Other crates never log below `warn`, whatever is configured, because their debug messages quote
/// the data they process. The audit log is off unless named (`audit=info`); the general level does
/// not affect it.
#[derive(Clone, Debug)]
pub struct Levels(Targets);

/// A level that cannot be parsed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "log level {0:?} is not valid: write one of error, warn, info, debug, trace, off, or several as in \"info,hawkgate=debug,access=off\""
)]
pub struct LevelError(String);

impl Levels {
    pub(super) fn targets(&self) -> &Targets {
        &self.0
    }

    /// Whether audit lines are on.
    pub fn audit(&self) -> bool {
        self.0.would_enable(AUDIT, &Level::INFO)
    }

    /// Whether access lines are on.
    pub fn access(&self) -> bool {
        self.0.would_enable(ACCESS, &Level::INFO)
    }
}

impl FromStr for Levels {
    type Err = LevelError;

    /// Stricter than `RUST_LOG`, in which a misspelt level is the name of a target.
    fn from_str(text: &str) -> Result<Self, LevelError> {
        let bad = |part: &str| LevelError(part.trim().to_owned());
        let mut general = LevelFilter::INFO;
        let mut named = Vec::new();
        for part in text.split(',').filter(|p| !p.trim().is_empty()) {
            match part.split_once('=') {
                None => general = level(part).ok_or_else(|| bad(part))?,
                Some((target, name)) if !target.trim().is_empty() => {
                    named.push((
                        target.trim().to_owned(),
                        level(name).ok_or_else(|| bad(part))?,
                    ));
                }
                Some(_) => return Err(bad(part)),
            }
        }
        let others = general.min(LevelFilter::WARN);
        let base = [
            (CRATE.to_owned(), general),
            (ACCESS.to_owned(), general),
            (AUDIT.to_owned(), LevelFilter::OFF),
            // Each loss of a node of a Cluster, whose effect hawkgate logs itself, once.
            ("redis".to_owned(), LevelFilter::OFF),
        ];
        let named = named.into_iter().map(|(target, level)| {
            let level = if is_own_target(&target) {
                level
            } else {
                level.min(LevelFilter::WARN)
            };
            (target, level)
        });
        let targets = Targets::new().with_default(others).with_targets(base);
        Ok(Self(targets.with_targets(named)))
    }
}

/// Whether events with this target are hawkgate's own.
pub(super) fn is_own_target(target: &str) -> bool {
    [ACCESS, AUDIT, CRATE].contains(&target) || target.starts_with("hawkgate::")
}

fn level(name: &str) -> Option<LevelFilter> {
    Some(match name.trim().to_ascii_lowercase().as_str() {
        "off" => LevelFilter::OFF,
        "error" => LevelFilter::ERROR,
        "warn" => LevelFilter::WARN,
        "info" => LevelFilter::INFO,
        "debug" => LevelFilter::DEBUG,
        "trace" => LevelFilter::TRACE,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enabled(level: &str, target: &str, at: Level) -> bool {
        let levels: Levels = level.parse().unwrap();
        levels.targets().would_enable(target, &at)
    }

    #[test]
    fn the_general_level_applies_to_every_hawkgate_target() {
        assert!(enabled("debug", "hawkgate::proxy", Level::DEBUG));
        assert!(!enabled("info", "hawkgate::proxy", Level::DEBUG));
        assert!(enabled("", "hawkgate", Level::INFO));
        assert!(enabled("info", "access", Level::INFO));
        assert!(!enabled("warn", "access", Level::INFO));
    }

    #[test]
    fn a_target_can_have_its_own_level() {
        let level = "warn, hawkgate::token=trace,access=info";
        assert!(enabled(level, "hawkgate::token::keys", Level::TRACE));
        assert!(!enabled(level, "hawkgate::proxy", Level::INFO));
        assert!(enabled(level, "access", Level::INFO));
        assert!(!"info,access=off".parse::<Levels>().unwrap().access());
    }

    #[test]
    fn other_crates_never_log_below_warn() {
        for level in ["trace", "trace,h2=trace", "info,pingora_core=debug"] {
            for target in ["h2::codec", "pingora_core", "hyper", "rustls"] {
                assert!(!enabled(level, target, Level::INFO), "{level} {target}");
                assert!(enabled(level, target, Level::WARN), "{level} {target}");
            }
        }
        assert!(!enabled("info,h2=off", "h2::codec", Level::ERROR));
    }

    #[test]
    fn a_misspelt_level_is_an_error_that_lists_the_valid_ones() {
        for wrong in ["inof", "hawkgate=loud", "=info", "info,debg", "5"] {
            let error = wrong.parse::<Levels>().unwrap_err().to_string();
            assert!(error.contains("write one of"), "{error}");
        }
    }
}
