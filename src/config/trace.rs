//! `[trace]`

use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue, header};
use toml::de::DeValue;
use url::Url;

use super::diagnostic::{Location, quoted};
use super::http_url::is_loopback;
use super::reader::{Field, Reader, Shape, Value, section};
use super::units::show_duration;
use super::value::{Choice, Fraction};
use crate::secret::SecretRef;
use crate::trace::settings::{IncomingTrace, TraceExport};

section! {
    /// Distributed tracing (W3C Trace Context), with spans exported to a collector if `endpoint` is set.
    /// Without this table, callers' trace headers are forwarded like any others.
    pub(super) struct Trace {
        /// `continue`: a request continues the trace in its headers. `restart`: every request starts a new
        /// trace, for untrusted callers.
        incoming: IncomingTrace = [default "'continue'"],
        /// The fraction of traces started by hawkgate that is sampled; continued traces keep the caller's
        /// sampling decision.
        sample: Fraction = [default "1.0"],
        /// The collector's endpoint for OTLP over HTTP with JSON: "http://127.0.0.1:4318/v1/traces".
        /// Without it, trace IDs are only propagated and logged.
        endpoint: Url = [optional],
        /// Headers to send to the collector, such as an API key.
        headers: Headers = [optional],
        /// The resource attribute `service.name`.
        service_name: String = [default "'hawkgate'"],
        /// Additional resource attributes, such as `deployment.environment.name`.
        attributes: Attributes = [optional],
        /// Time limit for one export; 100ms to 1m.
        timeout: Duration = [default "'10s'"],
        /// PEM file with the only CAs trusted for the collector; the platform's when left out.
        ca: PathBuf = [optional],
        /// Allows an http collector on another machine, which exposes spans in cleartext.
        allow_plaintext: bool = [default "false"],
    }
}

impl Choice for IncomingTrace {
    const NAMES: &'static [&'static str] = &["continue", "restart"];

    fn from_name(name: &str) -> Option<Self> {
        match name {
            "continue" => Some(Self::Continue),
            "restart" => Some(Self::Restart),
            _ => None,
        }
    }
}

/// Headers with secret values, sorted by name.
#[derive(Debug)]
pub(super) struct Headers(Vec<(HeaderName, SecretRef)>);

impl Value for Headers {
    const SHAPE: Shape = Shape::Map(&Shape::Secret);

    fn read(reader: &mut Reader<'_>, at: &Location, value: &DeValue<'_>) -> Option<Self> {
        let example = "write { authorization = { file = \"…\" } }";
        each(reader, at, value, example, |reader, at, name, value| {
            let reserved = [header::CONTENT_TYPE, header::CONTENT_LENGTH, header::HOST];
            let Some(name) = HeaderName::from_bytes(name.as_bytes())
                .ok()
                .filter(|name| !reserved.contains(name))
            else {
                reader.error(
                    at,
                    "is not a valid header name, or is reserved",
                    "use another name",
                );
                return None;
            };
            let secret = <SecretRef as Value>::read(reader, at, value)?;
            if reader.reads_files()
                && let Ok(text) = secret.read()
                && HeaderValue::from_str(text.expose()).is_err()
            {
                let problem = "holds characters that are not allowed in a header";
                reader.error(at, problem, "put the header's value there, in one line");
                return None;
            }
            Some((name, secret))
        })
        .map(Self)
    }
}

/// Attributes and their values, sorted by name.
#[derive(Debug)]
pub(super) struct Attributes(Vec<(String, String)>);

impl Value for Attributes {
    const SHAPE: Shape = Shape::Map(&Shape::Text);

    fn read(reader: &mut Reader<'_>, at: &Location, value: &DeValue<'_>) -> Option<Self> {
        let example = "write { \"deployment.environment.name\" = \"production\" }";
        each(reader, at, value, example, |reader, at, name, value| {
            if name.trim().is_empty() || name == "service.name" {
                reader.error(
                    at,
                    "is not an attribute that can be set in this table",
                    "use the key service_name",
                );
                return None;
            }
            Some((name.to_owned(), String::read(reader, at, value)?))
        })
        .map(Self)
    }
}

/// Reads every entry of a table with arbitrary keys. Returns `None` if one is invalid.
fn each<T>(
    reader: &mut Reader<'_>,
    at: &Location,
    value: &DeValue<'_>,
    example: &str,
    read: impl Fn(&mut Reader<'_>, &Location, &str, &DeValue<'_>) -> Option<T>,
) -> Option<Vec<T>> {
    let DeValue::Table(entries) = value else {
        reader.error(at, "must be a table", example);
        return None;
    };
    let entries: Vec<_> = entries
        .iter()
        .map(|(key, value)| {
            let name = key.get_ref().as_ref();
            let at = at.key(name, key.span());
            read(reader, &at, name, value.get_ref())
        })
        .collect();
    entries.into_iter().collect()
}

impl Trace {
    pub(super) fn resolve(self, reader: &mut Reader<'_>) -> Option<crate::trace::settings::Trace> {
        let (shortest, longest) = (Duration::from_millis(100), Duration::from_mins(1));
        reader.check_range(&self.timeout, shortest, longest, show_duration);
        if let Some(ca) = &self.ca.value {
            reader.check_cas(&self.ca.at, ca);
        }
        if self.endpoint.is_absent() {
            self.refuse_without_endpoint(reader);
        }
        let allow_plaintext = self.allow_plaintext.value?;
        if let Some(url) = &self.endpoint.value {
            check_endpoint(reader, &self.endpoint, url, allow_plaintext);
            if url.scheme() == "http" && !is_loopback(url) && self.headers.given {
                let problem = "would be sent to the collector in cleartext";
                reader.error(
                    &self.headers.at,
                    problem,
                    "use https in endpoint, or remove them",
                );
            }
        }
        let headers = self.headers.optional()?.map_or_else(Vec::new, |h| h.0);
        let attributes = self.attributes.optional()?.map_or_else(Vec::new, |a| a.0);
        let (timeout, ca) = (self.timeout.value?, self.ca.optional()?);
        let service_name = self.service_name.value?;
        Some(crate::trace::settings::Trace {
            incoming: self.incoming.value?,
            sample: self.sample.value?.0,
            export: self.endpoint.optional()?.map(|endpoint| TraceExport {
                endpoint,
                headers,
                service_name,
                attributes,
                timeout,
                ca,
                allow_plaintext,
            }),
        })
    }

    fn refuse_without_endpoint(&self, reader: &mut Reader<'_>) {
        let given = [
            (&self.headers.at, self.headers.given),
            (&self.attributes.at, self.attributes.given),
            (&self.ca.at, self.ca.given),
        ];
        for (at, _) in given.iter().filter(|(_, given)| *given) {
            reader.error(
                at,
                "has no effect without endpoint",
                "add endpoint, or remove it",
            );
        }
    }
}

fn check_endpoint(reader: &mut Reader<'_>, field: &Field<Url>, url: &Url, plaintext: bool) {
    if url.scheme() == "http" && !is_loopback(url) && !plaintext {
        let host = quoted(url.host_str().unwrap_or_default());
        let problem = format!("plain http to {host} sends spans in cleartext");
        reader.error(
            &field.at,
            problem,
            "write https://, or add allow_plaintext = true",
        );
    }
    if url.path() == "/" {
        let problem = "has no path, but collectors receive traces at a specific path";
        let suggestion = url
            .join("/v1/traces")
            .map_or_else(|_| String::new(), String::from);
        reader.error(&field.at, problem, format!("write {}", quoted(&suggestion)));
    }
}
