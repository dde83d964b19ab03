//! The repository's text keeps to what CONTRIBUTING.md asks for, as far as a machine can tell.
//!
//! What the compiler, rustfmt and clippy check is not repeated here.

mod source;

use source::{Source, files, root};

/// Columns of a line; strings and addresses may be longer.
const COLUMNS: usize = 100;
/// Lines of a file; most have 100 to 400.
const LINES: usize = 700;

/// What is never committed, wherever it stands.
const NOT_IN_CODE: &[&str] = &["todo!", "unimplemented!", "dbg!", "#[ignore"];
/// Notes to oneself; what is missing stands in the README.
const NOT_IN_COMMENTS: &[&str] = &["TODO", "FIXME", "XXX"];

fn rust() -> Vec<Source> {
    let mut all = files("src", ".rs");
    all.extend(files("tests", ".rs"));
    all.extend(files("interop-tests", ".rs"));
    all
}

fn report(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn lines_have_at_most_100_columns() {
    let mut wrong = Vec::new();
    let mut all = rust();
    all.extend(files("interop-tests", ".py"));
    for file in all {
        let bare = file.without_strings();
        let lines = file.text.lines().zip(bare.lines());
        for (number, (line, bare)) in lines.enumerate() {
            let long = line.chars().count() > COLUMNS && bare.chars().count() > COLUMNS;
            if long && !line.contains("://") {
                wrong.push(format!("{}:{}", file.path, number + 1));
            }
        }
    }
    report(&wrong);
}

#[test]
fn files_have_at_most_700_lines() {
    let long = |file: &Source| file.text.lines().count() > LINES;
    let wrong: Vec<_> = rust()
        .into_iter()
        .filter(long)
        .map(|file| file.path)
        .collect();
    report(&wrong);
}

#[test]
fn each_file_says_at_its_head_what_it_decides() {
    let headless = |file: &Source| !file.text.starts_with("//! ");
    let wrong: Vec<_> = rust()
        .into_iter()
        .filter(headless)
        .map(|file| file.path)
        .collect();
    report(&wrong);
}

#[test]
fn nothing_is_left_for_later() {
    let mut wrong = Vec::new();
    for file in rust() {
        let code = file.code();
        for (number, (line, code)) in file.text.lines().zip(code.lines()).enumerate() {
            let in_code = NOT_IN_CODE.iter().any(|word| code.contains(word));
            // The words of a comment are what stands in the line and not in its code or strings.
            let comment = line.contains("//") && !line.contains('"');
            let in_comment = comment && NOT_IN_COMMENTS.iter().any(|word| line.contains(word));
            if in_code || in_comment {
                wrong.push(format!("{}:{}: {}", file.path, number + 1, line.trim()));
            }
        }
    }
    report(&wrong);
}

#[test]
fn no_source_file_is_forgotten() {
    let all = files("src", ".rs");
    let declared = |file: &Source| {
        let path = file.path.trim_end_matches(".rs").trim_end_matches("/mod");
        let Some((folder, name)) = path.rsplit_once('/') else {
            return false;
        };
        let parents = [
            format!("{folder}.rs"),
            format!("{folder}/mod.rs"),
            format!("{folder}/lib.rs"),
            format!("{folder}/main.rs"),
        ];
        let line = format!("mod {name};");
        let root = matches!(name, "lib" | "main");
        root || all
            .iter()
            .any(|other| parents.contains(&other.path) && other.code().contains(&line))
    };
    let wrong: Vec<_> = all
        .iter()
        .filter(|file| !declared(file))
        .map(|file| &file.path)
        .collect();
    assert!(wrong.is_empty(), "no `mod` names them: {wrong:?}");
}

#[test]
fn documents_name_only_files_that_are_there() {
    let mut wrong = Vec::new();
    let rust = rust();
    // A document may leave out the folders of a Rust file's path.
    let is_rust = |name: &str| {
        let ending = format!("/{name}");
        name.ends_with(".rs") && rust.iter().any(|file| file.path.ends_with(&ending))
    };
    for document in files(".", ".md") {
        for (number, line) in document.text.lines().enumerate() {
            for name in names_of_files(line) {
                if !root().join(name).exists() && !is_rust(name) {
                    wrong.push(format!("{}:{}: {name}", document.path, number + 1));
                }
            }
        }
    }
    report(&wrong);
}

/// In a document, what stands in `backticks` or (a link) and begins with a folder of ours or is
/// the name of a Rust file.
fn names_of_files(line: &str) -> impl Iterator<Item = &str> {
    const FOLDERS: &[&str] = &[
        "src/",
        "tests/",
        "interop-tests/",
        "schemas/",
        "wsdl/",
        "docs/",
        "fuzz/",
        "examples/",
    ];
    let words = line.split(['`', '(', ')']).skip(1);
    let ours = words.filter(|word| {
        word.ends_with(".rs") || FOLDERS.iter().any(|folder| word.starts_with(folder))
    });
    ours.filter(|word| !word.contains([' ', '*', '{', '<']))
}

#[test]
fn what_stands_against_each_attack_is_there() {
    let sources: String = rust().into_iter().map(|file| file.text).collect();
    let plants = |name: &str| sources.contains(&format!("\"{name}\""));
    let stands = |name: &str| sources.contains(&format!("fn {name}(")) || plants(name);
    let mut wrong = Vec::new();
    for file in files("docs", "attacks.md") {
        let rows = file.text.lines().filter(|line| line.starts_with("| "));
        for name in rows.flat_map(|row| row.split('`').skip(1).step_by(2)) {
            if !stands(name) && name != "fuzz/" {
                wrong.push(format!("{}: {name}", file.path));
            }
        }
    }
    report(&wrong);
}

#[test]
fn nothing_is_tied_to_one_machine() {
    let mut wrong = Vec::new();
    for ending in [
        ".rs", ".py", ".java", ".md", ".toml", ".xml", ".xsd", ".wsdl",
    ] {
        for file in files(".", ending) {
            for (number, line) in file.text.lines().enumerate() {
                // Built from pieces, so that this file does not name them.
                let place = ["work", "root", "home"].map(|folder| format!("/{folder}/"));
                if place.iter().any(|place| line.contains(place.as_str())) {
                    wrong.push(format!("{}:{}: {}", file.path, number + 1, line.trim()));
                }
            }
        }
    }
    report(&wrong);
}
