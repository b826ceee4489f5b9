//! Extracts what a source file declares and names from its tokens, with just enough of Rust's
//! grammar for modules, `use` trees and paths.

use std::collections::BTreeSet;

/// A token that paths are made of; literals, comments and lifetimes are left out.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Name(String),
    /// `::`
    Separator,
    Symbol(char),
}

use Token::{Name, Separator, Symbol};

/// One module: a file, or `mod name { … }` inside one.
#[derive(Debug, Default)]
pub(super) struct Module {
    /// Its path from the crate's root; empty for the root itself.
    pub(super) path: Vec<String>,
    /// Items that it defines itself.
    pub(super) items: BTreeSet<String>,
    pub(super) uses: Vec<Use>,
    /// Paths in its code outside of `use`, as written.
    pub(super) paths: BTreeSet<Vec<String>>,
    /// Modules that it declares only for tests.
    pub(super) test_modules: Vec<String>,
}

/// One name that a `use` brings in.
#[derive(Debug, PartialEq)]
pub(super) struct Use {
    /// As written, `crate`, `self` and `super` included.
    pub(super) path: Vec<String>,
    /// Its name in this module; `None` for a glob.
    pub(super) name: Option<String>,
}

/// The tokens of a source file.
pub(super) fn tokens(source: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let length = if let Some(skipped) = comment_or_literal(rest) {
            skipped
        } else if is_name(first) {
            let length = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
            tokens.push(Name(rest[..length].to_owned()));
            length
        } else if rest.starts_with("::") {
            tokens.push(Separator);
            2
        } else {
            if !first.is_whitespace() {
                tokens.push(Symbol(first));
            }
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    tokens
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The length of the comment, literal or lifetime that `rest` begins with.
fn comment_or_literal(rest: &str) -> Option<usize> {
    let until = |end: &str, from: usize| {
        rest[from..]
            .find(end)
            .map_or(rest.len(), |at| from + at + end.len())
    };
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return Some(until("*/", 2));
    }
    if let Some(hashes) = raw_string(rest) {
        let end = format!("\"{}", "#".repeat(hashes));
        return Some(until(&end, hashes + 2));
    }
    if rest.starts_with('"') {
        return Some(quoted(rest, '"'));
    }
    let after = rest.strip_prefix('\'')?;
    let mut chars = after.chars();
    let first = chars.next()?;
    if first == '\\' || chars.next() == Some('\'') {
        return Some(quoted(rest, '\''));
    }
    // A lifetime.
    Some(1 + after.find(|c| !is_name(c)).unwrap_or(after.len()))
}

/// The number of `#` in the delimiter of the raw string that `rest` begins with.
fn raw_string(rest: &str) -> Option<usize> {
    let after = rest.strip_prefix('r')?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    after[hashes..].starts_with('"').then_some(hashes)
}

/// The length of the literal between two `quote`s that `rest` begins with.
fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// The modules of one source file, the file's own first. `#[cfg(test)]` items are left out.
pub(super) fn modules(path: Vec<String>, tokens: &[Token]) -> Vec<Module> {
    let mut parser = Parser {
        rest: tokens,
        done: Vec::new(),
    };
    let file = Module {
        path,
        ..Module::default()
    };
    parser.module(file);
    parser.done.reverse();
    parser.done
}

struct Parser<'t> {
    rest: &'t [Token],
    /// Innermost first, the file's own last.
    done: Vec<Module>,
}

