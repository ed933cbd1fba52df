//! What commands print: lines and aligned tables for people, JSON for programs.
//!
//! Everything on stdout goes through here, so that a closed pipe ends a command quietly instead of panicking as
//! `println!` does. Notes for people that are not the answer itself go to stderr.

use std::fmt::Display;
use std::io::{self, Write};

use serde::Serialize;

use crate::exit::{Code, Failure, Result, output_failure};

/// How answers are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Format {
    /// Aligned tables and sentences.
    #[default]
    Text,
    /// One JSON document.
    Json,
}

/// Prints one line to stdout.
pub(crate) fn line(text: impl Display) -> Result<()> {
    write_out(&format!("{text}\n"))
}

/// Prints `value` as JSON to stdout.
pub(crate) fn json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::new(Code::Failure, format!("cannot write the answer as JSON: {error}")))?;
    line(text)
}

/// Prints a note to stderr. Losing a note is no failure.
pub(crate) fn note(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

fn write_out(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|error| output_failure(&error))
}

/// Rows under a heading, columns as wide as their widest cell.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(heading: &[&str]) -> Self {
        Self {
            rows: vec![heading.iter().map(|cell| (*cell).to_owned()).collect()],
        }
    }

    /// Adds a row; it has as many cells as the heading.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        debug_assert_eq!(
            cells.len(),
            self.rows[0].len(),
            "cells of a row and of the heading differ"
        );
        self.rows.push(cells.into());
    }

    /// Prints the table to stdout.
    pub(crate) fn print(&self) -> Result<()> {
        write_out(&self.text())
    }

    /// Its lines.
    pub(crate) fn text(&self) -> String {
        let columns = self.rows[0].len();
        let widths: Vec<usize> = (0..columns).map(|column| self.width(column)).collect();
        let mut text = String::new();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            text.push('\n');
        }
        text
    }

    fn width(&self, column: usize) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_have_no_trailing_blanks() {
        let mut table = Table::new(&["NAME", "LEADER"]);
        table.row(["orders".to_owned(), "n1".to_owned()]);
        table.row(["größe".to_owned(), String::new()]);
        assert_eq!(table.text(), "NAME    LEADER\norders  n1\ngröße\n");
    }
}
