//! Every fuzz target takes the small inputs that it begins with, so that the targets build and go
//! on as the code does. What only much running finds is left to them (CONTRIBUTING.md).

mod source;

#[path = "../fuzz/src/lib.rs"]
mod targets;

use source::root;

/// A target and what it does with octets.
type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 15] = [
    ("agreement", targets::agreement),
    ("bundle", targets::bundle),
    ("envelope", targets::envelope),
    ("front", targets::front),
    ("headers", targets::headers),
    ("log", targets::log),
    ("messages", targets::messages),
    ("mime", targets::mime),
    ("replica", targets::replica),
    ("reply", targets::reply),
    ("service", targets::service),
    ("signed", targets::signed),
    ("snapshot", targets::snapshot),
    ("transfer", targets::transfer),
    ("xml", targets::xml),
];

fn names(folder: &str) -> Vec<String> {
    let all = std::fs::read_dir(root().join(folder)).unwrap();
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.unwrap().path();
        path.file_stem().unwrap().to_string_lossy().into_owned()
    };
    let mut names: Vec<_> = all.map(name).collect();
    names.sort();
    names
}

#[test]
fn each_target_takes_what_it_begins_with() {
    for (name, target) in TARGETS {
        let folder = root().join("fuzz/corpus").join(name);
        let mut inputs = 0;
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            eprintln!("{}", path.display());
            target(&std::fs::read(path).unwrap());
            inputs += 1;
        }
        assert!(inputs > 0, "{name}");
        target(&[]);
    }
}

#[test]
fn each_target_stands_here() {
    let here: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names("fuzz/fuzz_targets"), here);
    assert_eq!(names("fuzz/corpus"), here);
}

/// Else the fuzzer must guess all that a snapshot begins with.
#[test]
fn a_snapshot_to_begin_with_is_one_still() {
    let octets = std::fs::read(root().join("fuzz/corpus/snapshot/empty")).unwrap();
    let calls = bft_ws::state::calls::Calls::restore(&octets);
    assert!(calls.is_ok_and(|calls| calls.snapshot() == octets));
}
