use super::*;

fn parsed() -> Value {
    serde_json::from_str(&schema()).unwrap()
}

#[test]
fn schema_and_page_contain_every_table_kind_and_key() {
    let schema = parsed();
    let page = page();
    for table in TABLES {
        let definition = match table.kind {
            Some(kind) => format!("{}-{kind}", table.name),
            None if table.keys.iter().any(|key| key.name == KIND) => continue,
            None => table.name.to_owned(),
        };
        assert!(schema["properties"][table.name].is_object());
        for key in table.keys {
            let property = &schema["$defs"][&definition]["properties"][key.name];
            assert_eq!(
                property["description"],
                prose(key.doc),
                "{definition} {}",
                key.name
            );
            assert_eq!(property.get("default"), default_of(key).as_ref());
            assert!(
                page.contains(&format!("| `{}` |", key.name)),
                "{}",
                key.name
            );
        }
    }
}

#[test]
fn every_default_converts_to_json() {
    for key in TABLES.iter().flat_map(|table| table.keys) {
        let has_default = matches!(key.presence, Presence::Default(_));
        assert_eq!(default_of(key).is_some(), has_default, "{}", key.name);
    }
}

#[test]
fn schema_has_a_definition_for_a_kind_without_keys() {
    let schema = parsed();
    let delegated = &schema["$defs"]["issuer-delegated"];
    assert_eq!(delegated["additionalProperties"], false);
    assert!(delegated["properties"].get("url").is_none());
    assert!(schema["$defs"]["issuer-oidc"]["properties"]["url"].is_object());
    assert_eq!(schema["$defs"]["source"]["required"], json!(["kind"]));
    assert!(schema["$defs"]["issuer"].get("required").is_none());
}

#[test]
fn documentation_is_escaped_for_a_markdown_table_cell() {
    let mut page = String::new();
    let key = Key {
        name: "k",
        doc: " a | b <c> `<d>`\n on two lines.\n",
        shape: Shape::List(&Shape::Name),
        presence: Presence::Default("['x']"),
    };
    super::page::row(&mut page, "t.", &key);
    let expected = "| `t.k` | list: name | `[\"x\"]` | a \\| b &lt;c> `<d>` on two lines. |\n";
    assert_eq!(page, expected);
}
