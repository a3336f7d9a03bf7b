//! What the guest can read: a JSON document, laid out so that the text of any part of it is at hand.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use serde_json::Value;

/// A document. All its texts are written when it is made, by the host program's thread: the I/O thread only looks them up.
pub(super) struct Document {
    /// The whole as JSON. Each part's JSON is a piece of it.
    json: Arc<str>,
    /// What text clients are given, one behind the other.
    texts: Arc<str>,
    root: Node,
}

/// A piece of a text that others have pieces of, too.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    whole: Arc<str>,
    range: Range<usize>,
}

/// How a part of the document is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Json,
    /// A string as it is, and an object as the list of its keys.
    Text,
}

/// Why there is no such text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// The document has nothing at that path.
    Path,
    /// What it has there is neither a string nor an object.
    Text,
}

struct Node {
    json: Range<usize>,
    text: Option<Range<usize>>,
    children: Children,
}

enum Children {
    None,
    Items(Vec<Node>),
    Members(BTreeMap<String, Node>),
}

impl Document {
    pub(super) fn new(value: &Value) -> Self {
        let (mut json, mut texts) = (String::new(), String::new());
        let root = lay_out(value, &mut json, &mut texts);
        Self { json: json.into(), texts: texts.into(), root }
    }

    pub(super) fn json(&self) -> &Arc<str> {
        &self.json
    }

    /// Looks a path up: names of members and numbers of items, with slashes in between, as in a JSON pointer (RFC 6901). More
    /// slashes than one are one, and one at the end means nothing.
    pub(super) fn find(&self, path: &str, form: Form) -> Result<Piece, Missing> {
        let steps = path.split('/').filter(|step| !step.is_empty());
        let node = steps.into_iter().try_fold(&self.root, |node, step| node.child(&unescaped(step)));
        let node = node.ok_or(Missing::Path)?;
        match (form, &node.text) {
            (Form::Json, _) => Ok(Piece { whole: Arc::clone(&self.json), range: node.json.clone() }),
            (Form::Text, Some(text)) => Ok(Piece { whole: Arc::clone(&self.texts), range: text.clone() }),
            (Form::Text, None) => Err(Missing::Text),
        }
    }
}

impl Node {
    fn child(&self, step: &str) -> Option<&Self> {
        match &self.children {
            Children::None => None,
            Children::Items(items) => items.get(step.parse::<usize>().ok()?),
            Children::Members(members) => members.get(step),
        }
    }
}

impl Piece {
    pub(super) fn as_str(&self) -> &str {
        self.whole.get(self.range.clone()).unwrap_or_default()
    }
}

fn unescaped(step: &str) -> Cow<'_, str> {
    if step.contains('~') { step.replace("~1", "/").replace("~0", "~").into() } else { step.into() }
}

/// Writes a value behind what is there. A text that was parsed has at most 128 levels, and this as many calls.
fn lay_out(value: &Value, json: &mut String, texts: &mut String) -> Node {
    let begun = json.len();
    let (text, children) = match value {
        Value::Object(members) => {
            let text = listing(members, texts);
            let mut laid_out = BTreeMap::new();
            for (name, member) in members {
                json.push(if laid_out.is_empty() { '{' } else { ',' });
                json.push_str(&quoted(name));
                json.push(':');
                laid_out.insert(name.clone(), lay_out(member, json, texts));
            }
            json.push_str(if laid_out.is_empty() { "{}" } else { "}" });
            (Some(text), Children::Members(laid_out))
        }
        Value::Array(items) => {
            let mut laid_out = Vec::with_capacity(items.len());
            for item in items {
                json.push(if laid_out.is_empty() { '[' } else { ',' });
                laid_out.push(lay_out(item, json, texts));
            }
            json.push_str(if laid_out.is_empty() { "[]" } else { "]" });
            (None, Children::Items(laid_out))
        }
        Value::String(string) => {
            json.push_str(&quoted(string));
            (Some(appended(texts, string)), Children::None)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {
            json.push_str(&value.to_string());
            (None, Children::None)
        }
    };
    Node { json: begun..json.len(), text, children }
}

/// The keys, one a line, with a slash behind those of objects.
fn listing(members: &serde_json::Map<String, Value>, texts: &mut String) -> Range<usize> {
    let line = |(name, member): (&String, &Value)| if member.is_object() { format!("{name}/") } else { name.clone() };
    let lines: Vec<_> = members.iter().map(line).collect();
    appended(texts, &lines.join("\n"))
}

fn appended(texts: &mut String, text: &str) -> Range<usize> {
    let begun = texts.len();
    texts.push_str(text);
    begun..texts.len()
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// Changes `target` as `patch` says (JSON merge patch, RFC 7396).
pub(super) fn merge(target: &mut Value, patch: Value) {
    let Value::Object(changes) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Value::Object(members) = target else { return };
    for (name, change) in changes {
        if change.is_null() {
            members.remove(&name);
        } else {
            merge(members.entry(name).or_insert(Value::Null), change);
        }
    }
}

#[cfg(test)]
#[path = "document_test.rs"]
mod tests;
