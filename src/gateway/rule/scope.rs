//! What an expression can see: the caller's claims and a few facts, borrowed, looked up
//! when they are asked for.

use std::collections::HashMap;
use std::net::IpAddr;

use cel::common::types::{
    CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, CelUInt,
};
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use serde_json::{Map, Value};

use super::syntax::{Claims, MAX_MEMBERS};
use crate::gateway::client::ClientCertificate;

/// What there is to know about one request, before anything is decided.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The verified claims; `None` for opaque tokens and anonymous routes.
    pub claims: Option<&'a Map<String, Value>>,
    /// The configured name of the issuer; empty on anonymous routes.
    pub issuer: &'a str,
    /// `sub`; empty where there are no claims.
    pub subject: &'a str,
    /// `client_id`, else `azp`; empty when the token names none.
    pub client: &'a str,
    /// `scope`, split.
    pub scopes: &'a [String],
    /// The request.
    pub request: RequestFacts<'a>,
}

/// What rules can know about a request's head.
#[derive(Clone, Copy, Debug)]
pub struct RequestFacts<'a> {
    /// As sent.
    pub method: &'a str,
    /// Lower case, without port.
    pub host: &'a str,
    /// Without query.
    pub path: &'a str,
    /// `User-Agent`; empty when there is none, several, or one that is not visible ASCII.
    pub user_agent: &'a str,
    /// The client's address; none on Unix sockets.
    pub address: Option<IpAddr>,
    /// The client's verified certificate; none where it presented none.
    pub certificate: Option<&'a ClientCertificate>,
}

/// Whether every array and object among `wanted` is small enough; the first claim that is
/// not is the error.
pub(super) fn check_sizes<'a>(
    claims: &'a Map<String, Value>,
    wanted: &Claims,
) -> Result<(), &'a str> {
    let fits = |(name, value): (&'a String, &'a Value)| {
        if is_small(value) {
            Ok(())
        } else {
            Err(name.as_str())
        }
    };
    match wanted {
        Claims::All if claims.len() > MAX_MEMBERS => Err("(all of them)"),
        Claims::All => claims.iter().try_for_each(fits),
        Claims::Named(names) => names
            .iter()
            .filter_map(|name| claims.get_key_value(name))
            .try_for_each(fits),
    }
}

/// Recurses as deep as the JSON is, which its reader has bounded (128).
fn is_small(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.len() <= MAX_MEMBERS && items.iter().all(is_small),
        Value::Object(members) => members.len() <= MAX_MEMBERS && members.values().all(is_small),
        _ => true,
    }
}

/// The facts, as the evaluator wants them.
pub(super) struct Scope<'a> {
    facts: &'a Facts<'a>,
    claims: CelMap<'a>,
}

impl<'a> Scope<'a> {
    /// `wanted` is all of the claims that will be asked for.
    pub(super) fn new(facts: &'a Facts<'a>, wanted: &Claims) -> Self {
        let mut claims: HashMap<CelMapKey<'a>, Box<dyn Val + 'a>> = HashMap::new();
        if let Some(all) = facts.claims {
            let mut add = |(name, value): (&'a String, &'a Value)| {
                claims.insert(CelMapKey::from(name.as_str()), cel_value(value));
            };
            match wanted {
                Claims::All => all.iter().for_each(add),
                Claims::Named(names) => names
                    .iter()
                    .filter_map(|name| all.get_key_value(name))
                    .for_each(&mut add),
            }
        }
        Self {
            facts,
            claims: CelMap::from(claims),
        }
    }
}

impl VariableResolver for Scope<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        let (facts, request) = (self.facts, &self.facts.request);
        let text = match variable {
            "claims" => return Some(CowVal::Borrowed(&self.claims)),
            "token.scopes" => return Some(texts(facts.scopes)),
            "client.address" => {
                // One client is one text, whether it came by IPv4 or by IPv4 mapped into IPv6.
                let address = request.address.map(|a| a.to_canonical().to_string());
                return Some(CowVal::owned(CelString::from(address.unwrap_or_default())));
            }
            "token.issuer" => facts.issuer,
            "token.subject" => facts.subject,
            "token.client" => facts.client,
            "request.method" => request.method,
            "request.host" => request.host,
            "request.path" => request.path,
            "request.user_agent" => request.user_agent,
            _ => return certificate_field(request.certificate, variable),
        };
        Some(CowVal::owned(CelString::from(text)))
    }
}

/// Without a certificate every text and list is empty.
fn certificate_field<'b>(
    certificate: Option<&'b ClientCertificate>,
    variable: &str,
) -> Option<CowVal<'b, 'b>> {
    let text = |text: Option<&'b String>| {
        let text = text.map(String::as_str).unwrap_or_default();
        Some(CowVal::owned(CelString::from(text)))
    };
    let list = |list: Option<&'b Vec<String>>| Some(texts(list.map_or(&[], Vec::as_slice)));
    match variable.strip_prefix("client.certificate.")? {
        "common_name" => text(certificate.map(|c| &c.common_name)),
        "fingerprint" => text(certificate.map(|c| &c.fingerprint)),
        "dns_names" => list(certificate.map(|c| &c.dns_names)),
        "uris" => list(certificate.map(|c| &c.uris)),
        "emails" => list(certificate.map(|c| &c.emails)),
        _ => None,
    }
}

fn texts(list: &[String]) -> CowVal<'_, '_> {
    let list: Vec<Box<dyn Val + '_>> = list.iter().map(|text| cel_text(text)).collect();
    CowVal::owned(CelList::from(list))
}

fn cel_text(text: &str) -> Box<dyn Val + '_> {
    Box::new(CelString::from(text))
}

/// A whole number is an `int` where it fits, else a `uint`; any other number a `double`.
fn cel_value(value: &Value) -> Box<dyn Val + '_> {
    match value {
        Value::Null => Box::new(CelNull),
        Value::Bool(flag) => Box::new(CelBool::from(*flag)),
        Value::Number(number) => {
            if let Some(int) = number.as_i64() {
                Box::new(CelInt::from(int))
            } else if let Some(uint) = number.as_u64() {
                Box::new(CelUInt::from(uint))
            } else {
                Box::new(CelDouble::from(number.as_f64().unwrap_or(f64::NAN)))
            }
        }
        Value::String(text) => cel_text(text),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(cel_value).collect();
            Box::new(CelList::from(items))
        }
        Value::Object(members) => {
            let members: HashMap<_, _> = members
                .iter()
                .map(|(name, value)| (CelMapKey::from(name.as_str()), cel_value(value)))
                .collect();
            Box::new(CelMap::from(members))
        }
    }
}
