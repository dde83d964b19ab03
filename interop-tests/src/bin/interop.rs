//! Runs foreign peers of WS-ReliableMessaging against a gateway and writes down what they do:
//! `interop-tests/run [--peer P] [--json]`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use bft_ws_interop_tests::gsoap::gsoap;
use bft_ws_interop_tests::matrix::{Cell, document, sandesha2};
use bft_ws_interop_tests::wrapped;
use clap::Parser;
use serde_json::json;

/// Runs foreign peers against a gateway and writes docs/interop.md
#[derive(Parser)]
struct Options {
    /// Only this peer; the document is then left as it is
    #[arg(long, value_parser = ["sandesha2", "gsoap"])]
    peer: Option<String>,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
}

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    let wanted = |peer| options.peer.as_deref().is_none_or(|only| only == peer);
    let mut cells: Vec<Cell> = Vec::new();
    if wanted("sandesha2") {
        cells.extend(sandesha2()?);
        cells.extend(wrapped::sandesha2_cells()?);
    }
    if wanted("gsoap") {
        cells.extend(gsoap()?);
        cells.extend(wrapped::gsoap_cells()?);
    }
    if options.peer.is_none() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let file = root.join("docs/interop.md");
        // What follows the matrix was written by people.
        let before = std::fs::read_to_string(&file)?;
        let rest = before.find("\n## ").and_then(|at| before.get(at..));
        std::fs::write(file, document(&cells) + rest.unwrap_or_default())?;
    }
    if options.json {
        let cells: Vec<_> = cells.iter().map(Cell::json).collect();
        println!("{}", json!({"schema": 1, "cells": cells}));
    } else {
        print!("{}", document(&cells));
    }
    for cell in cells.iter().filter(|cell| cell.failed.is_some()) {
        eprintln!("failed: {}", cell.json());
    }
    Ok(match cells.iter().any(|cell| cell.failed.is_some()) {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    })
}
