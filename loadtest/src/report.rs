//! A mode's result, as a table for people and JSON for programs, and a progress line while it runs.

use std::io::{IsTerminal, Write, stderr, stdout};
use std::path::Path;

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::process::{Cost, MemoryUse};

/// Names and values in the order in which they are shown, a table of details and sentences below them.
#[derive(Debug, Clone)]
pub struct Report {
    title: &'static str,
    rows: Vec<(String, String)>,
    details: Option<Vec<Vec<String>>>,
    notes: Vec<String>,
}

impl Report {
    /// An empty report.
    #[must_use]
    pub fn new(title: &'static str) -> Self {
        Self { title, rows: Vec::new(), details: None, notes: Vec::new() }
    }

    /// Adds a row.
    pub fn row(&mut self, name: impl Into<String>, value: impl ToString) {
        self.rows.push((name.into(), value.to_string()));
    }

    /// Adds what the measurement cost the processes under test.
    pub fn cost(&mut self, cost: &Cost) {
        self.row("CPU, core-seconds", &cost.cpu_seconds);
        for MemoryUse { name, before_kb, highest_kb, after_kb } in &cost.memory {
            let kb = format!("{before_kb} / {highest_kb} / {after_kb}");
            self.row(format!("{name}: RSS before / highest / after, KB"), kb);
        }
    }

    /// Adds a line to the table of details below; the first one is its header.
    pub fn detail(&mut self, line: Vec<String>) {
        self.details.get_or_insert_default().push(line);
    }

    /// Adds a sentence.
    pub fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// Shows the table on standard output; with `json` it writes `value` there as well (`-`: to standard output,
    /// instead of the table).
    ///
    /// # Errors
    /// Standard output or the file can't be written.
    pub fn show(&self, value: &impl Serialize, json: Option<&Path>) -> Result<()> {
        let text = serde_json::to_string_pretty(value)?;
        match json {
            Some(path) if path.as_os_str() == "-" => {
                writeln!(stdout(), "{text}")?;
                return Ok(());
            }
            Some(path) => std::fs::write(path, text).with_context(|| format!("can't write {}", path.display()))?,
            None => {}
        }
        let mut out = stdout().lock();
        let rows = self.rows.iter().map(|(name, value)| vec![name.clone(), value.clone()]);
        writeln!(out, "{}", table(std::iter::once(vec![self.title.to_owned(), String::new()]).chain(rows)))?;
        if let Some(details) = &self.details {
            writeln!(out, "{}", table(details.iter().cloned()))?;
        }
        for note in &self.notes {
            writeln!(out, "{note}")?;
        }
        Ok(())
    }
}

/// A header and rows, all but the first column to the right.
fn table(mut lines: impl Iterator<Item = Vec<String>>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header(lines.next().unwrap_or_default());
    table.add_rows(lines);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Writes a line to standard error, where it disturbs neither the table nor the JSON.
pub fn announce(text: &str) {
    // A terminal that has gone away is no reason to stop a measurement.
    let _ = writeln!(stderr(), "{text}");
}

/// A line on the terminal that is written over and over; nothing when standard error is no terminal.
#[derive(Debug)]
pub struct Progress {
    shown: bool,
}

impl Progress {
    /// A progress line, if there is a terminal for it.
    #[must_use]
    pub fn new() -> Self {
        Self { shown: stderr().is_terminal() }
    }

    /// Shows this text in place of the last one.
    pub fn show(&self, text: &str) {
        if self.shown {
            // A terminal that has gone away is no reason to stop a measurement.
            let _ = write!(stderr(), "\r\x1b[K{text}");
        }
    }

    /// Removes the line.
    pub fn clear(&self) {
        self.show("");
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}
