//! Folders are layers: a file imports from its own folder or from one above it, and files do not
//! import each other in a circle.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::Path;

/// The folders and files of `src`, each above those that may import it.
const LAYERS: [&str; 19] = [
    "text",
    "error",
    "callback",
    "sync",
    "time",
    "lease",
    "holder",
    "http",
    "entra",
    "azure",
    "mutex",
    "lock",
    "semaphore",
    "once",
    "election",
    "lock_all",
    "emulator",
    "fuzzing",
    "guide",
];

/// All that a layer may import, where that is less than everything above it.
const LIMITS: [(&str, &[&str]); 1] = [(
    "emulator",
    &[
        "error",
        "time",
        "http/message",
        "azure/sign",
        "mutex/options",
    ],
)];

/// Imports that are wrong and still there, as importer and imported file.
const KNOWN: [(&str, &str); 0] = [];

#[test]
fn library_imports_only_from_its_own_folder_or_from_above() {
    let tree = Tree::read("src", |path| !path.starts_with("bin/"));
    none("src", &library_faults(&tree, &KNOWN));
}

#[test]
fn command_uses_the_public_api_alone() {
    let library = Tree::read("src", |path| path == "lib.rs");
    let command = Tree::read("src/bin/azmutex", |_| true);
    none("src/bin/azmutex", &command_faults(&library, &command));
}

/// The command cannot ask the library, so each has a table.
#[test]
fn command_and_library_have_the_same_tables() {
    let rows = [
        ("fn is_invisible(", "\n}\n", "text.rs", "text.rs"),
        (
            "const ACCOUNT:",
            ";\n",
            "mutex/environment.rs",
            "variables.rs",
        ),
        (
            "const KEY:",
            "\n];\n",
            "mutex/environment.rs",
            "variables.rs",
        ),
        ("const SAS:", ";\n", "mutex/environment.rs", "variables.rs"),
        (
            "const FOREIGN:",
            "\n];\n",
            "mutex/environment.rs",
            "variables.rs",
        ),
        (
            "const CONNECTIONS:",
            "\n];\n",
            "entra/plan.rs",
            "sign_in.rs",
        ),
    ];
    for (start, end, library, command) in rows {
        let table = |path: String| {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
            let source = fs::read_to_string(path).unwrap();
            let (_, rest) = source.split_once(start).unwrap();
            rest.split_once(end).unwrap().0.to_owned()
        };
        let (library, command) = (
            format!("src/{library}"),
            format!("src/bin/azmutex/{command}"),
        );
        assert_eq!(table(library), table(command), "{start}");
    }
}

/// Only here may the files of a folder share what their own `mod.rs` defines.
#[test]
fn command_has_no_other_circle_of_imports() {
    let mut arrows = arrows(&Tree::read("src/bin/azmutex", |_| true));
    arrows.retain(|arrow| {
        let folder = arrow.to.strip_suffix("mod.rs");
        folder.is_none_or(|folder| !arrow.from.starts_with(folder))
    });
    none("src/bin/azmutex", &circles(&arrows));
}

#[track_caller]
fn none(folder: &str, faults: &[String]) {
    assert!(faults.is_empty(), "in {folder}:\n{}\n", faults.join("\n"));
}

/// Source files by path, from the folder of the crate's root file.
struct Tree(BTreeMap<String, String>);

impl Tree {
    fn read(root: &str, wanted: impl Fn(&str) -> bool) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(root);
        let mut files = BTreeMap::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let relative = path.strip_prefix(&root).unwrap();
                let name = relative.to_str().unwrap().replace('\\', "/");
                if name.ends_with(".rs") && !is_test(&name) && wanted(&name) {
                    files.insert(name, fs::read_to_string(&path).unwrap());
                }
            }
        }
        assert!(!files.is_empty(), "no source files in {}", root.display());
        Self(files)
    }
}

fn is_test(path: &str) -> bool {
    path.contains("tests/") || path.ends_with("tests.rs")
}

/// That one file names something in another.
#[derive(PartialEq)]
struct Arrow {
    from: String,
    line: usize,
    to: String,
}

