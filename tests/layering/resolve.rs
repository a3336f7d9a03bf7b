//! From a path in the code to the file that defines what it names, over imports and re-exports.

use std::collections::BTreeSet;

use crate::program::{Program, Reference};

/// What a path leads to.
#[derive(Default)]
pub struct Reached {
    /// Modules that the path goes through, and those that define what it names.
    pub through: BTreeSet<usize>,
    /// Modules that define what it names. A path to a module itself has none.
    pub definers: BTreeSet<usize>,
}

enum Answer {
    /// Found, or known to lie in another crate.
    Known,
    /// Not here; the last module that the path reached, unless it is the one that it started in.
    Unknown(Option<usize>),
}

/// Follows a reference of `module`.
pub fn resolve(program: &Program, module: usize, reference: &Reference) -> Reached {
    let mut reached = Reached::default();
    let mut walk = Walk { program, open: BTreeSet::new() };
    if let Answer::Unknown(Some(last)) = walk.follow(module, &reference.path, true, &mut reached) {
        // The name comes from a macro, or is one that the reader does not understand: its module answers for it.
        reached.through.insert(last);
        reached.definers.insert(last);
    }
    reached
}

struct Walk<'a> {
    program: &'a Program,
    /// The imports that are being followed, by module and place in it. No import helps to find its own target, and some
    /// lead round in a circle.
    open: BTreeSet<(usize, usize)>,
}

impl Walk<'_> {
    /// Looks for `path` in the module `at`; `first` says that it starts there, so that it may name another crate.
    fn follow(&mut self, at: usize, path: &[String], first: bool, reached: &mut Reached) -> Answer {
        let Some((head, rest)) = path.split_first() else {
            reached.through.insert(at);
            return Answer::Known;
        };
        match head.as_str() {
            "crate" => self.follow(0, rest, false, reached),
            "self" => self.follow(at, rest, false, reached),
            "super" => self.follow(self.program.modules[at].parent.unwrap_or(at), rest, false, reached),
            _ => self.look_up(at, path, first, reached),
        }
    }

    fn look_up(&mut self, at: usize, path: &[String], first: bool, reached: &mut Reached) -> Answer {
        let (module, head, rest) = (&self.program.modules[at], &path[0], &path[1..]);
        if !first {
            reached.through.insert(at);
        }
        let mut found = None;
        // Behind a name that is a function's and a module's, only the module's has names of its own.
        let is_module = !rest.is_empty() && module.children.contains_key(head);
        if module.definitions.contains(head) && !is_module {
            reached.through.insert(at);
            reached.definers.insert(at);
            found = Some(Answer::Known);
        }
        if let Some(child) = module.children.get(head) {
            found = Some(self.follow(*child, rest, false, reached));
        }
        for (index, import) in
            module.imports.iter().enumerate().filter(|(_, import)| import.name.as_ref() == Some(head))
        {
            found = match self.follow_import(at, index, &joined(&import.path, rest), reached) {
                // Another crate's.
                Some(Answer::Unknown(None) | Answer::Known) => Some(Answer::Known),
                Some(unknown) => Some(unknown),
                None => found,
            };
        }
        found.or_else(|| self.look_behind_stars(at, path, reached)).unwrap_or(Answer::Unknown((!first).then_some(at)))
    }

    /// Looks for a name behind `use x::*`.
    fn look_behind_stars(&mut self, at: usize, path: &[String], reached: &mut Reached) -> Option<Answer> {
        let imports = &self.program.modules[at].imports;
        for (index, import) in imports.iter().enumerate().filter(|(_, import)| import.name.is_none()) {
            let mut tried = Reached::default();
            let answer = self.follow_import(at, index, &joined(&import.path, path), &mut tried);
            if let Some(Answer::Known) = answer {
                reached.through.append(&mut tried.through);
                reached.definers.append(&mut tried.definers);
                return answer;
            }
        }
        None
    }

    /// `None` if that import is being followed already.
    fn follow_import(&mut self, at: usize, index: usize, path: &[String], reached: &mut Reached) -> Option<Answer> {
        if !self.open.insert((at, index)) {
            return None;
        }
        let answer = self.follow(at, path, true, reached);
        self.open.remove(&(at, index));
        Some(answer)
    }
}

fn joined(front: &[String], back: &[String]) -> Vec<String> {
    front.iter().chain(back).cloned().collect()
}
