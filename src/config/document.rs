//! The document as a whole: its tables, and checks that involve several of them.

use std::collections::HashSet;

use toml::de::{DeTable, DeValue};

use super::diagnostic::{Location, quoted};
use super::foreign::{self, Program};
use super::keys::{self, TABLES};
use super::reader::{Reader, Section, Table};
use super::references::{Declaration, refuse_duplicates};
use super::resolved::{Config, Issuer, IssuerKind, Login, Route, Session, Source, SourceKind};
use super::{
    cache, forward_auth, issuer, limits, log, login, network, route, rule, server, session, shared,
    source, trace, units,
};
use crate::suggest::nearest;

/// Reads and resolves every table. Returns `None` only if `reader` has recorded an error.
pub(super) fn read(reader: &mut Reader<'_>, document: &DeTable<'_>) -> Option<Config> {
    let explained = refuse_unknown_tables(reader, document);
    let server = single(reader, document, "server", server::Server::resolve);
    let limits = single(reader, document, "limits", limits::Limits::resolve);
    let cache = single(reader, document, "cache", cache::Cache::resolve);
    let log = single(reader, document, "log", log::Log::resolve);
    let network = single(reader, document, "network", network::Network::resolve);
    let trace = optional(reader, document, "trace", trace::Trace::resolve);
    let shared = optional(
        reader,
        document,
        "shared",
        |shared: shared::Shared, reader| shared.resolve(reader, document),
    );

    let issuers = repeated(reader, document, "issuer", issuer::read);
    let sources = repeated(reader, document, "source", source::read);
    let listen = server
        .as_ref()
        .map(|server| reader.all_listeners(&server.listen));
    let sessions = repeated(reader, document, "session", |reader, table| {
        session::read(reader, table, &issuers, document.contains_key("shared"))
    });
    let context = route::Context {
        issuers: &issuers,
        sources: &sources,
        sessions: &sessions,
        listen: listen.as_deref(),
    };
    let routes = repeated(reader, document, "route", |reader, table| {
        route::read(reader, table, context)
    });

    let login = read_login(reader, document, context, &routes);

    let asked = repeated(reader, document, "forward_auth", |reader, table| {
        forward_auth::read(reader, table, &routes, &sources)
    });
    forward_auth::check_listeners(reader, &asked, server.as_ref());

    refuse_duplicates(reader, "issuer", &issuers);
    refuse_duplicates(reader, "source", &sources);
    refuse_duplicates(reader, "session", &sessions);
    refuse_duplicates(reader, "route", &routes);
    refuse_duplicates(reader, "forward_auth", &asked);
    session::refuse_collisions(reader, &sessions, &routes);
    route::refuse_overlapping(reader, &routes);
    route::refuse_mixed_case_sensitivity(reader, &routes);
    let context = rule::Context {
        routes: &routes,
        issuers: &issuers,
        login: document.contains_key("login"),
    };
    let rules = repeated(reader, document, "rule", |reader, table| {
        rule::read(reader, table, context)
    });
    refuse_duplicates(reader, "rule", &rules);
    route::refuse_headers_of_rules(reader, &routes, &rules);
    route::refuse_shadowed_by_bewit(reader, &routes);
    route::refuse_ambiguous_credentials(reader, &routes);
    if !explained && !document.contains_key("route") && !document.contains_key("login") {
        let problem = "no [[route]]: every request would be answered with 404";
        reader.error(
            &Location::default(),
            problem,
            "add a [[route]] with name, path, upstream, issuers and source",
        );
    }

    let (limits, max_token_bytes, rate) = limits?;
    let (forward_auth, listen) = forward_auth::resolved(&asked)?;
    let mut server = server?;
    server.listen.extend(listen);
    let config = Config {
        server,
        forward_auth,
        issuers: issuers.iter().map(named_issuer).collect::<Option<_>>()?,
        sources: values(&sources)?,
        sessions: values(&sessions)?,
        routes: values(&routes)?,
        rules: values(&rules)?,
        login: login?,
        limits,
        max_token_bytes,
        rate,
        cache: cache?,
        log: log?,
        network: network?,
        shared: shared?,
        trace: trace?,
        files: std::mem::take(&mut reader.files),
    };
    warn_about_unused_tables(reader, &config, &issuers, &sources, &sessions);
    warn_about_minting(reader, &config, &sources);
    rule::warn_about_deny_only_routes(reader, &routes, &config.rules);
    let admin = config.server.admin.as_ref();
    source::refuse_remote_credential_updates(reader, admin, &sources);
    if let Some(running) = reader.running.filter(|r| r.admin != config.server.admin) {
        source::refuse_remote_credential_updates(reader, running.admin.as_ref(), &sources);
    }
    Some(config)
}