fn library_faults(tree: &Tree, known: &[(&str, &str)]) -> Vec<String> {
    let mut arrows = arrows(tree);
    let mut faults = Vec::new();
    for &(from, to) in known {
        let before = arrows.len();
        arrows.retain(|arrow| (&*arrow.from, &*arrow.to) != (from, to));
        if arrows.len() == before {
            faults.push(format!("{from} imports {to} no longer: delete it in KNOWN"));
        }
    }
    let position = |path| LAYERS.iter().position(|layer| *layer == layer_of(path));
    for path in tree.0.keys() {
        if path != "lib.rs" && position(path).is_none() {
            faults.push(format!("{path} is in no layer: give it a place in LAYERS"));
        }
    }
    for Arrow { from, line, to } in arrows.iter().filter(|arrow| arrow.from != "lib.rs") {
        let (upper, lower) = (layer_of(to), layer_of(from));
        let limit = LIMITS.iter().find(|(layer, _)| *layer == lower);
        let is_allowed = |(_, above): &(&str, &[&str])| {
            let module = to.trim_end_matches(".rs");
            above.iter().any(|one| *one == module || *one == upper)
        };
        if to == "lib.rs" {
            faults.push(format!(
                "{from}:{line} imports from the crate's root: name the module that has the item"
            ));
        } else if position(to) > position(from) {
            faults.push(format!(
                "{from}:{line} imports {to}, and `{upper}` is below `{lower}`: move what it needs \
                 to `{lower}` or above, or hand it in as an argument"
            ));
        } else if upper != lower && !limit.is_none_or(is_allowed) {
            faults.push(format!(
                "{from}:{line} imports {to}, which is not among the few that LIMITS allows `{lower}`"
            ));
        }
    }
    arrows.retain(|arrow| arrow.from != "lib.rs" && layer_of(&arrow.from) == layer_of(&arrow.to));
    faults.extend(circles(&arrows));
    faults
}

/// What is not `azmutex::` and one of the names that the library's root file exports.
fn command_faults(library: &Tree, command: &Tree) -> Vec<String> {
    let root = tokens(&library.0["lib.rs"]);
    let mut exported = BTreeSet::new();
    for at in 0..root.len() - 3 {
        match (root[at].text, root[at + 1].text, root[at + 2].text) {
            ("pub", "mod", name) if name != "fuzzing" => drop(exported.insert(name)),
            ("pub", "use", _) => {
                let mut paths = Vec::new();
                expand(&root, at + 2, &[], &mut paths);
                exported.extend(paths.iter().filter_map(|path| path.last().copied()));
            }
            _ => {}
        }
    }
    let mut faults = Vec::new();
    for (path, source) in &command.0 {
        let tokens = tokens(source);
        for (at, token) in tokens.iter().enumerate() {
            let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
            let line = token.line;
            if (token.text, text(at + 1)) == ("include", "!")
                || [token.text, text(at + 1), text(at + 2)] == ["[", "path", "="]
            {
                faults.push(format!("{path}:{line} takes in a file of another crate"));
            }
            if (token.text, text(at + 1)) != ("azmutex", "::") {
                continue;
            }
            let mut paths = Vec::new();
            expand(&tokens, at + 2, &[], &mut paths);
            for name in paths.iter().filter_map(|path| path.first()) {
                if !exported.contains(name) {
                    faults.push(format!(
                        "{path}:{line} uses azmutex::{name}, which is not public"
                    ));
                }
            }
        }
    }
    faults
}

/// The first part of a path: a folder of `src`, or a file in it.
fn layer_of(path: &str) -> &str {
    let first = path.split('/').next().unwrap_or(path);
    first.trim_end_matches(".rs")
}

/// One line for each circle: between layers, and between files of one layer.
fn circles(arrows: &[Arrow]) -> Vec<String> {
    let mut faults = Vec::new();
    let is_inside = |arrow: &Arrow| layer_of(&arrow.from) == layer_of(&arrow.to);
    for inside in [false, true] {
        let node = |path| if inside { path } else { layer_of(path) };
        let mut graph: BTreeMap<&str, BTreeMap<&str, &Arrow>> = BTreeMap::new();
        for arrow in arrows.iter().filter(|arrow| is_inside(arrow) == inside) {
            let from = graph.entry(node(&arrow.from)).or_default();
            from.entry(node(&arrow.to)).or_insert(arrow);
        }
        let mut seen = BTreeSet::new();
        for start in graph.keys() {
            let Some(circle) = way_back(&graph, start) else {
                continue;
            };
            let members: BTreeSet<_> = circle.iter().map(|arrow| node(&arrow.from)).collect();
            if !seen.insert(members) {
                continue;
            }
            let steps: Vec<_> = circle
                .iter()
                .map(|Arrow { from, line, to }| format!("{from}:{line} imports {to}"))
                .collect();
            faults.push(format!(
                "a circle: {}: move what one of them needs to a file above both",
                steps.join(", ")
            ));
        }
    }
    faults
}