impl<'t> Parser<'t> {
    fn next(&mut self) -> Option<&'t Token> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    fn next_if_symbol(&mut self, symbol: char) -> bool {
        let is_next = self.rest.first() == Some(&Symbol(symbol));
        if is_next {
            self.next();
        }
        is_next
    }

    /// Reads up to the end of `module`, its closing brace included.
    fn module(&mut self, mut module: Module) {
        let mut depth = 0;
        let mut before = &Symbol(';');
        while let Some(token) = self.next() {
            match token {
                Symbol('{') => depth += 1,
                Symbol('}') if depth == 0 => break,
                Symbol('}') => depth -= 1,
                Symbol('#') => {
                    let for_tests = self.attribute() == "[cfg(test)]";
                    let skipped = for_tests.then(|| self.skip_item()).flatten();
                    module.test_modules.extend(skipped);
                }
                Name(word) if word == "use" => self.use_tree(Vec::new(), &mut module.uses),
                // A field, method or the rest of a path that began with `<…>`.
                Name(_) if matches!(before, Symbol('.') | Separator) => {}
                Name(word) if word == "mod" && self.opens_module() => {
                    self.inline_module(&module.path);
                }
                Name(word) => {
                    if depth == 0 && is_item(word) {
                        module.items.extend(self.item_name(word));
                    }
                    module.paths.insert(self.path(word));
                }
                _ => {}
            }
            before = token;
        }
        self.done.push(module);
    }

    /// Reads an attribute and returns it, brackets included, without spaces.
    fn attribute(&mut self) -> String {
        let mut text = String::new();
        let mut depth = 0;
        self.next_if_symbol('!');
        while depth > 0 || self.rest.first() == Some(&Symbol('[')) {
            match self.next() {
                None => break,
                Some(Name(name)) => text += name,
                Some(Separator) => text += "::",
                Some(Symbol(symbol)) => {
                    text.push(*symbol);
                    match symbol {
                        '[' => depth += 1,
                        ']' => depth -= 1,
                        _ => {}
                    }
                }
            }
            if depth == 0 {
                break;
            }
        }
        text
    }

    /// Skips one item; its name if it is `mod name;`.
    fn skip_item(&mut self) -> Option<String> {
        while self.next_if_symbol('#') {
            self.attribute();
        }
        let mut head = Vec::new();
        let mut depth = 0;
        while let Some(token) = self.next() {
            let imports = head.contains(&&Name("use".into()));
            match token {
                Symbol('{' | '(' | '[') => depth += 1,
                Symbol('}' | ')' | ']') => depth -= 1,
                _ => {}
            }
            match token {
                Symbol(';') if depth == 0 => break,
                Symbol('}') if depth == 0 && !imports => return None,
                _ if depth == 0 => head.push(token),
                _ => {}
            }
        }
        match head.as_slice() {
            [.., Name(word), Name(name)] if word == "mod" => Some(name.clone()),
            _ => None,
        }
    }

    /// Whether `name {` comes next.
    fn opens_module(&self) -> bool {
        matches!(self.rest, [Name(_), Symbol('{'), ..])
    }

    fn inline_module(&mut self, parent: &[String]) {
        if let [Name(name), Symbol('{'), rest @ ..] = self.rest {
            self.rest = rest;
            let path = [parent, std::slice::from_ref(name)].concat();
            self.module(Module {
                path,
                ..Module::default()
            });
        }
    }

    /// The name of the item that begins with the keyword `word`.
    fn item_name(&self, word: &str) -> Option<String> {
        match self.rest {
            [Symbol('!'), Name(name), ..] if word == "macro_rules" => Some(name.clone()),
            // `const fn` comes to its own keyword next.
            [Name(name), ..] if !is_item(name) => Some(name.clone()),
            _ => None,
        }
    }

    /// The path that begins with `first`.
    fn path(&mut self, first: &str) -> Vec<String> {
        let mut path = vec![first.to_owned()];
        while let [Separator, Name(name), rest @ ..] = self.rest {
            path.push(name.clone());
            self.rest = rest;
        }
        path
    }

    /// Reads one tree of a `use`.
    fn use_tree(&mut self, mut path: Vec<String>, uses: &mut Vec<Use>) {
        loop {
            match self.next() {
                Some(Name(word)) => path.push(word.clone()),
                Some(Separator) => continue,
                Some(Symbol('*')) => return uses.push(Use { path, name: None }),
                Some(Symbol('{')) => return self.use_group(&path, uses),
                _ => return,
            }
            if self.rest.first() == Some(&Separator) {
                continue;
            }
            if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
                path.pop();
            }
            let mut name = path.last().cloned();
            if let [Name(word), Name(renamed), rest @ ..] = self.rest
                && word == "as"
            {
                name = Some(renamed.clone());
                self.rest = rest;
            }
            return uses.push(Use { path, name });
        }
    }

    fn use_group(&mut self, prefix: &[String], uses: &mut Vec<Use>) {
        while !self.next_if_symbol('}') && !self.rest.is_empty() {
            if !self.next_if_symbol(',') {
                self.use_tree(prefix.to_vec(), uses);
            }
        }
    }
}

fn is_item(word: &str) -> bool {
    matches!(
        word,
        "struct"
            | "enum"
            | "union"
            | "trait"
            | "type"
            | "fn"
            | "const"
            | "static"
            | "macro_rules"
            | "mod"
    )
}
