//! How two answers to one request differ.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Answer;

/// Each difference in a word or two: `status 204, 400` (here, there), `text` of a fault, `form` if it is no fault as the
/// specification has it there, `header NAME`, and what is wrong with a member of the JSON: `MEMBER here`, `MEMBER there` if only one has it, `MEMBER type`, `MEMBER length` or `MEMBER value`.
pub fn differences(here: &Answer, there: &Answer) -> Vec<String> {
    if here.status != there.status {
        return vec![format!("status {}, {}", here.status, there.status)];
    }
    let mut found = header_differences(here, there);
    match (here.text.is_empty(), there.text.is_empty()) {
        (true, true) => {}
        (false, false) if here.status == 200 => value_differences("", &here.json(), &there.json(), &mut found),
        (false, false) => match fault(there) {
            Some(text) if text == here.fault() => {}
            Some(_) => found.push("text".to_owned()),
            None => found.push("form".to_owned()),
        },
        _ => found.push("body".to_owned()),
    }
    found
}

/// The text of a fault, which is JSON with that one member.
fn fault(answer: &Answer) -> Option<String> {
    let value: Value = serde_json::from_str(&answer.text).ok()?;
    let members = value.as_object().filter(|members| members.len() == 1)?;
    members.get("fault_message")?.as_str().map(str::to_owned)
}

fn header_differences(here: &Answer, there: &Answer) -> Vec<String> {
    let (here, there) = (headers(here), headers(there));
    let names: BTreeSet<&String> = here.keys().chain(there.keys()).collect();
    // The length is that of the text.
    let differs = |name: &&String| name.as_str() != "content-length" && here.get(*name) != there.get(*name);
    names.into_iter().filter(differs).map(|name| format!("header {name}")).collect()
}

fn headers(answer: &Answer) -> BTreeMap<String, String> {
    let lines = answer.head.lines().skip(1).filter_map(|line| line.split_once(':'));
    lines.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect()
}

fn value_differences(at: &str, here: &Value, there: &Value, found: &mut Vec<String>) {
    match (here, there) {
        (Value::Object(ours), Value::Object(theirs)) => {
            let names: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
            for name in names {
                let at = format!("{at}/{name}");
                match (ours.get(name), theirs.get(name)) {
                    (Some(here), Some(there)) => value_differences(&at, here, there, found),
                    (Some(_), None) => found.push(format!("{at} here")),
                    _ => found.push(format!("{at} there")),
                }
            }
        }
        (Value::Array(ours), Value::Array(theirs)) if ours.len() == theirs.len() => {
            // The order of drives that a guest has is another one each time there.
            let (ours, theirs) = (by_drive(ours), by_drive(theirs));
            for (index, (here, there)) in ours.into_iter().zip(theirs).enumerate() {
                value_differences(&format!("{at}/{index}"), here, there, found);
            }
        }
        (Value::Array(_), Value::Array(_)) => found.push(format!("{at} length")),
        _ if here == there => {}
        _ if std::mem::discriminant(here) == std::mem::discriminant(there) => found.push(format!("{at} value")),
        _ => found.push(format!("{at} type")),
    }
}

fn by_drive(list: &[Value]) -> Vec<&Value> {
    let mut list: Vec<&Value> = list.iter().collect();
    list.sort_by_key(|item| item.get("drive_id").and_then(Value::as_str));
    list
}