/// The shortest way along arrows from `start` to itself.
fn way_back<'a>(
    graph: &BTreeMap<&'a str, BTreeMap<&'a str, &'a Arrow>>,
    start: &str,
) -> Option<Vec<&'a Arrow>> {
    let mut ways = VecDeque::from([(start, Vec::new())]);
    let mut seen = BTreeSet::new();
    while let Some((at, way)) = ways.pop_front() {
        for (next, arrow) in graph.get(at).into_iter().flatten() {
            let way = [&*way, &[*arrow]].concat();
            if *next == start {
                return Some(way);
            }
            if seen.insert(*next) {
                ways.push_back((*next, way));
            }
        }
    }
    None
}

/// Every path in the code, tests left out, that names something in another file.
fn arrows(tree: &Tree) -> Vec<Arrow> {
    let modules: BTreeMap<Vec<&str>, &str> = tree
        .0
        .keys()
        .map(|path| (module_of(path), &**path))
        .collect();
    let mut arrows = Vec::new();
    for (from, source) in &tree.0 {
        let file = module_of(from);
        let tokens = tokens(source);
        let mut inline = Vec::new();
        let mut depth = 0;
        let mut at = 0;
        while at < tokens.len() {
            let Token { text, line } = tokens[at];
            let next = |by: usize| tokens.get(at + by).map_or("", |token| token.text);
            let mut base: Vec<&str> = file.clone();
            base.extend(inline.iter().map(|(name, _)| *name));
            match text {
                "mod" if next(2) == "{" => inline.push((next(1), depth)),
                "{" => depth += 1,
                "}" => {
                    depth -= 1;
                    inline.pop_if(|(_, outside)| *outside == depth);
                }
                _ => {}
            }
            let child = [&*base, &[text]].concat();
            let is_path = next(1) == "::" && (at == 0 || tokens[at - 1].text != "::");
            let mut paths = Vec::new();
            match text {
                "crate" if is_path => at = expand(&tokens, at + 2, &[], &mut paths),
                "self" if is_path => at = expand(&tokens, at + 2, &base, &mut paths),
                "super" if is_path => {
                    while tokens[at].text == "super" {
                        base.pop();
                        at += 2;
                    }
                    at = expand(&tokens, at, &base, &mut paths);
                }
                _ if is_path && modules.contains_key(&child) => {
                    at = expand(&tokens, at + 2, &child, &mut paths);
                }
                _ => at += 1,
            }
            for path in paths {
                let mut prefixes = (0..=path.len()).rev().map(|length| &path[..length]);
                if let Some(to) = prefixes.find_map(|prefix| modules.get(prefix))
                    && to != from
                {
                    arrows.push(Arrow {
                        from: from.clone(),
                        line,
                        to: (*to).to_owned(),
                    });
                }
            }
        }
    }
    arrows.dedup();
    arrows
}

/// The module that a file has, from the crate's root.
fn module_of(path: &str) -> Vec<&str> {
    let path = path.trim_end_matches(".rs");
    let mut parts: Vec<_> = path.split('/').collect();
    if matches!(*parts, [.., "mod"] | ["lib" | "main"]) {
        parts.pop();
    }
    parts
}

/// The paths that begin at `at`, with `prefix` before them. Returns where they end.
fn expand<'a>(
    tokens: &[Token<'a>],
    mut at: usize,
    prefix: &[&'a str],
    paths: &mut Vec<Vec<&'a str>>,
) -> usize {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
    let mut path = prefix.to_vec();
    loop {
        if text(at) == "{" {
            at += 1;
            while !matches!(text(at), "}" | "") {
                at = expand(tokens, at, &path, paths);
                while !matches!(text(at), "," | "}" | "") {
                    at += 1; // `as` and a name
                }
                at += usize::from(text(at) == ",");
            }
            return at + 1;
        }
        if !matches!(text(at), "self" | "*") {
            path.push(text(at));
        }
        if text(at + 1) != "::" || !is_word(text(at + 2)) && text(at + 2) != "{" {
            paths.push(path);
            return at + 1;
        }
        at += 2;
    }
}

fn is_word(text: &str) -> bool {
    text == "*" || text.starts_with(|c: char| c.is_alphanumeric() || c == '_')
}

#[derive(Clone, Copy)]
struct Token<'a> {
    text: &'a str,
    line: usize,
}

