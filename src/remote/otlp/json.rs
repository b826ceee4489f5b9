//! OTLP's JSON mapping of `ExportTraceServiceRequest`: ids in hexadecimal, 64-bit numbers as
//! strings, enums as numbers.

use serde_json::{Value, json};

use crate::trace::{self, Attribute, Span};

/// The `Resource` of every export: this service and its attributes.
pub(super) fn resource(service_name: &str, attributes: &[(String, String)]) -> Value {
    let service = [
        ("service.name", service_name),
        ("service.version", crate::VERSION),
    ];
    let configured = attributes.iter().map(|(name, value)| (&**name, &**value));
    let attributes: Vec<Value> = service
        .into_iter()
        .chain(configured)
        .map(|(name, value)| json!({ "key": name, "value": { "stringValue": value } }))
        .collect();
    json!({ "attributes": attributes })
}

/// The body of one export request.
pub(super) fn request(resource: &Value, spans: &[Span]) -> Value {
    let spans: Vec<Value> = spans.iter().map(span).collect();
    json!({ "resourceSpans": [{
        "resource": resource,
        "scopeSpans": [{
            "scope": { "name": "hawkgate", "version": crate::VERSION },
            "spans": spans,
        }],
    }] })
}

fn span(span: &Span) -> Value {
    let attributes: Vec<Value> = span.attributes.iter().map(attribute).collect();
    let mut object = json!({
        "traceId": span.trace.to_string(),
        "spanId": span.id.to_string(),
        "name": span.name,
        "kind": span.kind as u8,
        "startTimeUnixNano": span.started.to_string(),
        "endTimeUnixNano": span.ended.to_string(),
        "attributes": attributes,
        "status": {},
    });
    if let Some(parent) = span.parent {
        object["parentSpanId"] = parent.to_string().into();
    }
    if let Some(error) = span.error {
        object["status"] = json!({ "code": 2, "message": error });
    }
    object
}

fn attribute((name, value): &Attribute) -> Value {
    let value = match value {
        trace::AttributeValue::Text(text) => json!({ "stringValue": text }),
        trace::AttributeValue::Number(number) => json!({ "intValue": number.to_string() }),
    };
    json!({ "key": name, "value": value })
}

/// How many spans the collector reports as rejected.
pub(super) fn rejected(response: &[u8]) -> u64 {
    let response: Value = serde_json::from_slice(response).unwrap_or_default();
    let count = &response["partialSuccess"]["rejectedSpans"];
    let text = count.as_str().and_then(|text| text.parse().ok());
    count.as_u64().or(text).unwrap_or(0)
}
