//! Entry points for fuzzing: texts from which credentials are made. See [`crate::fuzzing`].

use serde_json::{Map, Value};

use super::taskcluster_mint::{MAX_NAME_CHARS, NameTemplate};
use super::taskcluster_static::update;

/// Parses a name template, the first line, and renders it with the second as the value of each claim.
pub fn name_template(text: &str) {
    let (template, value) = text.split_once('\n').unwrap_or((text, "x"));
    let Ok(template) = NameTemplate::parse(template) else {
        return;
    };
    let _ = template.render_without_claims();
    let claims: Map<String, Value> = template
        .claims()
        .map(|name| (name.to_owned(), Value::from(value)))
        .collect();
    if let Ok(name) = template.render_claims(&claims) {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"@/:.+|_!-".contains(&b);
        assert!(name.len() <= MAX_NAME_CHARS && name.bytes().all(allowed));
        assert!(name.len() >= template.shortest().len());
    }
}

/// Parses the body of `PUT /credentials` and checks that requests can be signed with it.
pub fn credentials_update(body: &[u8]) {
    if let Ok(credentials) = update::parse(body) {
        let _ = update::check(&credentials, None);
        let _ = update::check(&credentials, Some(&["queue:*".to_owned()]));
        if let Some(certificate) = &credentials.certificate {
            let _ = (
                certificate.check(),
                certificate.expiry(),
                certificate.scopes(),
            );
        }
    }
}
