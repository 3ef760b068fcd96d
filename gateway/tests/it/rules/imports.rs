//! Which files of a crate import which others, read from its sources.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::{Path, PathBuf};

/// A module's path in its crate, or that of an item in it.
type ModulePath = Vec<String>;

/// The files of one crate, by the module that each holds.
#[derive(Default)]
pub(super) struct Crate {
    files: BTreeMap<ModulePath, File>,
}

#[derive(Default)]
struct File {
    name: String,
    /// The names that its `use` items bring in, with the paths that they stand for. Children can import them too.
    bound: HashMap<String, ModulePath>,
    /// The modules whose names it takes over by `*`.
    globs: Vec<ModulePath>,
    /// The items that it declares.
    declared: BTreeSet<String>,
    /// The paths that stand in its code, beginning with a module or with a bound name.
    used: Vec<ModulePath>,
}

/// Every source below a folder.
pub(super) fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder of sources").map(|entry| entry.expect("an entry").path());
    let found = entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] });
    found.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}

/// A source without comment lines and tests. By rustfmt, an item ends at its own indentation.
pub(super) fn code(text: &str) -> String {
    let mut kept = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let indent = &line[..line.len() - line.trim_start().len()];
        let is_end = |line: &&str| {
            let rest = line.strip_prefix(indent);
            rest.is_some_and(|rest| rest == "}" || !rest.starts_with(' ') && rest.ends_with(';'))
        };
        if line.trim() == "#[cfg(test)]" {
            let _ = lines.by_ref().find(is_end);
        } else if !line.trim_start().starts_with("//") {
            kept.extend([line, "\n"]);
        }
    }
    kept
}

/// Names, `::`, and all other characters one by one; without white space, comments, strings and characters.
fn tokens(code: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let name = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let raw = rest.trim_start_matches(['b', 'c']).strip_prefix('r').map(|raw| raw.trim_start_matches('#'));
        let raw = raw.filter(|raw| raw.starts_with('"'));
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if let Some(raw) = raw {
            let hashes = rest[..rest.len() - raw.len()].matches('#').count();
            let end = format!("\"{}", "#".repeat(hashes));
            rest.len() - raw.len() + 1 + raw[1..].find(&end).expect("the end of a string") + end.len()
        } else if first == '"' || first == '\'' && (rest.starts_with("'\\") || rest.chars().nth(2) == Some('\'')) {
            let mut is_escaped = true;
            let end = rest.find(|c| {
                let was_escaped = is_escaped;
                is_escaped = !was_escaped && c == '\\';
                !was_escaped && c == first
            });
            end.expect("the end of a string") + 1
        } else {
            let length = if rest.starts_with("::") { 2 } else { name.max(first.len_utf8()) };
            tokens.push(&rest[..length]);
            length
        };
        rest = rest[length..].trim_start();
    }
    tokens
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// The paths of a use tree, each with the name that it is bound to; takes the tree's tokens.
fn use_tree<'a>(tokens: &mut VecDeque<&'a str>, before: &[&'a str], found: &mut Vec<(Vec<&'a str>, &'a str)>) {
    let mut path = before.to_vec();
    while let Some(token) = tokens.pop_front() {
        match token {
            "::" => continue,
            "{" => {
                while tokens.front().is_some_and(|token| *token != "}") {
                    use_tree(tokens, &path, found);
                }
                tokens.pop_front();
                path.clear();
            }
            "as" => {
                let name = tokens.pop_front().expect("a name");
                found.push((std::mem::take(&mut path), name));
            }
            "," | ";" => break,
            "self" if !path.is_empty() => {}
            name => path.push(name),
        }
        if tokens.front() == Some(&"}") {
            break;
        }
    }
    if let Some(name) = path.last().copied() {
        found.push((path, name));
    }
}

