use proptest::prelude::*;
use serde_json::json;

use super::*;

fn text(document: &Document, path: &str) -> Result<String, Missing> {
    document.find(path, Form::Text).map(|piece| piece.as_str().to_owned())
}

fn json_at(document: &Document, path: &str) -> Result<String, Missing> {
    document.find(path, Form::Json).map(|piece| piece.as_str().to_owned())
}

#[test]
fn each_part_is_found_in_either_form() {
    let document = Document::new(&json!({
        "latest": {
            "meta-data": { "instance-id": "i-1", "tags": {}, "cpus": 2, "public-keys": [{ "key": "ssh-ed25519 A" }] },
            "user-data": "#!/bin/sh\necho \"hi\"\n",
        },
        "a/b~c": { "": "hidden" },
        "none": null,
    }));
    let whole = document.json.to_string();
    let latest = whole.split_once("\"latest\":").and_then(|(_, rest)| rest.rsplit_once(",\"none\"")).unwrap().0;
    type Found<'a> = Result<&'a str, Missing>;
    let cases: &[(&str, Found<'_>, Found<'_>)] = &[
        ("/", Ok("a/b~c/\nlatest/\nnone"), Ok(&whole)),
        ("", Ok("a/b~c/\nlatest/\nnone"), Ok(&whole)),
        ("/none", Err(Missing::Text), Ok("null")),
        ("/latest", Ok("meta-data/\nuser-data"), Ok(latest)),
        ("/latest/", Ok("meta-data/\nuser-data"), Ok(latest)),
        ("//latest///meta-data//instance-id/", Ok("i-1"), Ok("\"i-1\"")),
        ("/latest/meta-data/tags", Ok(""), Ok("{}")),
        ("/latest/meta-data/cpus", Err(Missing::Text), Ok("2")),
        ("/latest/meta-data/public-keys", Err(Missing::Text), Ok("[{\"key\":\"ssh-ed25519 A\"}]")),
        ("/latest/meta-data/public-keys/0", Ok("key"), Ok("{\"key\":\"ssh-ed25519 A\"}")),
        ("/latest/meta-data/public-keys/0/key", Ok("ssh-ed25519 A"), Ok("\"ssh-ed25519 A\"")),
        ("/latest/meta-data/public-keys/1", Err(Missing::Path), Err(Missing::Path)),
        ("/latest/meta-data/public-keys/-1", Err(Missing::Path), Err(Missing::Path)),
        ("/latest/user-data", Ok("#!/bin/sh\necho \"hi\"\n"), Ok(r##""#!/bin/sh\necho \"hi\"\n""##)),
        ("/latest/user-data/0", Err(Missing::Path), Err(Missing::Path)),
        ("/a~1b~0c", Ok(""), Ok("{\"\":\"hidden\"}")),
        ("/Latest", Err(Missing::Path), Err(Missing::Path)),
    ];
    for (path, as_text, as_json) in cases {
        assert_eq!(text(&document, path).as_deref().map_err(|missing| *missing), *as_text, "{path}");
        assert_eq!(json_at(&document, path).as_deref().map_err(|missing| *missing), *as_json, "{path}");
    }
}

/// The examples of RFC 7396, appendix A.
#[test]
fn patches_merge_as_the_standard_says() {
    let cases = [
        (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
        (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
        (r#"{"a":"b"}"#, r#"{"a":null}"#, "{}"),
        (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
        (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
        (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#),
        (r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a":{"b":"d"}}"#),
        (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
        (r#"["a","b"]"#, r#"["c","d"]"#, r#"["c","d"]"#),
        (r#"{"a":"b"}"#, r#"["c"]"#, r#"["c"]"#),
        (r#"{"a":"foo"}"#, "null", "null"),
        (r#"{"a":"foo"}"#, r#""bar""#, r#""bar""#),
        (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"a":1,"e":null}"#),
        ("[1,2]", r#"{"a":"b","c":null}"#, r#"{"a":"b"}"#),
        ("{}", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
    ];
    for (target, patch, merged) in cases {
        let mut value: Value = serde_json::from_str(target).unwrap();
        merge(&mut value, serde_json::from_str(patch).unwrap());
        assert_eq!(value.to_string(), merged, "{target} patched by {patch}");
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::btree_map("[a-z/~\"]{0,3}", inner, 0..8)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn every_part_is_the_json_that_serde_writes(value in any_value()) {
        fn check(document: &Document, path: &str, value: &Value) {
            let found = document.find(path, Form::Json).map(|piece| piece.as_str().to_owned());
            assert_eq!(found, Ok(value.to_string()), "{path}");
            match value {
                Value::Object(members) => {
                    for (name, member) in members.iter().filter(|(name, _)| !name.is_empty()) {
                        check(document, &format!("{path}/{}", name.replace('~', "~0").replace('/', "~1")), member);
                    }
                }
                Value::Array(items) => {
                    for (number, item) in items.iter().enumerate() {
                        check(document, &format!("{path}/{number}"), item);
                    }
                }
                _ => {}
            }
        }
        check(&Document::new(&value), "", &value);
    }
}
