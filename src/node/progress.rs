//! Progress on stderr while a command works: a bar on a terminal, plain lines elsewhere.

use std::fmt::Display;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Where progress is shown.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
}

impl Default for Progress {
    fn default() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self { bar }
    }
}

impl Progress {
    /// Says what happened; the line stays.
    pub fn say(&self, what: impl Display) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{what}")),
            None => eprintln!("{what}"),
        }
    }

    /// Begins something of so many steps; 0 if nobody knows.
    pub fn begin(&self, what: impl Display, steps: u64) {
        let Some(bar) = &self.bar else {
            return eprintln!("{what} ...");
        };
        let form = match steps {
            0 => "{spinner} {msg}",
            _ => "{spinner} {msg} [{bar:30}] {pos}/{len}",
        };
        if let Ok(style) = ProgressStyle::with_template(form) {
            bar.set_style(style);
        }
        bar.set_length(steps);
        bar.set_position(0);
        bar.set_message(what.to_string());
    }

    /// One step more.
    pub fn step(&self) {
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
    }

    /// Nothing is under way any more.
    pub fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
