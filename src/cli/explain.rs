//! `hawkgate explain`: explains step by step why a request would be allowed or refused.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;

use http::Method;
use url::Url;

use hawkgate::clock::SystemClock;
use hawkgate::config;
use hawkgate::explain::{self, Explanation, Question};
use hawkgate::secret::SecretString;
use serde::Serialize;
use zeroize::Zeroizing;

use super::{DEFAULT_CONFIG, Explain, OutputFormat, process};

/// The most that is read from a token file, in bytes; tokens are much smaller.
const MAX_TOKEN_FILE: u64 = 64 * 1024;

/// Invalid arguments.
struct Usage(String);

pub(super) fn main(args: &Explain) -> ExitCode {
    if let Some(file) = &args.token_file
        && args.config.is_none()
        && !Path::new(DEFAULT_CONFIG).exists()
    {
        return identify(args, file);
    }
    let question = match question(args) {
        Ok(question) => question,
        Err(Usage(problem)) => return fail(2, &problem),
    };
    match run(args, &question) {
        Ok(explanation) => {
            // The exit code is meaningful even if stdout is closed.
            let _ = io::stdout().write_all(render(args.format, &explanation).as_bytes());
            ExitCode::from(u8::from(!explanation.passes()))
        }
        Err(error) => fail(1, &error.to_string()),
    }
}

/// Says what the file holds, without a configuration.
fn identify(args: &Explain, file: &Path) -> ExitCode {
    let bytes = match read_bytes("--token-file", file) {
        Ok(bytes) => bytes,
        Err(Usage(problem)) => return fail(2, &problem),
    };
    let found = explain::identify(&bytes, SystemClock::shared().now());
    let text = match args.format {
        OutputFormat::Text => {
            format!(
                "There is no configuration here (--config), so only the token is explained.\n\n{found}"
            )
        }
        OutputFormat::Json => json(&found),
    };
    let _ = io::stdout().write_all(text.as_bytes());
    ExitCode::from(u8::from(!found.is_token()))
}

fn fail(code: u8, problem: &str) -> ExitCode {
    let _ = writeln!(io::stderr(), "hawkgate explain: {problem}");
    ExitCode::from(code)
}

fn run(args: &Explain, question: &Question) -> Result<Explanation, Box<dyn std::error::Error>> {
    process::install_crypto();
    let path = args.config.as_deref().unwrap_or(Path::new(DEFAULT_CONFIG));
    let (config, _) = if question.exchange {
        config::check(path)?
    } else {
        config::check_without_secrets(path)?
    };
    let clock = SystemClock::shared();
    let runtime = process::runtime()?;
    let explanation = runtime.block_on(explain::explain(&config, question, &clock));
    runtime.shutdown_background();
    Ok(explanation?)
}

fn render(format: OutputFormat, explanation: &Explanation) -> String {
    match format {
        OutputFormat::Text => explanation.to_string(),
        OutputFormat::Json => json(explanation),
    }
}

fn json(value: &impl Serialize) -> String {
    let json = serde_json::to_string_pretty(value).unwrap_or_default();
    format!("{json}\n")
}

fn question(args: &Explain) -> Result<Question, Usage> {
    let method = Method::from_bytes(args.method.as_bytes())
        .map_err(|_| Usage("--method is not an HTTP method".into()))?;
    let (host, target) = split_url(&args.url)?;
    let https = args
        .url
        .get(..6)
        .is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:"));
    let token = match &args.token_file {
        Some(path) => Some(token(path)?),
        None => None,
    };
    let user = match &args.user_file {
        Some(path) => Some(user(path)?),
        None => None,
    };
    let cookie = match &args.cookie_file {
        Some(path) => Some(cookie(path)?),
        None => None,
    };
    Ok(Question {
        method,
        https,
        host,
        target,
        token,
        cookie,
        user,
        origin: args.origin.clone(),
        user_agent: args.user_agent.clone(),
        client: Some(args.client),
        offline: args.offline,
        exchange: args.exchange,
    })
}

