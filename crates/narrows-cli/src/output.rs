//! What the program prints: results on standard output, everything about them on standard error.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use comfy_table::{Cell, CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::failure::{Failure, Result};

/// Where a command's words go.
///
/// - [`Output::print`] and [`Output::print_json`]: the result, on standard output (on standard error
///   when [standard output carries data](Output::beside_data));
/// - [`Output::note`]: a remark for people, on standard error, unless `--quiet` or `--json`;
/// - [`Output::progress`]: a bar, where a person can see it.
#[derive(Clone, Debug)]
pub struct Output {
    json: bool,
    quiet: bool,
    data_on_stdout: bool,
}

/// The side of a column that its cells keep to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A table without lines, but for one under the headings.
pub fn table(headings: &[(&str, Align)]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(headings.iter().map(|(heading, _)| Cell::new(heading)));
    for ((_, align), column) in headings.iter().zip(table.column_iter_mut()) {
        column.set_cell_alignment(match align {
            Align::Left => CellAlignment::Left,
            Align::Right => CellAlignment::Right,
        });
        column.set_padding((0, 2));
    }
    table
}

impl Output {
    pub const fn new(json: bool, quiet: bool) -> Self {
        Self { json, quiet, data_on_stdout: false }
    }

    /// Whether the result should be JSON.
    pub const fn is_json(&self) -> bool {
        self.json
    }

    /// Whether progress and remarks are unwanted.
    pub const fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// The same output for a command that writes data to standard output: results go to standard error.
    #[must_use]
    pub fn beside_data(&self) -> Self {
        Self { data_on_stdout: true, ..self.clone() }
    }

    /// Print a result for people, and a line break.
    pub fn print(&self, text: impl Display) -> Result<()> {
        let text = text.to_string();
        // Tables pad their last column.
        let lines = text.split('\n').map(|line| line.trim_end_matches(' ')).collect::<Vec<_>>();
        self.write(&format!("{}\n", lines.join("\n")))
    }

    /// Print a result for programs: one JSON value on a line.
    pub fn print_json(&self, value: &impl Serialize) -> Result<()> {
        let mut text = serde_json::to_string(value).expect("results are plain data");
        text.push('\n');
        self.write(&text)
    }

    fn write(&self, text: &str) -> Result<()> {
        let written = if self.data_on_stdout {
            io::stderr().lock().write_all(text.as_bytes())
        } else {
            let mut stdout = io::stdout().lock();
            stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())
        };
        written.map_err(|error| Failure::stdout(&error))
    }

    /// Print a remark for people.
    pub fn note(&self, text: impl Display) {
        if !self.quiet && !self.json {
            // Nobody is there to hear that nobody is there.
            let _ = writeln!(io::stderr().lock(), "{text}");
        }
    }

    /// Say why the program stops.
    pub fn failure(&self, failure: &Failure) {
        let mut stderr = io::stderr().lock();
        let _ = if self.json {
            let error = serde_json::json!({ "error": failure });
            writeln!(stderr, "{error}")
        } else {
            writeln!(stderr, "{failure}")
        };
    }

    /// A progress bar over `length` steps; invisible unless a person is watching.
    pub fn progress(&self, length: u64, what: &'static str) -> ProgressBar {
        if self.quiet || self.json || !io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template("{msg:<12} {bar:32} {pos}/{len}  {eta} left")
            .expect("the template is one")
            .progress_chars("━╸─");
        let bar = ProgressBar::new(length).with_style(style).with_message(what);
        bar.enable_steady_tick(Duration::from_millis(200));
        bar
    }
}

/// A count of things for people: `1 lane`, `2 lanes`, `1,000 lanes`.
pub fn counted(n: usize, what: &str) -> String {
    format!("{} {what}{}", grouped(n as u64), if n == 1 { "" } else { "s" })
}

/// A number for people: `401,408`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