impl File {
    fn read(name: &str, module: &ModulePath, text: &str) -> Self {
        let mut file = Self { name: name.to_owned(), ..Self::default() };
        let mut used = Vec::new();
        let code = code(text);
        let mut tokens: VecDeque<&str> = tokens(&code).into();
        while let Some(token) = tokens.pop_front() {
            let next = tokens.front().copied().unwrap_or_default();
            match token {
                // A path in a visibility is no import.
                "pub" if next == "(" => while tokens.pop_front().is_some_and(|token| token != ")") {},
                "use" if next != "<" => {
                    let mut found = Vec::new();
                    use_tree(&mut tokens, &[], &mut found);
                    for (path, name) in found {
                        let path = absolute(module, &path);
                        match path.split_last() {
                            Some((star, module)) if star == "*" => file.globs.push(module.to_vec()),
                            _ => drop(file.bound.insert(name.to_owned(), path)),
                        }
                    }
                }
                "struct" | "enum" | "union" | "trait" | "type" | "fn" | "const" | "static" | "mod" if is_name(next) => {
                    file.declared.extend(tokens.pop_front().map(str::to_owned));
                }
                first if is_name(first) => {
                    let mut path = vec![first];
                    while tokens.front() == Some(&"::") && tokens.get(1).is_some_and(|token| is_name(token)) {
                        tokens.pop_front();
                        path.extend(tokens.pop_front());
                    }
                    used.push(path);
                }
                _ => {}
            }
        }
        // A name alone is a variable or the like, unless it was imported.
        used.retain(|path| path.len() > 1 || file.bound.contains_key(path[0]));
        file.used = used.iter().map(|path| absolute(module, path)).collect();
        file
    }
}

/// A path from the crate's root, if it begins with `crate`, `self` or `super`; otherwise one of the module's own names.
fn absolute(module: &[String], path: &[&str]) -> ModulePath {
    let supers = path.iter().take_while(|name| **name == "super").count();
    let (base, rest) = match path.first() {
        Some(&"crate") => (&module[..0], &path[1..]),
        Some(&"self") => (module, &path[1..]),
        _ => (&module[..module.len().saturating_sub(supers)], &path[supers..]),
    };
    base.iter().cloned().chain(rest.iter().map(|name| (*name).to_owned())).collect()
}

impl Crate {
    /// The crate whose root is in this folder. What lies in `bin` is another crate.
    pub(super) fn read(folder: &Path) -> Self {
        let mut read = Self::default();
        for path in sources(folder) {
            let name = path.strip_prefix(folder).expect("below the root").to_string_lossy().into_owned();
            if !name.starts_with("bin/") {
                read.add(&name, &std::fs::read_to_string(&path).expect("a source"));
            }
        }
        read
    }

    fn add(&mut self, name: &str, text: &str) {
        let mut module: ModulePath = name.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
        if module.last().is_some_and(|last| last == "mod" || last == "lib") {
            module.pop();
        }
        if module.last().is_none_or(|last| last != "tests") {
            let file = File::read(name, &module, text);
            self.files.insert(module, file);
        }
    }

    /// The file that holds an item: names that other files pass on are followed to where they are declared.
    fn holder(&self, path: &[String], depth: usize) -> Option<&ModulePath> {
        let length = (0..=path.len()).rev().find(|length| self.files.contains_key(&path[..*length]))?;
        let (module, file) = self.files.get_key_value(&path[..length])?;
        let Some(name) = path.get(length).filter(|name| depth < 9 && !file.declared.contains(*name)) else {
            return Some(module);
        };
        if let Some(bound) = file.bound.get(name) {
            let path = [bound, &path[length + 1..]].concat();
            return self.holder(&path, depth + 1);
        }
        let passes_on = |glob: &&ModulePath| self.files.get(*glob).is_some_and(|file| file.declared.contains(name));
        file.globs.iter().find(passes_on).or(Some(module))
    }

    /// The files that a file imports from, but for the one that declares it: a type's `impl` may be spread over the files of
    /// its room, so a room's files and its `mod.rs` may know each other.
    fn imports(&self, module: &ModulePath) -> BTreeSet<&ModulePath> {
        let file = &self.files[module];
        let holders = file.used.iter().chain(&file.globs).filter_map(|path| self.holder(path, 0));
        let parent = module.split_last().map(|(_, parent)| parent);
        holders.filter(|holder| *holder != module && Some(&holder[..]) != parent).collect()
    }

