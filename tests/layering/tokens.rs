//! Paths in the tokens of macros, which no parser can understand without expanding them.

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// What a scan finds, with its line.
pub enum Found {
    Path(Vec<String>, usize),
    Unsafe(usize),
}

/// Reports every path in `stream`, `{..}` groups after `::` opened up, and every `unsafe`.
pub fn scan(stream: &TokenStream, report: &mut dyn FnMut(Found)) {
    scan_below(stream, &[], report);
}

fn scan_below(stream: &TokenStream, prefix: &[String], report: &mut dyn FnMut(Found)) {
    let trees: Vec<TokenTree> = stream.clone().into_iter().collect();
    let mut at = 0;
    while let Some(tree) = trees.get(at) {
        match tree {
            TokenTree::Group(group) => scan_below(&group.stream(), prefix, report),
            TokenTree::Ident(ident) if ident == "unsafe" => report(Found::Unsafe(ident.span().start().line)),
            TokenTree::Ident(ident) => {
                let line = ident.span().start().line;
                let path = Path::read(&trees, at);
                let counts = path.counts(&trees, at, !prefix.is_empty());
                at = path.end;
                let full: Vec<String> = prefix.iter().cloned().chain(path.names).collect();
                match trees.get(at) {
                    Some(TokenTree::Group(group)) if path.open && group.delimiter() == Delimiter::Brace => {
                        scan_below(&group.stream(), &full, report);
                        at += 1;
                    }
                    _ if counts => report(Found::Path(without_self(full), line)),
                    _ => {}
                }
                continue;
            }
            _ => {}
        }
        at += 1;
    }
}

/// `a::{self}` names `a`.
fn without_self(mut path: Vec<String>) -> Vec<String> {
    if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
        path.pop();
    }
    path
}

struct Path {
    names: Vec<String>,
    /// The first token after it.
    end: usize,
    /// It ends with `::`.
    open: bool,
}

impl Path {
    fn read(trees: &[TokenTree], start: usize) -> Self {
        let mut path = Self { names: Vec::new(), end: start, open: false };
        while let Some(TokenTree::Ident(ident)) = trees.get(path.end) {
            path.names.push(ident.to_string());
            path.end += 1;
            path.open = is_colon(trees, path.end) && is_colon(trees, path.end + 1);
            if !path.open {
                break;
            }
            path.end += 2;
        }
        path
    }

    /// Whether it can name an item: not a field or method, its name in a literal, a lifetime, or the tail of another path.
    fn counts(&self, trees: &[TokenTree], start: usize, in_group: bool) -> bool {
        let before = |back: usize| match start.checked_sub(back).and_then(|place| trees.get(place)) {
            Some(TokenTree::Punct(punct)) => punct.as_char(),
            _ => ' ',
        };
        let member = before(1) == '.' && before(2) != '.';
        let tail = before(1) == ':' && before(2) == ':';
        let field = self.names.len() == 1 && !self.open && is_colon(trees, self.end);
        let renamed = in_group
            && matches!(start.checked_sub(1).and_then(|place| trees.get(place)), Some(TokenTree::Ident(word)) if word == "as");
        !member && !tail && !field && !renamed && before(1) != '\''
    }
}

fn is_colon(trees: &[TokenTree], at: usize) -> bool {
    matches!(trees.get(at), Some(TokenTree::Punct(punct)) if punct.as_char() == ':')
}