/// What was declared, if all of it is valid.
fn values<T: Clone>(declarations: &[Declaration<T>]) -> Option<Vec<T>> {
    declarations.iter().map(|d| d.value.clone()).collect()
}

/// Reads `[login]`. Returns `Some(None)` if it is absent.
#[allow(clippy::option_option)]
fn read_login(
    reader: &mut Reader<'_>,
    document: &DeTable<'_>,
    context: route::Context<'_>,
    routes: &[Declaration<Route>],
) -> Option<Option<Login>> {
    let resolve = |login: login::Login, reader: &mut Reader<'_>| login.resolve(reader, context);
    let login = optional(reader, document, "login", resolve);
    if document.contains_key("login") {
        login::refuse_collisions(reader, routes);
    }
    login
}

fn named_issuer(declaration: &Declaration<IssuerKind>) -> Option<Issuer> {
    Some(Issuer {
        name: declaration.name.clone()?,
        kind: declaration.value.clone()?,
    })
}

/// Returns whether the errors explain why there is no route: the file is another program's, or the name is
/// misspelt.
fn refuse_unknown_tables(reader: &mut Reader<'_>, document: &DeTable<'_>) -> bool {
    let names = || TABLES.iter().map(|table| table.name);
    let program = Program::of(document);
    let first = document.keys().min_by_key(|key| key.span().start);
    if let (Some(program), Some(first)) = (program, first) {
        let (problem, remedy) = program.refusal();
        reader.error(&Location::table("", first.span()), problem, remedy);
    }
    let mut explained = program.is_some();
    for (key, value) in document {
        let name = key.get_ref().as_ref();
        if names().any(|known| known == name) {
            continue;
        }
        let what = match value.get_ref() {
            DeValue::Table(_) => "table",
            DeValue::Array(_) => "array",
            _ => "key",
        };
        let at = Location::table("", key.span());
        let remedy = match program {
            Some(program) => program.counterpart(name).to_owned(),
            None => remedy_for_unknown(name, names()),
        };
        explained |= nearest(name, names()) == Some("route");
        reader.error(&at, format!("unknown {what} {}", quoted(name)), remedy);
    }
    explained
}

/// What to write instead of a name at the top of the file that is none of `tables`.
fn remedy_for_unknown(name: &str, tables: impl Iterator<Item = &'static str> + Clone) -> String {
    if let Some(suggestion) = nearest(name, tables.clone()) {
        return format!("did you mean {suggestion:?}?");
    }
    if let Some(remedy) = foreign::synonym("", name) {
        return remedy.to_owned();
    }
    if let Some(owners) = keys::owners(name) {
        return format!("write it in {owners}");
    }
    let mut all: Vec<_> = tables.collect();
    all.dedup();
    let last = all.pop().unwrap_or_default();
    format!("the tables are {} and {last}", all.join(", "))
}

