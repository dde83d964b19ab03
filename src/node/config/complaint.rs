//! A complaint about a file: where, what, and what to do about it.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// What is wrong with a configuration, for the person who can put it right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// The file.
    pub file: PathBuf,
    /// Line in it, from 1, where one is to blame.
    pub line: Option<usize>,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}\n  remedy: {}", self.what, self.remedy)
    }
}

impl std::error::Error for Complaint {}

/// A file's text, for complaints that point into it.
#[derive(Debug)]
pub(super) struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    pub(super) fn read(path: &Path) -> Result<Self, Complaint> {
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Self {
                path: path.to_owned(),
                text,
            }),
            Err(error) => Err(Complaint {
                file: path.to_owned(),
                line: None,
                what: format!("cannot be read: {error}"),
                remedy: "give the path of a file that `bftws init` wrote, \
                         and run as the user who owns it"
                    .to_owned(),
            }),
        }
    }

    pub(super) fn parse<T: DeserializeOwned>(&self) -> Result<T, Complaint> {
        toml::from_str(&self.text).map_err(|error| Complaint {
            file: self.path.clone(),
            line: error.span().map(|span| self.line_of(span.start)),
            what: error.message().trim_end().replace('\n', "; "),
            remedy: "correct the line, or compare with a fresh file of `bftws init`".to_owned(),
        })
    }

    /// The same of a process's own file, for which the group's is easily taken.
    pub(super) fn parse_own<T: DeserializeOwned>(&self) -> Result<T, Complaint> {
        let table = toml::from_str::<toml::Table>(&self.text);
        if table.is_ok_and(|table| table.contains_key("agreement")) {
            let remedy = "give the process's own: replica-0.toml, gateway.toml or client-0.toml";
            return Err(self.whole("this is the group's file", remedy));
        }
        self.parse()
    }

    pub(super) fn at(
        &self,
        span: Range<usize>,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Complaint {
        Complaint {
            file: self.path.clone(),
            line: Some(self.line_of(span.start)),
            what: what.into(),
            remedy: remedy.into(),
        }
    }

    pub(super) fn whole(&self, what: impl Into<String>, remedy: impl Into<String>) -> Complaint {
        Complaint {
            line: None,
            ..self.at(0..0, what, remedy)
        }
    }

    /// A number, if it is within its bounds.
    pub(super) fn within(
        &self,
        value: &toml::Spanned<u64>,
        low: u64,
        high: u64,
    ) -> Result<u64, Complaint> {
        let number = *value.get_ref();
        if (low..=high).contains(&number) {
            return Ok(number);
        }
        let what = format!("{number} is out of bounds");
        Err(self.at(value.span(), what, format!("a number from {low} to {high}")))
    }

    /// A path that the file gives is meant from where the file lies.
    pub(super) fn beside(&self, path: &Path) -> PathBuf {
        self.path
            .parent()
            .map_or_else(|| path.to_owned(), |folder| folder.join(path))
    }

    fn line_of(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().get(..offset).unwrap_or_default();
        1 + before.iter().filter(|octet| **octet == b'\n').count()
    }
}
