//! Attributes: which code is for tests only, and which may be unsafe.

use proc_macro2::{TokenStream, TokenTree};
use syn::punctuated::Punctuated;
use syn::{Attribute, Expr, ImplItem, Item, Meta, Token, TraitItem};

/// Whether what carries these attributes is left out of every build but the tests'.
pub fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::Path(path) => path.is_ident("test"),
        Meta::List(list) if list.path.is_ident("cfg") => {
            list.parse_args().is_ok_and(|condition| needs_test(&condition))
        }
        _ => false,
    })
}

/// Whether a condition holds in tests alone. A feature for tests is a build like any other.
fn needs_test(condition: &Meta) -> bool {
    match condition {
        Meta::Path(path) => path.is_ident("test"),
        Meta::List(list) => {
            let inner = list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated);
            let inner: Vec<Meta> = inner.map(IntoIterator::into_iter).into_iter().flatten().collect();
            match list.path.get_ident().map(ToString::to_string).as_deref() {
                Some("all") => inner.iter().any(needs_test),
                Some("any") => !inner.is_empty() && inner.iter().all(needs_test),
                _ => false,
            }
        }
        Meta::NameValue(_) => false,
    }
}

/// Whether an attribute lets unsafe code pass the compiler: `allow`, `warn` or `expect`, also inside `cfg_attr`.
pub fn allows_unsafe(attribute: &Attribute) -> bool {
    match &attribute.meta {
        Meta::List(list) => {
            let weakens = ["allow", "warn", "expect"].iter().any(|level| list.path.is_ident(level));
            (weakens || list.path.is_ident("cfg_attr")) && mentions(&list.tokens, weakens)
        }
        _ => false,
    }
}

/// Whether the lint is named, in a list that weakens it.
fn mentions(tokens: &TokenStream, weakens: bool) -> bool {
    let mut before = None;
    tokens.clone().into_iter().any(|tree| match tree {
        TokenTree::Ident(ident) => {
            let found = weakens && ident == "unsafe_code";
            before = Some(ident.to_string());
            found
        }
        TokenTree::Group(group) => {
            let level = before.take();
            mentions(&group.stream(), matches!(level.as_deref(), Some("allow" | "warn" | "expect")))
        }
        _ => false,
    })
}

pub fn of_item(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::TraitAlias(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

pub fn of_impl_item(item: &ImplItem) -> &[Attribute] {
    match item {
        ImplItem::Const(item) => &item.attrs,
        ImplItem::Fn(item) => &item.attrs,
        ImplItem::Macro(item) => &item.attrs,
        ImplItem::Type(item) => &item.attrs,
        _ => &[],
    }
}

pub fn of_trait_item(item: &TraitItem) -> &[Attribute] {
    match item {
        TraitItem::Const(item) => &item.attrs,
        TraitItem::Fn(item) => &item.attrs,
        TraitItem::Macro(item) => &item.attrs,
        TraitItem::Type(item) => &item.attrs,
        _ => &[],
    }
}

/// For the expressions that stand as statements.
pub fn of_expression(expression: &Expr) -> &[Attribute] {
    match expression {
        Expr::Assign(inner) => &inner.attrs,
        Expr::Block(inner) => &inner.attrs,
        Expr::Call(inner) => &inner.attrs,
        Expr::ForLoop(inner) => &inner.attrs,
        Expr::If(inner) => &inner.attrs,
        Expr::Macro(inner) => &inner.attrs,
        Expr::Match(inner) => &inner.attrs,
        Expr::MethodCall(inner) => &inner.attrs,
        Expr::Unsafe(inner) => &inner.attrs,
        _ => &[],
    }
}