/// Splits a URL or a path into host and request target. The target is preserved byte for byte.
fn split_url(text: &str) -> Result<(String, String), Usage> {
    if text.starts_with('/') {
        return Ok(("localhost".into(), text.into()));
    }
    let invalid =
        || Usage("--url is neither an http or https URL nor a path that starts with /".into());
    let parsed = Url::parse(text).map_err(|_| invalid())?;
    let (scheme, rest) = text.split_once("://").ok_or_else(invalid)?;
    if !["http", "https"].contains(&scheme.to_ascii_lowercase().as_str())
        || parsed.host_str().is_none()
        || !parsed.username().is_empty()
        || parsed.password().is_some()
    {
        return Err(invalid());
    }
    // Not `Url::path`, which is normalised; a caller would send the path unchanged.
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (host, target) = rest.split_at(end);
    let target = target.split('#').next().unwrap_or_default();
    let target = if target.starts_with('/') {
        target.to_owned()
    } else {
        format!("/{target}")
    };
    Ok((host.to_owned(), target))
}

/// Reads a token from a file, or from standard input for `-`. A leading `Bearer` is stripped.
fn token(path: &Path) -> Result<String, Usage> {
    let text = read("--token-file", path)?;
    let text = text.trim();
    let bare = match text.get(..7) {
        Some(scheme) if scheme.eq_ignore_ascii_case("bearer ") => text[7..].trim_start(),
        _ => text,
    };
    if bare.is_empty() {
        return Err(Usage("--token-file is empty".into()));
    }
    Ok(bare.to_owned())
}

/// Reads a `Cookie` field, or the value of a cookie, from a file, or from standard input for `-`. The
/// name of the field is stripped.
fn cookie(path: &Path) -> Result<SecretString, Usage> {
    let text = read("--cookie-file", path)?;
    let text = text.trim();
    let bare = match text.get(..7) {
        Some(name) if name.eq_ignore_ascii_case("cookie:") => text[7..].trim_start(),
        _ => text,
    };
    if bare.is_empty() {
        return Err(Usage("--cookie-file is empty".into()));
    }
    Ok(SecretString::from(bare))
}

/// Reads `username:password` from a file, or from standard input for `-`, without trailing
/// newlines.
fn user(path: &Path) -> Result<SecretString, Usage> {
    let text = read("--user-file", path)?;
    let pair = text.trim_end_matches(['\r', '\n']);
    if !pair.contains(':') {
        return Err(Usage(
            "--user-file does not contain username:password".into(),
        ));
    }
    Ok(SecretString::from(pair))
}

fn read(option: &str, path: &Path) -> Result<Zeroizing<String>, Usage> {
    let bytes = read_bytes(option, path)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| {
        Usage(format!(
            "{option} is not UTF-8 text: write the file in UTF-8"
        ))
    })?;
    Ok(Zeroizing::new(text.to_owned()))
}

fn read_bytes(option: &str, path: &Path) -> Result<Zeroizing<Vec<u8>>, Usage> {
    let mut bytes = Zeroizing::new(Vec::new());
    let read = if path.as_os_str() == "-" {
        io::stdin().take(MAX_TOKEN_FILE).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(MAX_TOKEN_FILE).read_to_end(&mut bytes))
    };
    read.map_err(|error| Usage(format!("cannot read {option}: {}", problem(error.kind()))))?;
    Ok(bytes)
}

/// Only the kind of error: what was given as the file's name may be the token itself.
fn problem(kind: io::ErrorKind) -> String {
    match kind {
        io::ErrorKind::NotFound => {
            "no such file; give the name of a file, or - for standard input".into()
        }
        kind => kind.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_split_without_normalisation() {
        for (url, host, target) in [
            ("/api/x?y", "localhost", "/api/x?y"),
            (
                "https://Tc.Example.com:8443/a/../%7Eb//c?d#e",
                "Tc.Example.com:8443",
                "/a/../%7Eb//c?d",
            ),
            ("http://[::1]:80", "[::1]:80", "/"),
            ("https://a?b", "a", "/?b"),
        ] {
            let (h, t) = split_url(url).unwrap_or_else(|Usage(e)| panic!("{url}: {e}"));
            assert_eq!((h.as_str(), t.as_str()), (host, target), "{url}");
        }
        for url in [
            "",
            "api/x",
            "ftp://a/b",
            "https://",
            "https://u:p@a/b",
            "mailto:a@b",
        ] {
            assert!(split_url(url).is_err(), "{url}");
        }
    }
}