    /// The circles: for each file that imports itself by way of others, the shortest way.
    pub(super) fn circles(&self) -> BTreeSet<String> {
        let imports: BTreeMap<_, _> = self.files.keys().map(|module| (module, self.imports(module))).collect();
        let mut circles = BTreeMap::new();
        for start in self.files.keys() {
            let mut ways = VecDeque::from([vec![start]]);
            let mut seen = BTreeSet::new();
            while let Some(way) = ways.pop_front() {
                for next in &imports[way[way.len() - 1]] {
                    if *next == start {
                        let names: Vec<&str> = way.iter().map(|module| &*self.files[*module].name).collect();
                        let members: BTreeSet<_> = way.iter().copied().collect();
                        circles.entry(members).or_insert_with(|| names.join(" → ") + " → " + names[0]);
                        ways.clear();
                        break;
                    }
                    if seen.insert(*next) {
                        ways.push_back([&way[..], &[*next]].concat());
                    }
                }
            }
        }
        circles.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circles(files: &[(&str, &str)]) -> Vec<String> {
        let mut read = Crate::default();
        files.iter().for_each(|(name, text)| read.add(name, text));
        read.circles().into_iter().collect()
    }

    #[test]
    fn a_circle_is_found_however_its_imports_are_written() {
        for (a, b) in [
            ("use crate::b::B;\nstruct A(B);", "use super::a::A;\nstruct B(A);"),
            ("use crate::{b::{self as other, B}};\nfn a(b: B) { other::b(b) }", "fn b() { crate::a::a() }"),
            (
                "pub(crate) fn a() {\n    use crate::b;\n    b::b()\n}",
                "fn b<'a>(c: char) { if c == '\"' { super::a::a() } }",
            ),
            // Through a name that the root passes on, and through a glob.
            ("struct A(crate::Passed);", "use crate::a::*;\npub struct B(A);"),
        ] {
            let root = "mod a;\nmod b;\npub use b::B as Passed;";
            assert_eq!(circles(&[("lib.rs", root), ("a.rs", a), ("b.rs", b)]), ["a.rs → b.rs → a.rs"], "{a}\n{b}");
        }
    }

    #[test]
    fn a_circle_may_lead_through_rooms() {
        let files = [
            ("lib.rs", "mod room;\nmod other;"),
            ("room/mod.rs", "mod door;\npub(crate) use self::door::Door;"),
            ("room/door.rs", "pub(crate) struct Door(crate::other::Other);"),
            ("other.rs", "pub(crate) struct Other(Option<Box<Third>>);\nuse crate::third::Third;"),
            ("third.rs", "use crate::room;\npub(crate) struct Third(room::Door);"),
        ];
        assert_eq!(circles(&files), ["other.rs → third.rs → room/door.rs → other.rs"]);
    }

    #[test]
    fn what_is_no_import_makes_no_circle() {
        let b = "use crate::a::A;\nstruct B(A);";
        for a in [
            "struct A;\n// Holds what crate::b::B needs.",
            "struct A(&'static str); // crate::b::B\nconst TEXT: &str = \"\\\"crate::b::B\";",
            "struct A;\nconst RAW: &str = r#\"\" crate::b::B\"#;",
            "pub(in crate::b) struct A;",
            "struct A;\nfn a(b: u8) -> u8 { b }",
            "struct A;\n#[cfg(test)]\nmod tests {\n    use crate::b::B;\n    fn x(b: B) {}\n}",
        ] {
            assert!(circles(&[("lib.rs", "mod a;\nmod b;"), ("a.rs", a), ("b.rs", b)]).is_empty(), "{a}");
        }
        let after_tests = "#[cfg(test)]\nmod tests;\nuse crate::b::B;\nstruct A(B);";
        assert_eq!(circles(&[("a.rs", after_tests), ("b.rs", b)]).len(), 1);
    }

    #[test]
    fn a_file_and_its_own_mod_may_know_each_other() {
        let (root, child) = ("mod part;\nstruct Room(part::Part);", "use super::Room;\nstruct Part;\nimpl Room {}");
        assert!(circles(&[("room/mod.rs", root), ("room/part.rs", child)]).is_empty());
        let deep = "use crate::room::Room;\npub struct Part;\nimpl Room {}";
        let (root, inner) = ("mod inner;\nstruct Room(inner::part::Part);", "pub mod part;");
        let files = [("room/mod.rs", root), ("room/inner/mod.rs", inner), ("room/inner/part.rs", deep)];
        assert_eq!(circles(&files), ["room/mod.rs → room/inner/part.rs → room/mod.rs"]);
    }
}