/// Words, `::` and single characters, without comments, literals, and what only tests have.
fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = source;
    let mut line = 1;
    while let Some(first) = rest.chars().next() {
        let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
        let word = &rest[..word.unwrap_or(rest.len())];
        let behind = &rest[word.len()..];
        let hashes = behind.len() - behind.trim_start_matches('#').len();
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if matches!(word, "r" | "br") && behind[hashes..].starts_with('"') {
            let close = format!("\"{}", "#".repeat(hashes));
            let inside = word.len() + hashes + 1;
            let end = rest[inside..].find(&close);
            end.map_or(rest.len(), |end| inside + end + close.len())
        } else if first == '"' {
            literal_length(rest, '"')
        } else if first == '\'' {
            match rest.chars().nth(2) {
                Some('\'') => literal_length(rest, '\''),
                _ if rest.starts_with("'\\") => literal_length(rest, '\''),
                _ => 1, // a lifetime
            }
        } else {
            let text = match word {
                "" if rest.starts_with("::") => "::",
                "" => &rest[..first.len_utf8()],
                word => word,
            };
            if !first.is_whitespace() {
                tokens.push(Token { text, line });
            }
            text.len()
        };
        line += rest[..length].matches('\n').count();
        rest = &rest[length..];
    }
    without_tests(&tokens)
}

fn literal_length(text: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if c == quote && !is_escaped {
            return at + 1;
        }
        is_escaped = c == '\\' && !is_escaped;
    }
    text.len()
}

/// Without the items behind `#[cfg(test)]` or `#[cfg(all(test, ...))]`.
fn without_tests<'a>(tokens: &[Token<'a>]) -> Vec<Token<'a>> {
    let mut kept = Vec::new();
    let mut at = 0;
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
    while at < tokens.len() {
        let opens = [text(at), text(at + 1), text(at + 2), text(at + 3)];
        let is_test = text(at + 4) == "test" || text(at + 4) == "all" && text(at + 6) == "test";
        if opens != ["#", "[", "cfg", "("] || !is_test {
            kept.push(tokens[at]);
            at += 1;
            continue;
        }
        let mut depth = 0;
        let mut is_import = false;
        at += 1;
        loop {
            match text(at) {
                "use" => is_import = true,
                "{" | "(" | "[" => depth += 1,
                "}" | ")" | "]" => depth -= 1,
                _ => {}
            }
            at += 1;
            let is_end = text(at - 1) == ";" || text(at - 1) == "}" && !is_import;
            if depth == 0 && is_end || at >= tokens.len() {
                break;
            }
        }
    }
    kept
}

// What the checks find in small trees.

fn tree(files: &[(&str, &str)]) -> Tree {
    let files = files.iter();
    Tree(files.map(|(p, s)| (p.to_string(), s.to_string())).collect())
}

#[track_caller]
fn expect(files: &[(&str, &str)], expected: &[&str]) {
    let faults = library_faults(&tree(files), &[]);
    assert_eq!(faults.len(), expected.len(), "{faults:#?}");
    for (fault, expected) in faults.iter().zip(expected) {
        assert!(fault.contains(expected), "{fault}");
    }
}

#[test]
fn import_from_above_or_beside_is_no_fault() {
    expect(
        &[
            ("lib.rs", "mod lock; pub use lock::guard::Guard;"),
            ("error.rs", "pub struct Error;"),
            ("time/mod.rs", "pub(crate) mod clock;"),
            (
                "time/clock.rs",
                "use super::tick::Tick; use crate::error::Error;",
            ),
            ("time/tick.rs", "mod inner { use super::Tick; }"),
            (
                "lock/guard.rs",
                "use std::{fmt, io}; use crate::{error::*, time::{self, clock::Clock as C}};",
            ),
        ],
        &[],
    );
}

#[test]
fn import_from_below_is_a_fault_in_any_form() {
    let below = "time/clock.rs:2 imports lock/guard.rs";
    for import in [
        "use crate::lock::guard::Guard;",
        "use crate::{error, lock::{guard::{self, Guard}}};",
        "use super::super::lock::guard::Guard;",
        "fn f() -> crate::lock::guard::Guard { todo!() }",
        "fn f<'a>(c: char) { if c == '\"' { crate::lock::guard::f::<u8>(\"\\\"\") } }",
        "mod inner { use super::super::super::lock::guard::Guard; }",
    ] {
        let clock = format!("// use crate::lock::guard::Other;\n{import}");
        expect(
            &[
                ("time/clock.rs", &clock),
                ("lock/guard.rs", ""),
                ("error.rs", ""),
            ],
            &[below],
        );
    }
}

