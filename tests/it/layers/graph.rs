//! Determines which files name items of which other files. A path is followed through every
//! re-export to the file that defines the item, so that a parent's `pub use` hides no dependency.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::parse::{self, Module};

/// The sources of the crate: each file by its path below `src/`.
pub(super) type Sources = BTreeMap<String, String>;

/// For each node, the nodes that it depends on, each with the path that causes the dependency.
pub(super) type Graph = BTreeMap<String, BTreeMap<String, String>>;

/// A module with the file that it is in.
struct Placed {
    file: String,
    module: Module,
}

/// The modules of a crate by path.
struct Crate(BTreeMap<Vec<String>, Placed>);

/// The graph of the files, without tests.
pub(super) fn of_files(sources: &Sources) -> Graph {
    let modules = Crate::read(sources);
    let mut graph = Graph::new();
    for placed in modules.0.values() {
        let edges = graph.entry(placed.file.clone()).or_default();
        for (file, path) in modules.dependencies(&placed.module) {
            if file != placed.file {
                edges.entry(file).or_insert(path);
            }
        }
    }
    graph
}

/// `gateway/rule/header.rs` → `gateway`.
pub(super) fn top_level(file: &str) -> &str {
    file.split(['/', '.']).next().unwrap_or(file)
}

/// The graph of the top-level modules.
pub(super) fn of_top_level(files: &Graph) -> Graph {
    let mut graph = Graph::new();
    for (from, edges) in files {
        for (to, path) in edges {
            let (from_module, to_module) = (top_level(from), top_level(to));
            if from_module != to_module && to_module != "lib" && from_module != "lib" {
                let edges = graph.entry(from_module.to_owned()).or_default();
                edges
                    .entry(to_module.to_owned())
                    .or_insert(format!("{path} in {from}"));
            }
        }
    }
    graph
}

/// Removes the edges from a file to the files that it is a part of.
pub(super) fn without_ancestors(mut files: Graph) -> Graph {
    for (from, edges) in &mut files {
        edges.retain(|to, _| !is_ancestor(to, from));
    }
    files
}

fn is_ancestor(ancestor: &str, file: &str) -> bool {
    let folder = ancestor.strip_suffix("rs").map(|s| s.replace('.', "/"));
    ancestor == "lib.rs" || folder.is_some_and(|folder| file.starts_with(&folder))
}

/// The shortest cycle through each group of nodes that depend on each other, written out.
pub(super) fn cycles(graph: &Graph) -> Vec<String> {
    let mut reported = BTreeSet::new();
    let mut cycles = Vec::new();
    for node in graph.keys() {
        if reported.contains(node) {
            continue;
        }
        if let Some(cycle) = shortest_cycle(graph, node) {
            reported.extend(reachable_both_ways(graph, node));
            let steps = cycle.windows(2).map(|pair| {
                let path = &graph[&pair[0]][&pair[1]];
                format!("\n    {} → {} by {path}", pair[0], pair[1])
            });
            cycles.push(format!("cycle:{}", steps.collect::<String>()));
        }
    }
    cycles
}

/// The nodes on a shortest path from `start` back to it.
fn shortest_cycle(graph: &Graph, start: &String) -> Option<Vec<String>> {
    let mut came_from: BTreeMap<&String, &String> = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(node) = queue.pop_front() {
        for next in graph.get(node).into_iter().flat_map(BTreeMap::keys) {
            if next == start {
                let mut cycle = vec![start.clone(), node.clone()];
                let mut at = node;
                while let Some(before) = came_from.get(at).copied() {
                    at = before;
                    cycle.push(at.clone());
                }
                if node == start {
                    cycle.pop();
                }
                cycle.reverse();
                return Some(cycle);
            }
            if !came_from.contains_key(next) {
                came_from.insert(next, node);
                queue.push_back(next);
            }
        }
    }
    None
}

fn reachable_both_ways(graph: &Graph, node: &String) -> BTreeSet<String> {
    let after = reachable(graph, node);
    let mut group = after.clone();
    group.retain(|other| reachable(graph, other).contains(node));
    group
}

fn reachable(graph: &Graph, start: &String) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut stack = vec![start];
    while let Some(node) = stack.pop() {
        for next in graph.get(node).into_iter().flat_map(BTreeMap::keys) {
            if found.insert(next.clone()) {
                stack.push(next);
            }
        }
    }
    found
}

impl Crate {
    fn child(&self, at: &[String], name: &String) -> Option<Vec<String>> {
        let path = [at, std::slice::from_ref(name)].concat();
        self.0.contains_key(&path).then_some(path)
    }

    /// Reads every module except those only for tests.
    fn read(sources: &Sources) -> Self {
        let mut modules = BTreeMap::new();
        let mut test_modules = Vec::new();
        for (file, text) in sources {
            for module in parse::modules(module_path(file), &parse::tokens(text)) {
                test_modules.extend(module.test_modules.iter().map(|name| {
                    let mut path = module.path.clone();
                    path.push(name.clone());
                    path
                }));
                let placed = Placed {
                    file: file.clone(),
                    module,
                };
                modules.insert(placed.module.path.clone(), placed);
            }
        }
        modules.retain(|path, _| !test_modules.iter().any(|test| path.starts_with(test)));
        Self(modules)
    }

