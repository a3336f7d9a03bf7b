//! From source text to a [`Program`]: follows `mod` from the root, and notes every path that product code names.

use std::collections::BTreeMap;

use proc_macro2::{Ident, TokenStream};
use syn::visit::{self, Visit};
use syn::{Attribute, Item, UseTree, Visibility};

use crate::attributes::{allows_unsafe, is_for_tests, of_expression, of_impl_item, of_item, of_trait_item};
use crate::program::{Import, Module, Program, Reference};
use crate::tokens::{self, Found};

/// Reads a crate from its files (name relative to the root's folder, text), starting at `root`.
pub fn read(files: &BTreeMap<String, String>, root: &str) -> Program {
    let mut reader = Reader { files, program: Program::default(), module: 0 };
    reader.program.modules.push(Module { file: root.to_owned(), ..Module::default() });
    reader.read_file();
    reader.program
}

struct Reader<'a> {
    files: &'a BTreeMap<String, String>,
    program: Program,
    /// The module that is being read.
    module: usize,
}

impl Reader<'_> {
    fn here(&mut self) -> &mut Module {
        &mut self.program.modules[self.module]
    }

    fn cannot_read(&mut self, line: usize, reason: &str) {
        let file = &self.program.modules[self.module].file;
        self.program.unreadable.push(format!("{file}:{line}: {reason}"));
    }

    /// Reads the file of the present module, which the module's `file` names.
    fn read_file(&mut self) {
        let text = &self.files[&self.here().file];
        match syn::parse_file(text) {
            Ok(file) => {
                self.note_attributes(&file.attrs);
                self.read_items(&file.items);
            }
            Err(error) => self.cannot_read(error.span().start().line, &error.to_string()),
        }
    }

    fn read_items(&mut self, items: &[Item]) {
        for item in items.iter().filter(|item| !is_for_tests(of_item(item))) {
            if let Item::Mod(child) = item {
                self.read_module(child);
                continue;
            }
            if let Some(name) = defined_name(item) {
                self.here().definitions.insert(name.to_string());
            }
            self.visit_item(item);
        }
    }

    fn read_module(&mut self, item: &syn::ItemMod) {
        let (name, line) = (item.ident.to_string(), item.ident.span().start().line);
        if item.attrs.iter().any(|attribute| attribute.path().is_ident("path")) {
            return self.cannot_read(line, "#[path] is for tests only");
        }
        self.note_attributes(&item.attrs);
        let mut path = self.here().path.clone();
        path.push(name.clone());
        let file = match &item.content {
            Some(_) => Some(self.here().file.clone()),
            None => [path.join("/") + ".rs", path.join("/") + "/mod.rs"]
                .into_iter()
                .find(|file| self.files.contains_key(file)),
        };
        let Some(file) = file else {
            return self.cannot_read(line, &format!("there is no file for the module {name}"));
        };
        let (parent, child) = (self.module, self.program.modules.len());
        self.here().children.insert(name, child);
        self.program.modules.push(Module { path, parent: Some(parent), file, ..Module::default() });
        self.module = child;
        match &item.content {
            Some((_, items)) => self.read_items(items),
            None => self.read_file(),
        }
        self.module = parent;
    }

    fn read_use(&mut self, tree: &UseTree, mut path: Vec<String>, re_export: bool) {
        match tree {
            UseTree::Path(step) => {
                path.push(step.ident.to_string());
                self.read_use(&step.tree, path, re_export);
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.read_use(tree, path.clone(), re_export);
                }
            }
            UseTree::Name(leaf) if leaf.ident == "self" => {
                let name = path.last().cloned();
                self.import(name, path, &leaf.ident, re_export);
            }
            UseTree::Name(leaf) => {
                path.push(leaf.ident.to_string());
                self.import(Some(leaf.ident.to_string()), path, &leaf.ident, re_export);
            }
            UseTree::Rename(leaf) => {
                if leaf.ident != "self" {
                    path.push(leaf.ident.to_string());
                }
                self.import(Some(leaf.rename.to_string()), path, &leaf.ident, re_export);
            }
            UseTree::Glob(star) => {
                let line = star.star_token.span.start().line;
                self.here().imports.push(Import { name: None, path: path.clone() });
                self.here().references.push(Reference { path, line, re_export });
            }
        }
    }

    fn import(&mut self, name: Option<String>, path: Vec<String>, at: &Ident, re_export: bool) {
        self.here().imports.push(Import { name, path: path.clone() });
        self.here().references.push(Reference { path, line: at.span().start().line, re_export });
    }

    fn refer(&mut self, path: Vec<String>, line: usize) {
        if path.first().is_some_and(|first| first != "Self") {
            self.here().references.push(Reference { path, line, re_export: false });
        }
    }

    fn note_unsafe(&mut self, line: usize) {
        self.here().unsafe_lines.push(line);
    }

    fn note_attributes(&mut self, attributes: &[Attribute]) {
        attributes.iter().for_each(|attribute| self.visit_attribute(attribute));
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_for_tests(of_item(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item(&mut self, item: &'ast syn::ImplItem) {
        if !is_for_tests(of_impl_item(item)) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_trait_item(&mut self, item: &'ast syn::TraitItem) {
        if !is_for_tests(of_trait_item(item)) {
            visit::visit_trait_item(self, item);
        }
    }

    fn visit_expr(&mut self, expression: &'ast syn::Expr) {
        if !is_for_tests(of_expression(expression)) {
            visit::visit_expr(self, expression);
        }
    }

    fn visit_stmt_macro(&mut self, statement: &'ast syn::StmtMacro) {
        if !is_for_tests(&statement.attrs) {
            visit::visit_stmt_macro(self, statement);
        }
    }

    fn visit_local(&mut self, local: &'ast syn::Local) {
        if !is_for_tests(&local.attrs) {
            visit::visit_local(self, local);
        }
    }

    fn visit_arm(&mut self, arm: &'ast syn::Arm) {
        if !is_for_tests(&arm.attrs) {
            visit::visit_arm(self, arm);
        }
    }

    fn visit_field(&mut self, field: &'ast syn::Field) {
        if !is_for_tests(&field.attrs) {
            visit::visit_field(self, field);
        }
    }

    fn visit_field_value(&mut self, field: &'ast syn::FieldValue) {
        if !is_for_tests(&field.attrs) {
            visit::visit_field_value(self, field);
        }
    }

    fn visit_variant(&mut self, variant: &'ast syn::Variant) {
        if !is_for_tests(&variant.attrs) {
            visit::visit_variant(self, variant);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        // A leading `::` names another crate.
        if item.leading_colon.is_none() {
            self.read_use(&item.tree, Vec::new(), !matches!(item.vis, Visibility::Inherited));
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if let (None, Some(first)) = (path.leading_colon, path.segments.first()) {
            let names = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
            self.refer(names, first.ident.span().start().line);
        }
        visit::visit_path(self, path);
    }

    fn visit_pat_ident(&mut self, pattern: &'ast syn::PatIdent) {
        // `MAX => ..` is read as a new variable, but names a constant.
        if pattern.ident.to_string().starts_with(char::is_uppercase) {
            self.refer(vec![pattern.ident.to_string()], pattern.ident.span().start().line);
        }
        visit::visit_pat_ident(self, pattern);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        if call.path.is_ident("include") {
            self.cannot_read(call.bang_token.span.start().line, "include! hides code from the reader");
        }
        visit::visit_macro(self, call);
    }

    /// The inside of macros, and code that `syn` leaves alone.
    fn visit_token_stream(&mut self, stream: &'ast TokenStream) {
        tokens::scan(stream, &mut |found| match found {
            Found::Path(path, line) => self.refer(path, line),
            Found::Unsafe(line) => self.note_unsafe(line),
        });
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        let line = attribute.pound_token.span.start().line;
        if attribute.path().is_ident("unsafe") || allows_unsafe(attribute) {
            self.note_unsafe(line);
        }
        // Not the arguments of `cfg`, `doc` and the like, which are single words.
        if let syn::Meta::List(list) = &attribute.meta {
            tokens::scan(&list.tokens, &mut |found| match found {
                Found::Path(path, line) if path.len() > 1 => self.refer(path, line),
                _ => {}
            });
        }
    }

    fn visit_visibility(&mut self, _: &'ast Visibility) {
        // `pub(super)` uses nothing.
    }

    fn visit_expr_unsafe(&mut self, block: &'ast syn::ExprUnsafe) {
        self.note_unsafe(block.unsafe_token.span.start().line);
        visit::visit_expr_unsafe(self, block);
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if let Some(token) = item.unsafety {
            self.note_unsafe(token.span.start().line);
        }
        visit::visit_item_impl(self, item);
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        if let Some(token) = item.unsafety {
            self.note_unsafe(token.span.start().line);
        }
        visit::visit_item_trait(self, item);
    }

    fn visit_item_foreign_mod(&mut self, item: &'ast syn::ItemForeignMod) {
        self.note_unsafe(item.abi.extern_token.span.start().line);
        visit::visit_item_foreign_mod(self, item);
    }

    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        if let syn::Safety::Unsafe(token) = signature.safety {
            self.note_unsafe(token.span.start().line);
        }
        visit::visit_signature(self, signature);
    }
}

fn defined_name(item: &Item) -> Option<&Ident> {
    match item {
        Item::Const(item) => Some(&item.ident),
        Item::Enum(item) => Some(&item.ident),
        Item::Fn(item) => Some(&item.sig.ident),
        Item::Macro(item) => item.ident.as_ref(),
        Item::Static(item) => Some(&item.ident),
        Item::Struct(item) => Some(&item.ident),
        Item::Trait(item) => Some(&item.ident),
        Item::TraitAlias(item) => Some(&item.ident),
        Item::Type(item) => Some(&item.ident),
        Item::Union(item) => Some(&item.ident),
        _ => None,
    }
}
