//! The rules that a program is held to. Each gives its violations, as lines for a person to read.

use std::collections::{BTreeMap, BTreeSet};

use crate::program::Program;
use crate::resolve::resolve;

/// Which rooms stand below which.
pub struct House<'a> {
    /// Lowest first; the rooms of one line never use each other.
    pub ranks: &'a [&'a [&'a str]],
    /// Rooms that may be unsafe, and single files.
    pub unsafe_rooms: &'a [&'a str],
    /// The room that may use every other, and that none may use.
    pub apart: &'a str,
}

impl House<'_> {
    fn rank(&self, room: &str) -> Option<usize> {
        self.ranks.iter().position(|rooms| rooms.contains(&room))
    }

    /// Uses of rooms that are not of a lower rank, and rooms without a rank.
    pub fn forbidden_uses(&self, program: &Program) -> Vec<String> {
        let mut wrong = BTreeSet::new();
        for (index, module) in program.modules.iter().enumerate() {
            let Some(own) = program.room(index).filter(|room| *room != self.apart) else { continue };
            let Some(rank) = self.rank(own) else {
                wrong.insert(format!("{}: the room {own} has no rank", module.file));
                continue;
            };
            for reference in &module.references {
                let reached = resolve(program, index, reference);
                let rooms = reached.through.union(&reached.definers).filter_map(|used| program.room(*used));
                for used in rooms.filter(|used| *used != own) {
                    if self.rank(used).is_none_or(|lower| lower >= rank) {
                        let (file, line, path) = (&module.file, reference.line, reference.path.join("::"));
                        wrong.insert(format!("{file}:{line}: {own} uses {used} ({path})"));
                    }
                }
            }
        }
        wrong.into_iter().collect()
    }

    /// Unsafe code in rooms that may have none.
    pub fn forbidden_unsafe(&self, program: &Program) -> Vec<String> {
        let mut wrong = BTreeSet::new();
        for (index, module) in program.modules.iter().enumerate() {
            let room = program.room(index).unwrap_or("root");
            let may = self.unsafe_rooms.contains(&room) || self.unsafe_rooms.contains(&module.file.as_str());
            for line in module.unsafe_lines.iter().filter(|_| !may) {
                wrong.insert(format!("{}:{line}: unsafe in the room {room}", module.file));
            }
        }
        wrong.into_iter().collect()
    }
}

/// Files that need each other, directly or over others.
pub struct Circle {
    pub files: Vec<String>,
    /// One line for each use that holds it together.
    pub uses: Vec<String>,
}

/// For each file, the files that it uses, with one place as an example.
type Graph = BTreeMap<String, BTreeMap<String, String>>;

/// All circles among the files of a program.
pub fn circles(program: &Program) -> Vec<Circle> {
    let graph = graph(program);
    let reach: BTreeMap<&str, BTreeSet<&str>> =
        graph.keys().map(|file| (file.as_str(), reachable(&graph, file))).collect();
    let mut found: Vec<Circle> = Vec::new();
    for (file, targets) in &reach {
        if !targets.contains(file) || found.iter().any(|circle| circle.files.iter().any(|known| known == file)) {
            continue;
        }
        let together = |other: &&&str| reach.get(**other).is_some_and(|back| back.contains(file));
        let files: Vec<String> = targets.iter().filter(together).map(ToString::to_string).collect();
        let uses = files.iter().flat_map(|from| &graph[from]).filter(|(to, _)| files.contains(to));
        let uses = uses.map(|(_, example)| example.clone()).collect();
        found.push(Circle { files, uses });
    }
    found
}

fn graph(program: &Program) -> Graph {
    let mut graph = Graph::new();
    for (index, module) in program.modules.iter().enumerate() {
        for reference in &module.references {
            for definer in resolve(program, index, reference).definers {
                let target = &program.modules[definer];
                // A parent that passes on what its children define does not use it.
                let passes_on = reference.re_export && target.path.starts_with(&module.path);
                if target.file != module.file && !passes_on {
                    let (from, to, path) = (&module.file, &target.file, reference.path.join("::"));
                    let example = || format!("{from}:{}: uses {to} ({path})", reference.line);
                    graph.entry(from.clone()).or_default().entry(to.clone()).or_insert_with(example);
                }
            }
        }
    }
    graph
}

fn reachable<'a>(graph: &'a Graph, from: &str) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut next = vec![from];
    while let Some(file) = next.pop() {
        for to in graph.get(file).into_iter().flat_map(BTreeMap::keys) {
            if found.insert(to.as_str()) {
                next.push(to);
            }
        }
    }
    found
}
