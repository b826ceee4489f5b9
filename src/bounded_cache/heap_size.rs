//! Estimates of the heap memory that values take, in bytes.
//!
//! They follow the layout of the standard library's collections and round up where that depends
//! on history. A test with the real allocator checks them: `tests/it/cache_memory.rs`.

use serde_json::{Map, Value};

/// What the allocator adds to an allocation on average: its size classes are an eighth apart.
const ROUNDING: usize = 16;

/// The members of a leaf of a [`std::collections::BTreeMap`], the map of `serde_json`.
const LEAF_CAPACITY: usize = 11;
/// The members per node of a map that is filled in ascending order: a full node that is split keeps
/// six and gives one to its parent. Filled in another order, nodes have more.
const MEMBERS_PER_NODE: usize = 7;
const MEMBER: usize = size_of::<String>() + size_of::<Value>();
/// A leaf: its members, the pointer to its parent and two lengths.
const LEAF: usize = LEAF_CAPACITY * MEMBER + 16;
/// The pointers to the children, in a node that is not a leaf.
const EDGES: usize = (LEAF_CAPACITY + 1) * size_of::<usize>();

/// An allocation of `bytes`; nothing is allocated for 0.
pub fn allocation(bytes: usize) -> usize {
    match bytes {
        0 => 0,
        bytes => bytes.next_multiple_of(ROUNDING) + bytes / 16,
    }
}

/// The text and its allocation.
pub fn string(text: &str) -> usize {
    allocation(text.len())
}

/// A list of strings.
pub fn strings(list: &[String]) -> usize {
    allocation(size_of_val(list)) + list.iter().map(|text| string(text)).sum::<usize>()
}

/// A parsed JSON object, not counting `object` itself.
pub fn json_object(object: &Map<String, Value>) -> usize {
    let members = object
        .iter()
        .map(|(name, value)| string(name) + json(value));
    nodes(object.len()) + members.sum::<usize>()
}

/// A parsed JSON value, not counting `value` itself. The recursion is bounded by the parser, to a
/// depth of 128.
fn json(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => string(text),
        Value::Array(items) => {
            allocation(items.capacity() * size_of::<Value>())
                + items.iter().map(json).sum::<usize>()
        }
        Value::Object(object) => json_object(object),
    }
}

/// The nodes of a map with `members`.
fn nodes(members: usize) -> usize {
    match members {
        0 => 0,
        1..=LEAF_CAPACITY => allocation(LEAF),
        _ => {
            let leaves = members.div_ceil(MEMBERS_PER_NODE);
            let parents = leaves.div_ceil(MEMBERS_PER_NODE);
            leaves * allocation(LEAF) + parents * allocation(LEAF + EDGES)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn size(value: &Value) -> usize {
        json_object(value.as_object().unwrap())
    }

    #[test]
    fn every_node_of_a_document_is_counted() {
        assert_eq!(size(&json!({})), 0);
        let flat = size(&json!({ "sub": 1 }));
        assert!((632..800).contains(&flat), "{flat}");
        let zeros = size(&json!({ "list": vec![0; 2500] }));
        assert!((80_000..90_000).contains(&(zeros - flat)), "{zeros}");
        let objects = size(&json!({ "list": vec![json!({ "": 0 }); 800] }));
        assert!(objects > 800 * (632 + 32), "{objects}");
        let text = size(&json!({ "list": "x".repeat(1000) }));
        assert!((1000..1200).contains(&(text - flat)), "{text}");
    }

    #[test]
    fn the_nodes_of_large_maps_are_counted() {
        let map = |members: usize| {
            let names = (0..members).map(|at| (format!("{at:09}"), Value::Null));
            json_object(&names.collect())
        };
        assert!(map(12) > map(11));
        assert!(map(1000) > 1000 * MEMBER + 1000 * 9);
        assert!(map(1000) < 4 * 1000 * MEMBER);
    }
}
