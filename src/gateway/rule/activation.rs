//! Binds variables for an evaluation, converting claims and attributes to CEL values as they
//! are looked up.

use std::collections::HashMap;

use cel::common::types::{
    CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, CelUInt,
};
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use serde_json::{Map, Value};

use super::analysis::{ClaimsRead, MAX_MEMBERS};
use super::attributes::Attributes;
use crate::gateway::client_certificate::ClientCertificate;

/// Checks that no array or object among the claims `read` has more than [`MAX_MEMBERS`]
/// members.
///
/// # Errors
/// With the name of the first claim that is too large.
pub(super) fn check_sizes<'a>(
    claims: &'a Map<String, Value>,
    read: &ClaimsRead,
) -> Result<(), &'a str> {
    let fits = |(name, value): (&'a String, &'a Value)| {
        if is_small(value) {
            Ok(())
        } else {
            Err(name.as_str())
        }
    };
    match read {
        ClaimsRead::All if claims.len() > MAX_MEMBERS => Err("(all of them)"),
        ClaimsRead::All => claims.iter().try_for_each(fits),
        ClaimsRead::Named(names) => names
            .iter()
            .filter_map(|name| claims.get_key_value(name))
            .try_for_each(fits),
    }
}

/// Recurses as deep as the JSON is nested, which the parser limits to 128.
fn is_small(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.len() <= MAX_MEMBERS && items.iter().all(is_small),
        Value::Object(members) => members.len() <= MAX_MEMBERS && members.values().all(is_small),
        _ => true,
    }
}

/// The interpreter's variable bindings.
pub(super) struct Activation<'a> {
    attributes: &'a Attributes<'a>,
    claims: CelMap<'a>,
}

impl<'a> Activation<'a> {
    /// Binds only the claims that the expression reads.
    pub(super) fn new(attributes: &'a Attributes<'a>, read: &ClaimsRead) -> Self {
        let mut claims: HashMap<CelMapKey<'a>, Box<dyn Val + 'a>> = HashMap::new();
        if let Some(all) = attributes.claims {
            let mut add = |(name, value): (&'a String, &'a Value)| {
                claims.insert(CelMapKey::from(name.as_str()), cel_value(value));
            };
            match read {
                ClaimsRead::All => all.iter().for_each(add),
                ClaimsRead::Named(names) => names
                    .iter()
                    .filter_map(|name| all.get_key_value(name))
                    .for_each(&mut add),
            }
        }
        Self {
            attributes,
            claims: CelMap::from(claims),
        }
    }
}

impl VariableResolver for Activation<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        let (attributes, request) = (self.attributes, &self.attributes.request);
        let text = match variable {
            "claims" => return Some(CowVal::Borrowed(&self.claims)),
            "token.scopes" => return Some(cel_texts(attributes.scopes)),
            "client.address" => {
                // An IPv4-mapped IPv6 address is the same client as the IPv4 address.
                let address = request.address.map(|a| a.to_canonical().to_string());
                return Some(CowVal::owned(CelString::from(address.unwrap_or_default())));
            }
            "token.issuer" => attributes.issuer,
            "token.subject" => attributes.subject,
            "token.client" => attributes.client,
            "request.method" => request.method,
            "request.host" => request.host,
            "request.path" => request.path,
            "request.user_agent" => request.user_agent,
            _ => return certificate_field(request.certificate, variable),
        };
        Some(CowVal::owned(CelString::from(text)))
    }
}

/// Without a certificate, every string and list is empty.
fn certificate_field<'b>(
    certificate: Option<&'b ClientCertificate>,
    variable: &str,
) -> Option<CowVal<'b, 'b>> {
    let text = |text: Option<&'b String>| {
        let text = text.map(String::as_str).unwrap_or_default();
        Some(CowVal::owned(CelString::from(text)))
    };
    let list = |list: Option<&'b Vec<String>>| Some(cel_texts(list.map_or(&[], Vec::as_slice)));
    match variable.strip_prefix("client.certificate.")? {
        "common_name" => text(certificate.map(|c| &c.common_name)),
        "fingerprint" => text(certificate.map(|c| &c.fingerprint)),
        "dns_names" => list(certificate.map(|c| &c.dns_names)),
        "uris" => list(certificate.map(|c| &c.uris)),
        "emails" => list(certificate.map(|c| &c.emails)),
        _ => None,
    }
}

fn cel_texts(list: &[String]) -> CowVal<'_, '_> {
    let list: Vec<Box<dyn Val + '_>> = list.iter().map(|text| cel_text(text)).collect();
    CowVal::owned(CelList::from(list))
}

fn cel_text(text: &str) -> Box<dyn Val + '_> {
    Box::new(CelString::from(text))
}

/// Integers become `int` if they fit, otherwise `uint`; all other numbers become `double`.
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