    /// The files whose items `module` names, each with the path as it is written there.
    fn dependencies(&self, module: &Module) -> Vec<(String, String)> {
        let used = module.uses.iter().map(|used| &used.path);
        let mut found = Vec::new();
        for path in used.chain(&module.paths) {
            // A single word is a local name, or what a `use` brought in; only globs are left.
            let is_local = |word| self.child(&module.path, word).is_some();
            if let [word] = path.as_slice()
                && (module.items.contains(word) || is_local(word))
            {
                continue;
            }
            let mut search = Search::new(self);
            search.follow(&module.path, path);
            let written = path.join("::");
            found.extend(search.files.into_iter().map(|file| (file, written.clone())));
        }
        found
    }
}

/// `gateway/route.rs` → `["gateway", "route"]`; the root is `[]`.
fn module_path(file: &str) -> Vec<String> {
    let stem = file.strip_suffix(".rs").unwrap_or(file);
    match stem {
        "lib" => Vec::new(),
        stem => stem.split('/').map(str::to_owned).collect(),
    }
}

/// The resolution of one path.
struct Search<'c> {
    modules: &'c Crate,
    /// Files that re-export the item, and at the end the one that defines it.
    files: Vec<String>,
    /// Imports that were already followed, because a name can lead back to itself.
    followed: BTreeSet<(Vec<String>, Vec<String>)>,
}

impl<'c> Search<'c> {
    fn new(modules: &'c Crate) -> Self {
        Self {
            modules,
            files: Vec::new(),
            followed: BTreeSet::new(),
        }
    }

    /// Follows `path` as written in the module `from`; false if it leads out of the crate or
    /// names something local.
    fn follow(&mut self, from: &[String], path: &[String]) -> bool {
        if !self.followed.insert((from.to_vec(), path.to_vec())) {
            return false;
        }
        let Some((first, rest)) = path.split_first() else {
            return false;
        };
        match first.as_str() {
            "crate" | "hawkgate" => self.walk(&[], rest),
            "self" => !rest.is_empty() && self.walk(from, rest),
            "super" => {
                let (_, parent) = from.split_last().unwrap_or((first, &[]));
                let supers = rest.iter().take_while(|word| *word == "super").count();
                let ups = parent.len().saturating_sub(supers);
                self.walk(&parent[..ups], &rest[supers..])
            }
            _ => self.step(from, first, rest),
        }
    }

    /// Records the file that defines the item `rest` of the module `at`.
    fn walk(&mut self, at: &[String], rest: &[String]) -> bool {
        let Some(placed) = self.modules.0.get(at) else {
            return false;
        };
        let Some((name, rest)) = rest.split_first() else {
            self.files.push(placed.file.clone());
            return true;
        };
        let before = self.files.len();
        let defined_here =
            placed.module.items.contains(name) && self.modules.child(at, name).is_none();
        if defined_here || !self.step(at, name, rest) {
            self.files.truncate(before);
        } else if self.modules.child(at, name).is_some() {
            return true;
        }
        // The definition, or a re-export of it.
        self.files.push(placed.file.clone());
        true
    }

    /// Resolves one name in the module `at`: a child, an import, or an item from a glob.
    fn step(&mut self, at: &[String], name: &String, rest: &[String]) -> bool {
        if let Some(child) = self.modules.child(at, name) {
            return self.walk(&child, rest);
        }
        let Some(placed) = self.modules.0.get(at) else {
            return false;
        };
        // `use name::name` imports from another crate.
        let imports = |used: &&parse::Use| {
            used.name.as_ref() == Some(name) && used.path.first() != Some(name)
        };
        if let Some(used) = placed.module.uses.iter().find(imports) {
            let path = [used.path.as_slice(), rest].concat();
            return self.follow(at, &path);
        }
        let globs = placed.module.uses.iter().filter(|used| used.name.is_none());
        for glob in globs {
            let path = [glob.path.as_slice(), std::slice::from_ref(name), rest].concat();
            if self.provides(at, &glob.path, name) && self.follow(at, &path) {
                return true;
            }
        }
        false
    }

    /// Whether the module that `glob` means in `at` has `name`.
    fn provides(&self, at: &[String], glob: &[String], name: &String) -> bool {
        let mut search = Search {
            followed: self.followed.clone(),
            ..Search::new(self.modules)
        };
        if !search.follow(at, glob) {
            return false;
        }
        search.files.iter().any(|file| {
            let path = module_path(file);
            let module = self.modules.0.get(&path).map(|placed| &placed.module);
            self.modules.child(&path, name).is_some()
                || module.is_some_and(|module| {
                    module.items.contains(name)
                        || module
                            .uses
                            .iter()
                            .any(|used| used.name.as_ref() == Some(name))
                })
        })
    }
}
