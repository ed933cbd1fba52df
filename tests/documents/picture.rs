//! The picture of a terminal in README.md: what its commands really print.
//!
//! `make picture` writes it. Otherwise it is compared with what the same commands print now, as loosely as text in documents is. Colours
//! follow the reader's, light or dark.

use highwater_tests::repository::root;

use crate::page::{Page, Step};
use crate::{prints, stage};

/// Where it lies.
const PICTURE: &str = "docs/images/terminal.svg";
/// What is there before the first command, and is not shown.
const BEFORE: &str = "highwater dev # until Ctrl-C\nexport HIGHWATER_CONFIG=highwater-dev/profile.toml\n";
/// What is typed.
const SESSION: [&str; 6] = [
    "highwater topic create numbers --partitions 3 --replication 3",
    "seq 1 1000000 | highwater produce numbers",
    "highwater consume numbers --from beginning --exit-at-end | sort --numeric-sort | sha256sum",
    "seq 1 1000000 | sha256sum",
    "highwater topic describe numbers",
    "highwater top --once | tail -n 7",
];
const PROMPT: &str = "$ ";

const FONT_SIZE: usize = 13;
const LINE_HEIGHT: usize = 19;
/// Of a letter, in tenths of a pixel.
const LETTER_WIDTH_TENTHS: usize = 79;
const MARGIN: usize = 16;
const STYLE: &str = "    rect { fill: #f6f8fa; stroke: #d1d9e0 }
    text { fill: #1f2328; font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace; white-space: pre }
    .typed { fill: #0550ae; font-weight: 600 }
    @media (prefers-color-scheme: dark) {
      rect { fill: #151b23; stroke: #3d444d }
      text { fill: #f0f6fc }
      .typed { fill: #79c0ff }
    }
";

/// A page of the commands alone.
fn page() -> Page {
    let shells = [BEFORE].into_iter().chain(SESSION);
    let step = |(line, shell): (usize, &str)| Step {
        line,
        shell: shell.to_owned(),
        is_run: true,
        output: None,
    };
    Page {
        path: PICTURE.to_owned(),
        steps: (0..).zip(shells).map(step).collect(),
    }
}

/// What a terminal shows of each command, as it is typed and what it prints.
fn session() -> Vec<(String, String)> {
    let page = page();
    let printed = stage::perform(&page).unwrap_or_else(|error| panic!("{PICTURE}{error}"));
    let shown = printed.into_iter().skip(1);
    shown
        .map(|(step, printed)| (format!("{PROMPT}{}", step.shell), printed))
        .collect()
}

fn draw(session: &[(String, String)]) -> String {
    let lines: Vec<&str> = session
        .iter()
        .flat_map(|(typed, printed)| [typed.as_str()].into_iter().chain(printed.lines()))
        .collect();
    let columns = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0);
    let width = columns * LETTER_WIDTH_TENTHS / 10 + 2 * MARGIN;
    let height = lines.len() * LINE_HEIGHT + 2 * MARGIN;
    let line = |(place, line): (usize, &&str)| {
        let class = if line.starts_with(PROMPT) {
            " class=\"typed\""
        } else {
            ""
        };
        let y = MARGIN + FONT_SIZE + place * LINE_HEIGHT;
        format!("  <text x=\"{MARGIN}\" y=\"{y}\"{class}>{}</text>\n", escaped(line))
    };
    let text: String = lines.iter().enumerate().map(line).collect();
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" role=\"img\">\n  \
         <title>Highwater in a terminal</title>\n  <style>\n{STYLE}  </style>\n  \
         <rect x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"8\"/>\n{text}</svg>\n",
        width - 1,
        height - 1
    )
}

fn escaped(line: &str) -> String {
    line.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The lines of text in a picture.
fn lines(picture: &str) -> Vec<String> {
    let texts = picture
        .lines()
        .filter_map(|line| line.trim().strip_prefix("<text ")?.split_once('>'));
    let texts = texts.filter_map(|(_, rest)| rest.strip_suffix("</text>"));
    texts
        .map(|text| text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
        .collect()
}

#[test]
fn the_picture_shows_what_the_commands_print() {
    let path = root().join(PICTURE);
    let session = session();
    if std::env::var_os("HIGHWATER_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, draw(&session)).unwrap_or_else(|error| panic!("{PICTURE}: {error}"));
        return;
    }
    let picture = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{PICTURE}: {error}"));
    let lines = lines(&picture);
    let shown = lines.iter().filter(|line| line.starts_with(PROMPT));
    assert!(
        shown.eq(session.iter().map(|(typed, _)| typed)),
        "{PICTURE} shows other commands: `make picture`"
    );
    let parts = lines.split(|line| line.starts_with(PROMPT)).skip(1);
    for (part, (typed, printed)) in parts.zip(&session) {
        let compared = prints::compare_lines(part.iter().map(String::as_str), printed);
        assert_eq!(compared, Ok(()), "{PICTURE}: {typed}: if it is right, `make picture`");
    }
}

#[test]
fn a_picture_has_the_lines_that_were_drawn() {
    let session = [("$ a | b".to_owned(), "1 < 2\n  & more\n".to_owned())];
    assert_eq!(lines(&draw(&session)), ["$ a | b", "1 < 2", "  & more"]);
}
