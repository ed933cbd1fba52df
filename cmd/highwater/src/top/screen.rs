//! A view as text, plain or with the few colours that every terminal has. No colour says what no word says.

use highwater_node::attention::{Finding, Severity};

use super::gather::{GroupView, NodeView, TopicView, View};
use crate::output::Table;

/// Rows of a table that are shown; the busiest, or those that lag the most, come first.
const ROWS_MAX: usize = 12;

/// As wide as the word for how much a finding matters.
const INDENT: &str = "         ";

const BOLD: &str = "\x1b[1m";
const RED: &str = "\x1b[31m";
const YELLOW: &str = "\x1b[33m";
const PLAIN: &str = "\x1b[0m";

/// `width`: of the terminal that it is for, in which sentences are to be broken into lines; None: it is for none.
pub(super) fn text(view: &View, width: Option<usize>) -> String {
    let paint = |style: &str, text: &str| match width {
        Some(_) => format!("{style}{text}{PLAIN}"),
        None => text.to_owned(),
    };
    let leader = match view.catalog_leader.as_str() {
        "" => "nobody leads the catalog".to_owned(),
        leader => format!("{leader} leads the catalog"),
    };
    let mut text = format!("{}  as {} sees it, {leader}\n\n", paint(BOLD, &view.cluster), view.node);
    for finding in &view.findings {
        text.push_str(&attention(finding, width, &paint));
    }
    if view.findings.is_empty() {
        text.push_str("Nothing needs attention, of the nodes and of this tenant's topics.\n");
    }
    text.push('\n');
    text.push_str(&nodes(&view.nodes).text());
    for table in [topics(&view.topics), groups(&view.groups)].into_iter().flatten() {
        text.push('\n');
        text.push_str(&table);
    }
    text
}

fn attention(finding: &Finding, width: Option<usize>, paint: &impl Fn(&str, &str) -> String) -> String {
    let (style, word) = match finding.severity {
        Severity::Critical => (RED, "CRITICAL"),
        Severity::Warning => (YELLOW, "WARNING "),
        Severity::Notice => (BOLD, "NOTICE  "),
    };
    let sentences = format!("{} {}", finding.what, finding.meaning);
    let to_do = format!("To do: {}", finding.action);
    let indented = |text: &str| broken(text, width).join(&format!("\n{INDENT}"));
    format!(
        "{} {}\n{INDENT}{}\n",
        paint(style, word),
        indented(&sentences),
        indented(&to_do)
    )
}

