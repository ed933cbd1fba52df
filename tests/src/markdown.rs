//! The little of Markdown that our documents use: fenced blocks, comments, headings, links, code in a line.
//!
//! Everything comes with the number of its line, so that a check can say where. What a document may not use because it would be
//! misread here (a fence that is indented, one that does not end) is an error.

/// Where the next part of a document begins and ends.
const FENCE: &str = "```";
const COMMENT_BEGIN: &str = "<!--";
const COMMENT_END: &str = "-->";

/// A part of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part<'a> {
    /// A line of text, or an empty one.
    Line(&'a str),
    /// What stands in a comment that begins its line, without blanks around it.
    Comment(String),
    /// A fenced block.
    Block {
        /// What stands behind the fence, such as `sh`.
        language: &'a str,
        /// Its lines.
        text: String,
    },
}

/// The parts of a document, each with the number of its first line, from 1 on.
///
/// # Errors
/// With the line, if a block is indented, or a block or comment does not end.
pub fn parts(document: &str) -> Result<Vec<(usize, Part<'_>)>, String> {
    let mut parts = Vec::new();
    let mut lines = (1..).zip(document.lines());
    while let Some((number, line)) = lines.next() {
        let part = if let Some(language) = line.strip_prefix(FENCE) {
            let text = until(&mut lines, |line| line == FENCE);
            let text = text.ok_or_else(|| format!("line {number}: the block does not end"))?;
            Part::Block { language, text }
        } else if line.trim_start().starts_with(FENCE) {
            return Err(format!(
                "line {number}: a block that is indented is not understood here"
            ));
        } else if let Some(begun) = line.strip_prefix(COMMENT_BEGIN) {
            let rest = match begun.split_once(COMMENT_END) {
                Some((text, _)) => Some(text.to_owned()),
                None => until(&mut lines, |line| line.trim_end() == COMMENT_END).map(|text| format!("{begun}\n{text}")),
            };
            let text = rest.ok_or_else(|| format!("line {number}: the comment does not end"))?;
            Part::Comment(text.trim().to_owned())
        } else {
            Part::Line(line)
        };
        parts.push((number, part));
    }
    Ok(parts)
}

/// The lines before the one that ends them; None if none does.
fn until<'a>(lines: &mut impl Iterator<Item = (usize, &'a str)>, ends: impl Fn(&str) -> bool) -> Option<String> {
    let mut text = String::new();
    for (_, line) in lines {
        if ends(line) {
            return Some(text);
        }
        text.push_str(line);
        text.push('\n');
    }
    None
}

/// The lines of text, each with its number: no blocks, no comments.
///
/// # Errors
/// As [`parts`].
pub fn prose(document: &str) -> Result<Vec<(usize, &str)>, String> {
    let of_text = |(number, part)| match part {
        Part::Line(line) => Some((number, line)),
        _ => None,
    };
    Ok(parts(document)?.into_iter().filter_map(of_text).collect())
}

/// Where links into a document may lead, as the web page of a repository names its headings.
///
/// # Errors
/// As [`parts`].
pub fn anchors(document: &str) -> Result<Vec<String>, String> {
    let mut anchors: Vec<String> = Vec::new();
    for (_, line) in prose(document)? {
        let title = line.trim_start_matches('#');
        if title.len() == line.len() || !title.starts_with(' ') {
            continue;
        }
        let name = anchor(title.trim());
        // Of headings that are alike, the later ones get a number.
        let alike = (0..).map(|count| {
            if count == 0 {
                name.clone()
            } else {
                format!("{name}-{count}")
            }
        });
        let free = alike.into_iter().find(|name| !anchors.contains(name));
        anchors.extend(free);
    }
    Ok(anchors)
}

fn anchor(title: &str) -> String {
    let kept = title.to_lowercase().replace(' ', "-");
    kept.chars()
        .filter(|letter| letter.is_alphanumeric() || matches!(letter, '-' | '_'))
        .collect()
}

/// The targets of the links and pictures in a line of text, as they are written.
pub fn links(line: &str) -> Vec<&str> {
    let behind = line.split("](").skip(1);
    behind
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target)
        .collect()
}

/// The pieces of code in a line of text.
pub fn code(line: &str) -> Vec<&str> {
    let pieces = line.split('`').skip(1).step_by(2);
    pieces.collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const DOCUMENT: &str =
        "# A title\n\n<!-- one -->\n```sh\n# no heading\n```\n<!-- run\na\nb\n-->\n## `b` of c: d_e\n## A title\n";

    #[test]
    fn a_document_falls_into_its_parts() {
        let found = parts(DOCUMENT);
        let block = Part::Block {
            language: "sh",
            text: "# no heading\n".to_owned(),
        };
        let expected = vec![
            (1, Part::Line("# A title")),
            (2, Part::Line("")),
            (3, Part::Comment("one".to_owned())),
            (4, block),
            (7, Part::Comment("run\na\nb".to_owned())),
            (11, Part::Line("## `b` of c: d_e")),
            (12, Part::Line("## A title")),
        ];
        assert_eq!(found, Ok(expected));
    }

    #[test]
    fn what_would_be_misread_is_an_error() {
        for (document, line) in [("a\n  ```sh\n  ```\n", 2), ("```sh\na\n", 1), ("\n\n<!-- a\n", 3)] {
            let error = parts(document).unwrap_err();
            assert!(error.starts_with(&format!("line {line}: ")), "{error}");
        }
    }

    #[test]
    fn headings_are_named_as_on_the_web_page() {
        let expected = ["a-title", "b-of-c-d_e", "a-title-1"].map(str::to_owned);
        assert_eq!(anchors(DOCUMENT), Ok(expected.to_vec()));
    }

    #[test]
    fn links_and_code_are_found_in_a_line() {
        let line = "See [a](b.md#c), `d e` and ![f](g.png); `h`.";
        assert_eq!(links(line), ["b.md#c", "g.png"]);
        assert_eq!(code(line), ["d e", "h"]);
    }
}