#[test]
fn import_in_a_test_or_a_text_is_no_fault() {
    let source = r##"
        /* crate::lock::guard */ const A: &str = r#"" crate::lock::guard::A"#;
        #[cfg(test)] #[allow(unused)] mod tests { use crate::lock::guard::{A}; fn f() { a[0] } }
        #[cfg(all(test, feature = "emulator"))] use crate::lock::guard::{B};
    "##;
    expect(&[("time/clock.rs", source), ("lock/guard.rs", "")], &[]);
    let after = format!("{source}use crate::lock::guard::C;");
    let found = "time/clock.rs:5 imports lock/guard.rs";
    expect(
        &[("time/clock.rs", &after), ("lock/guard.rs", "")],
        &[found],
    );
}

#[test]
fn circle_of_files_is_a_fault_with_all_its_steps() {
    let found = "lock/a.rs:1 imports lock/b.rs, lock/b.rs:1 imports lock/c.rs, lock/c.rs:2 imports lock/a.rs:";
    expect(
        &[
            ("lock/mod.rs", "mod a; mod b; mod c;"),
            ("lock/a.rs", "use super::b::B;"),
            ("lock/b.rs", "use crate::lock::c::C;"),
            ("lock/c.rs", "use crate::lock::d::D;\nuse super::a::A;"),
            ("lock/d.rs", ""),
        ],
        &[found],
    );
    expect(
        &[
            (
                "lock/mod.rs",
                "mod a; pub(crate) use self::a::A; fn f() { b::f() }",
            ),
            ("lock/a.rs", ""),
            ("lock/b.rs", "use super::A;"),
        ],
        &["lock/b.rs:1 imports lock/mod.rs, lock/mod.rs:1 imports lock/b.rs"],
    );
}

#[test]
fn circle_of_folders_is_a_fault() {
    let tree = tree(&[
        ("args/a.rs", "use crate::output::A;"),
        ("output.rs", "use crate::args::b::B;"),
        ("args/b.rs", ""),
    ]);
    let found = circles(&arrows(&tree));
    assert!(found[0].contains("args/a.rs:1 imports output.rs, output.rs:1 imports args/b.rs"));
    assert_eq!(found.len(), 1);
}

#[test]
fn emulator_imports_little() {
    expect(
        &[
            ("azure/sign.rs", ""),
            ("azure/client.rs", ""),
            ("time/mod.rs", ""),
            (
                "emulator/a.rs",
                "use crate::azure::sign::f;\nuse crate::azure::client::C;\nuse crate::time::T;",
            ),
        ],
        &["emulator/a.rs:2 imports azure/client.rs"],
    );
}

#[test]
fn import_of_a_re_export_and_a_file_in_no_layer_are_faults() {
    expect(
        &[
            ("lib.rs", ""),
            ("lock/a.rs", "use crate::Locker;"),
            ("new/a.rs", ""),
        ],
        &[
            "new/a.rs is in no layer",
            "lock/a.rs:1 imports from the crate's root",
        ],
    );
}

#[test]
fn exception_that_is_not_needed_is_a_fault() {
    let files = tree(&[("time/a.rs", "use crate::lock::b::B;"), ("lock/b.rs", "")]);
    assert!(library_faults(&files, &[("time/a.rs", "lock/b.rs")]).is_empty());
    let faults = library_faults(
        &files,
        &[("time/a.rs", "lock/b.rs"), ("time/a.rs", "lock/c.rs")],
    );
    assert_eq!(
        faults,
        ["time/a.rs imports lock/c.rs no longer: delete it in KNOWN"]
    );
}

#[test]
fn command_that_uses_what_is_not_public_is_found() {
    let library = tree(&[(
        "lib.rs",
        "mod azure; pub mod emulator; pub use azure::{a::A, b::{B, C}}; pub mod fuzzing;",
    )]);
    let good = "use azmutex::{A, emulator::Emulator}; fn f(c: azmutex::C) {}";
    let bad = "use azmutex::{A,\n azure::b::B}; #[path = \"../../azure/x.rs\"] mod x; use azmutex::fuzzing;";
    assert!(command_faults(&library, &tree(&[("main.rs", good)])).is_empty());
    let faults = command_faults(&library, &tree(&[("main.rs", bad)]));
    assert_eq!(faults.len(), 3, "{faults:#?}");
    assert!(faults[0].contains("main.rs:1 uses azmutex::azure"));
    assert!(faults[1].contains("main.rs:2 takes in a file"));
}
