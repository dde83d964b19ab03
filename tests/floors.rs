//! Which module may know which: the floors of the house, in one table, and what each may use from
//! outside. A newcomer reads here where a new file belongs.
//!
//! A module names only modules on floors below its own; files of one module are free among
//! themselves. Nothing but the topmost floors touches a clock, entropy, a socket, a disk or a
//! thread: that is what lets the whole of a group run in one process under one seed.

mod source;

use std::collections::{BTreeMap, BTreeSet};

use source::{Source, files};

/// From the ground up. On the ground, modules may know each other: they are only words.
const FLOORS: &[&[&str]] = &[
    &["types", "limits", "error", "crypto", "plant"],
    &["soap", "log"],
    &["rm", "pbft", "state"],
    &["wire"],
    &["endpoint", "app"],
    &["node", "sim"],
    &["bin"],
];

/// Modules that may touch the world; all others are pure.
const IMPURE: &[&str] = &["node", "bin"];

/// Libraries that a pure module may use, and which: the rest of Cargo.toml is for `IMPURE` ones.
const LIBRARIES: &[(&str, &[&str])] = &[
    ("base64", &["soap", "wire", "crypto", "rm", "endpoint"]),
    ("quick_xml", &["soap"]),
    ("aws_lc_rs", &["crypto"]),
    ("rcgen", &["crypto"]),
    ("x509_parser", &["crypto"]),
    ("bytes", &["state", "wire", "endpoint", "app", "sim"]),
    ("rand_chacha", &["endpoint", "sim"]),
    ("crc32fast", &["log"]),
    ("thiserror", &["crypto", "error", "log", "endpoint"]),
    (
        "uuid",
        &["types", "rm", "wire", "state", "endpoint", "app", "sim"],
    ),
    ("serde", &["sim"]),
    ("serde_json", &["sim"]),
];

/// What no pure module names, whatever it needs it for.
const WORLD: &[&str] = &[
    "Instant::now",
    "SystemTime",
    "HashMap",
    "HashSet",
    "RandomState",
    "new_v4",
    "getrandom",
    "thread_rng",
    "std::env",
    "std::fs",
    "std::net",
    "std::os",
    "std::process",
    "std::thread",
    "std::time",
    "std::sync::Mutex",
    "println!",
    "eprintln!",
    "dbg!",
];

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

/// `src/pbft/slots.rs` and `src/pbft.rs` are of the module `pbft`; `src/lib.rs` of none.
fn module(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("src/")?;
    let name = inside.split('/').next()?;
    let name = name.strip_suffix(".rs").unwrap_or(name);
    (name != "lib").then_some(name)
}

/// How many modules a file stands below the root of the crate.
fn depth(path: &str) -> usize {
    let inside = path.trim_start_matches("src/").trim_end_matches(".rs");
    inside.trim_end_matches("/mod").split('/').count()
}

/// Names of modules at the root of the crate that a file's code mentions.
fn named(file: &Source) -> BTreeSet<String> {
    let code = file.code();
    let mut names = BTreeSet::new();
    for start in ["crate::", "bft_ws::"] {
        for (at, _) in code.match_indices(start) {
            heads(&code[at + start.len()..], &mut names);
        }
    }
    // Enough `super`s lead to the root as well.
    let climb = "super::".repeat(depth(&file.path));
    for (at, _) in code.match_indices(&climb) {
        let mut found = BTreeSet::new();
        heads(code[at..].trim_start_matches("super::"), &mut found);
        names.extend(found.into_iter().filter(|name| floor(name).is_some()));
    }
    names
}

/// First names of a path, or of each path in a `{group}`.
fn heads(rest: &str, names: &mut BTreeSet<String>) {
    let Some(group) = rest.strip_prefix('{') else {
        let name: String = rest
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        names.insert(name);
        return;
    };
    let (mut depth, mut begin) = (0, true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => return,
            '}' => depth -= 1,
            ',' if depth == 0 => begin = true,
            c if begin && c.is_alphanumeric() => {
                heads(&group[at..], names);
                begin = false;
            }
            _ => (),
        }
    }
}

#[test]
fn every_module_has_a_floor_and_imports_only_from_below() {
    let mut wrong = Vec::new();
    for file in files("src", ".rs") {
        let Some(own) = module(&file.path) else {
            continue;
        };
        let Some(stands) = floor(own) else {
            wrong.push(format!("{}: `{own}` has no floor: give it one", file.path));
            continue;
        };
        for name in named(&file) {
            // A module of the binary names its own siblings through `crate`.
            if name == own || own == "bin" && floor(&name).is_none() {
                continue;
            }
            let below =
                floor(&name).is_some_and(|other| other < stands || stands == 0 && other == 0);
            if !below {
                wrong.push(format!(
                    "{}: floor {stands} may not know `{name}`",
                    file.path
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn only_the_topmost_floors_touch_the_world() {
    let mut wrong = Vec::new();
    for file in pure() {
        for (number, line) in file.code().lines().enumerate() {
            for name in WORLD.iter().filter(|name| line.contains(**name)) {
                wrong.push(format!("{}:{}: `{name}`", file.path, number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn pure_modules_use_the_libraries_listed_for_them() {
    let allowed: BTreeMap<_, _> = LIBRARIES.iter().copied().collect();
    let manifest = std::fs::read_to_string(source::root().join("Cargo.toml")).unwrap();
    let dependencies = manifest.split("[dependencies]").nth(1).unwrap();
    let dependencies = dependencies.split("\n[").next().unwrap();
    let dependencies: Vec<_> = dependencies
        .lines()
        .filter_map(|line| Some(line.split_once(" = ")?.0.replace('-', "_")))
        .collect();
    assert!(
        dependencies.len() > 10,
        "Cargo.toml is read: {dependencies:?}"
    );
    let mut wrong = Vec::new();
    for file in pure() {
        let (code, own) = (file.code(), module(&file.path).unwrap_or_default());
        for library in &dependencies {
            let path = format!("{library}::");
            let used = code.match_indices(&path).any(|(at, _)| {
                let before = code[..at].chars().next_back();
                !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
            });
            if used
                && !allowed
                    .get(library.as_str())
                    .is_some_and(|may| may.contains(&own))
            {
                wrong.push(format!("{}: `{library}` is not for `{own}`", file.path));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// The files of pure modules that are built into the product; their tests may read files.
fn pure() -> impl Iterator<Item = Source> {
    files("src", ".rs").into_iter().filter(|file| {
        let pure = module(&file.path).is_some_and(|own| !IMPURE.contains(&own));
        pure && !file.path.contains("/tests/") && !file.path.ends_with("tests.rs")
    })
}

#[test]
fn names_are_found_in_every_form_of_path() {
    let file = |text: &str| Source {
        path: "src/pbft/slots.rs".to_owned(),
        text: text.to_owned(),
    };
    let of = |text: &str| named(&file(text)).into_iter().collect::<Vec<_>>().join(" ");
    assert_eq!(of("use crate::types::View;"), "types");
    assert_eq!(
        of("use crate::{types::{View, Seqno}, soap, log::Record};"),
        "log soap types"
    );
    assert_eq!(
        of("use super::super::node::clock; super::io::x(); // crate::sim"),
        "node"
    );
    assert_eq!(of("fn f() { crate::wire::x(\"crate::rm\") }"), "wire");
}
