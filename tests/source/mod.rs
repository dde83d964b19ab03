//! The repository's own text, for the tests that read it: which files there are, and what in a
//! Rust file is code, comment or string.
//!
//! The lexer knows just enough of Rust for that: nested comments, raw strings, characters that are
//! no lifetimes. It decides nothing about what is allowed.

#![allow(dead_code)] // Each of the tests that include this file uses a part of it.

use std::fs;
use std::path::{Path, PathBuf};

/// What a character of a Rust file belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Code,
    Comment,
    Text,
}

/// One file of the repository.
pub struct Source {
    /// From the root, with `/`.
    pub path: String,
    /// As it stands.
    pub text: String,
}

/// The root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files below a folder whose names end so, in the order of their paths.
pub fn files(folder: &str, ending: &str) -> Vec<Source> {
    let mut found = Vec::new();
    collect(&root().join(folder), ending, &mut found);
    found.sort();
    let read = |path: &PathBuf| {
        let text =
            fs::read_to_string(path).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
        let path = path.strip_prefix(root()).unwrap_or(path);
        Source {
            path: path.to_string_lossy().into_owned(),
            text,
        }
    };
    found.iter().map(read).collect()
}

fn collect(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|why| panic!("{}: {why}", folder.display()));
    for entry in entries {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !name.starts_with('.') && name != "target" && name != "__pycache__" {
                collect(&path, ending, found);
            }
        } else if name.ends_with(ending) {
            found.push(path);
        }
    }
}

impl Source {
    /// The code: comments and the insides of strings are blank, lines stay where they are.
    pub fn code(&self) -> String {
        let blank = |(c, kind)| {
            if kind == Kind::Code || c == '\n' {
                c
            } else {
                ' '
            }
        };
        self.kinds().into_iter().map(blank).collect()
    }

    /// Code and comments, with nothing between the quotes of a string.
    pub fn without_strings(&self) -> String {
        let kept = self.kinds().into_iter();
        kept.filter(|(c, kind)| *kind != Kind::Text || *c == '\n')
            .map(|(c, _)| c)
            .collect()
    }

    fn kinds(&self) -> Vec<(char, Kind)> {
        let text: Vec<char> = self.text.chars().collect();
        let mut out = Vec::with_capacity(text.len());
        while out.len() < text.len() {
            let (length, kind) = token(&text[out.len()..], out.last().map(|(c, _)| *c));
            for offset in 0..length {
                // Quotes are code, so that a string leaves its place.
                let edge = offset == 0 || offset + 1 == length;
                let kind = if kind == Kind::Text && edge {
                    Kind::Code
                } else {
                    kind
                };
                out.push((text[out.len()], kind));
            }
        }
        out
    }
}

/// Length and kind of what stands at the beginning of `rest`, after the character `before`.
fn token(rest: &[char], before: Option<char>) -> (usize, Kind) {
    match rest {
        ['/', '/', ..] => {
            let end = rest.iter().position(|c| *c == '\n');
            (end.unwrap_or(rest.len()), Kind::Comment)
        }
        ['/', '*', ..] => (block_comment(rest), Kind::Comment),
        ['"', ..] => (string(rest), Kind::Text),
        ['r', '"' | '#', ..] if !before.is_some_and(|c| c.is_alphanumeric() && c != 'b') => {
            raw_string(rest).map_or((1, Kind::Code), |length| (length, Kind::Text))
        }
        ['\'', '\\', _, tail @ ..] => {
            let end = tail.iter().position(|c| *c == '\'');
            (4 + end.unwrap_or(0), Kind::Text)
        }
        ['\'', _, '\'', ..] => (3, Kind::Text),
        _ => (1, Kind::Code),
    }
}

fn block_comment(rest: &[char]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match &rest[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn string(rest: &[char]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

fn raw_string(rest: &[char]) -> Option<usize> {
    let hashes = rest[1..].iter().take_while(|c| **c == '#').count();
    if rest.get(1 + hashes) != Some(&'"') {
        return None;
    }
    let mut end = vec!['"'];
    end.resize(1 + hashes, '#');
    let start = 2 + hashes;
    let inside = rest[start..].windows(end.len()).position(|w| w == end)?;
    Some(start + inside + end.len())
}

#[test]
fn code_comments_and_strings_are_told_apart() {
    let source = |text: &str| Source {
        path: String::new(),
        text: text.to_owned(),
    };
    let code = source("a \"s\\\"t\" b // c\n'\"' d /* e /* f */ g */ h r#\"i\"j\"# k<'l>\n").code();
    assert_eq!(
        code.split_whitespace().collect::<String>(),
        "a\"\"b''dhr#k<'l>"
    );
    assert_eq!(source("a(\"b\") // c").without_strings(), "a(\"\") // c");
    assert_eq!(source("'\\''x'\\u{7f}'y").code(), "'  'x'      'y");
}