/// Words in lines that fit behind the indent; a word that does not fit has a line of its own.
fn broken(text: &str, width: Option<usize>) -> Vec<String> {
    let room = width.map_or(usize::MAX, |width| width.saturating_sub(INDENT.len()));
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= room => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn nodes(nodes: &[NodeView]) -> Table {
    let mut table = Table::new(&["NODE", "RACK", "STATE", "LEADERS", "REPLICAS", "DISK", "CPU", "VERSION"]);
    for node in nodes {
        table.row([
            node.name.clone(),
            dash(&node.rack),
            node.state.to_owned(),
            node.leaders.to_string(),
            node.replicas.to_string(),
            percent(node.disk_used_percent),
            percent(node.cpu_percent),
            dash(&node.version),
        ]);
    }
    table
}

fn topics(topics: &[TopicView]) -> Option<String> {
    let mut busiest: Vec<&TopicView> = topics.iter().collect();
    busiest.sort_by_key(|topic| {
        std::cmp::Reverse(topic.produced_per_second.unwrap_or(0) + topic.consumed_per_second.unwrap_or(0))
    });
    let mut table = Table::new(&["TOPIC", "PARTITIONS", "RECORDS", "IN/S", "OUT/S", "REPLICA LAG"]);
    for topic in busiest.iter().take(ROWS_MAX) {
        table.row([
            topic.name.clone(),
            topic.partitions.to_string(),
            topic.records.to_string(),
            rate(topic.produced_per_second),
            rate(topic.consumed_per_second),
            topic.lag_records.to_string(),
        ]);
    }
    shown(&table, topics.len(), "topics")
}

fn groups(groups: &[GroupView]) -> Option<String> {
    let mut slowest: Vec<&GroupView> = groups.iter().collect();
    slowest.sort_by_key(|group| std::cmp::Reverse(group.lag_records));
    let mut table = Table::new(&["GROUP", "TOPIC", "LAG"]);
    for group in slowest.iter().take(ROWS_MAX) {
        table.row([group.group.clone(), group.topic.clone(), group.lag_records.to_string()]);
    }
    shown(&table, groups.len(), "groups")
}

/// A table, and how many rows it leaves out; None if there are no rows.
fn shown(table: &Table, count: usize, noun: &str) -> Option<String> {
    let rest = match count.checked_sub(ROWS_MAX) {
        None | Some(0) => String::new(),
        Some(more) => format!("and {more} more {noun}\n"),
    };
    (count > 0).then(|| format!("{}{rest}", table.text()))
}

fn dash(text: &str) -> String {
    if text.is_empty() { "-" } else { text }.to_owned()
}

fn percent(number: Option<u64>) -> String {
    number.map_or_else(|| "-".to_owned(), |number| format!("{number} %"))
}

fn rate(number: Option<u64>) -> String {
    number.map_or_else(|| "-".to_owned(), |number| number.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> View {
        View {
            cluster: "dev".to_owned(),
            node: "n1".to_owned(),
            catalog_leader: String::new(),
            nodes: vec![NodeView {
                name: "n1".to_owned(),
                rack: String::new(),
                state: "AWAY",
                leaders: 3,
                replicas: 9,
                disk_used_percent: None,
                cpu_percent: Some(12),
                version: "0.1.0".to_owned(),
            }],
            topics: Vec::new(),
            groups: (0..20)
                .map(|lag_records| GroupView {
                    group: format!("g{lag_records}"),
                    topic: "orders".to_owned(),
                    lag_records,
                })
                .collect(),
            findings: vec![Finding {
                severity: Severity::Critical,
                about: "n1".to_owned(),
                what: "It is gone.".to_owned(),
                meaning: "That is bad.".to_owned(),
                action: "Bring it back.".to_owned(),
            }],
        }
    }

    #[test]
    fn words_say_all_and_colours_only_repeat_it() {
        let plain = text(&view(), None);
        assert!(!plain.contains('\x1b'));
        for part in [
            "nobody leads the catalog",
            "CRITICAL It is gone. That is bad.",
            "To do: Bring it back.",
            "AWAY",
            "12 %",
        ] {
            assert!(plain.contains(part), "{part}: {plain}");
        }
        let coloured = text(&view(), Some(80));
        assert!(coloured.contains("\x1b[31mCRITICAL\x1b[0m"), "{coloured:?}");
    }

    #[test]
    fn sentences_are_broken_where_the_terminal_ends() {
        let narrow = text(&view(), Some(30));
        assert!(
            narrow.contains("CRITICAL\x1b[0m It is gone. That is\n         bad.\n"),
            "{narrow:?}"
        );
        assert_eq!(
            broken("a word-that-is-long b", Some(14)),
            ["a", "word-that-is-long", "b"]
        );
    }

    #[test]
    fn those_that_lag_the_most_come_first_and_the_others_are_counted() {
        let plain = text(&view(), None);
        let first = plain.lines().position(|line| line.starts_with("g19 "));
        let heading = plain.lines().position(|line| line.starts_with("GROUP"));
        assert_eq!(first, heading.map(|line| line + 1), "{plain}");
        assert!(plain.contains("and 8 more groups") && !plain.contains("g7 "), "{plain}");
    }

    #[test]
    fn a_quiet_cluster_says_so() {
        let quiet = View {
            findings: Vec::new(),
            ..view()
        };
        assert!(text(&quiet, None).contains("Nothing needs attention, of the nodes and of this tenant's topics."));
    }
}