/// Reads `[name]`, which means something only if it is there. Returns `Some(None)` if it is absent.
#[allow(clippy::option_option)]
fn optional<S: Section, T>(
    reader: &mut Reader<'_>,
    document: &DeTable<'_>,
    name: &'static str,
    resolve: impl Fn(S, &mut Reader<'_>) -> Option<T>,
) -> Option<Option<T>> {
    if document.contains_key(name) {
        single(reader, document, name, resolve).map(Some)
    } else {
        Some(None)
    }
}

/// Reads `[name]`, which may be absent.
fn single<S: Section, T>(
    reader: &mut Reader<'_>,
    document: &DeTable<'_>,
    name: &'static str,
    resolve: impl Fn(S, &mut Reader<'_>) -> Option<T>,
) -> Option<T> {
    let empty = DeTable::new();
    let place = format!("[{name}]");
    let found = document.get_key_value(name);
    let span = found.map_or(0..0, |(key, _)| key.span());
    let entries = match found.map(|(_, value)| value.get_ref()) {
        None => &empty,
        Some(DeValue::Table(entries)) => entries,
        Some(_) => {
            let problem = "must be a single table";
            reader.error(
                &Location::table(place, span),
                problem,
                format!("write [{name}]"),
            );
            return None;
        }
    };
    let table = Table {
        at: Location::table(place, span),
        entries,
    };
    let section = S::read(reader, &table);
    reader.refuse_unknown(&table, &[S::KEYS], |_| None);
    resolve(section, reader)
}

/// Reads each `[[name]]`.
fn repeated<T>(
    reader: &mut Reader<'_>,
    document: &DeTable<'_>,
    name: &'static str,
    read: impl Fn(&mut Reader<'_>, &Table<'_>) -> T,
) -> Vec<T> {
    let Some((key, value)) = document.get_key_value(name) else {
        return Vec::new();
    };
    let mut refuse = |span| {
        let problem = format!("{name} must be an array of tables");
        reader.error(
            &Location::table("", span),
            problem,
            format!("write [[{name}]]"),
        );
    };
    let mut tables = Vec::new();
    match value.get_ref() {
        DeValue::Array(elements) => tables.extend(elements.iter()),
        // Read it anyway, to report the errors in it.
        DeValue::Table(_) => {
            refuse(key.span());
            tables.push(value);
        }
        _ => refuse(key.span()),
    }
    let mut all = Vec::new();
    for (index, element) in tables.into_iter().enumerate() {
        let DeValue::Table(entries) = element.get_ref() else {
            let problem = format!("{name} must be an array of tables");
            reader.error(
                &Location::table("", element.span()),
                problem,
                format!("write [[{name}]]"),
            );
            continue;
        };
        let place = match entries.get("name").map(toml::Spanned::get_ref) {
            Some(DeValue::String(given)) => format!("{name} {}", quoted(given)),
            _ => format!("{name} #{}", index + 1),
        };
        let table = Table {
            at: Location::table(place, element.span()),
            entries,
        };
        all.push(read(reader, &table));
    }
    all
}

/// Warns about issuers, sources and sessions that nothing uses.
fn warn_about_unused_tables(
    reader: &mut Reader<'_>,
    config: &Config,
    issuers: &[Declaration<IssuerKind>],
    sources: &[Declaration<Source>],
    sessions: &[Declaration<Session>],
) {
    warn_about_unused(reader, issuers, |index| {
        let login = config.login.as_ref();
        config.routes.iter().any(|r| r.issuers.contains(&index))
            || config.sessions.iter().any(|s| s.issuer() == Some(index))
            || login.is_some_and(|l| l.issuers.contains(&index))
    });
    warn_about_unused(reader, sources, |index| {
        let login = config.login.as_ref();
        config.routes.iter().any(|r| r.source == Some(index))
            || login.is_some_and(|l| l.source == index)
    });
    warn_about_unused(reader, sessions, |index| {
        config.routes.iter().any(|r| r.session == Some(index))
    });
}

fn warn_about_unused<T>(
    reader: &mut Reader<'_>,
    all: &[Declaration<T>],
    used: impl Fn(usize) -> bool,
) {
    for (index, declaration) in all.iter().enumerate() {
        if !used(index) {
            reader.warn(
                &declaration.table,
                "is not used by any route",
                "use it in a route, or remove it",
            );
        }
    }
}

/// Warns about client names shared by different callers, and about credentials so short-lived that
/// they would be minted constantly.
fn warn_about_minting(reader: &mut Reader<'_>, config: &Config, sources: &[Declaration<Source>]) {
    for (index, declaration) in sources.iter().enumerate() {
        let Some(Source {
            kind:
                SourceKind::TaskclusterMint {
                    client_name,
                    lifetime,
                    ..
                },
            ..
        }) = &declaration.value
        else {
            continue;
        };
        let uses = |route: &&Route| route.source == Some(index);
        let login = config.login.iter().filter(|login| login.source == index);
        let issuers: HashSet<_> = config
            .routes
            .iter()
            .filter(uses)
            .flat_map(|r| config.issuers_of(r))
            .chain(login.flat_map(|login| login.issuers.iter().copied()))
            .collect();
        let claims = source::template_claims(client_name).unwrap_or_default();
        if issuers.len() > 1 && !claims.iter().any(|claim| claim == "iss") {
            let problem = "client_name does not distinguish its issuers: a caller with the same claims at another issuer \
                           gets the same name";
            reader.warn(
                &declaration.table,
                problem,
                "add {iss} to it, or use a separate source for each issuer",
            );
        }
        if *lifetime <= config.cache.refresh_ahead {
            let ahead = units::show_duration(config.cache.refresh_ahead);
            let problem = format!(
                "lifetime is not longer than cache.refresh_ahead ({ahead}): credentials would be minted constantly"
            );
            reader.warn(&declaration.table, problem, "increase lifetime");
        }
    }
}
