//! `--print-config`: all settings as a file that says the same, with what each is for and where it comes from.

use super::Effective;
use super::table::{Setting, Taken};

/// The widest line of a comment.
const COLUMNS: usize = 100;

const HEAD: &str = "\
The settings of `highwater serve`. A flag goes before a variable of the environment, that before this file, and that before the \
default. Behind each value stands where it comes from.";

/// As a file that says all of it, with what each setting is for and where its value comes from.
pub(crate) fn as_file(effective: &Effective) -> String {
    let mut text = String::new();
    comment(&mut text, HEAD);
    if let Err(failure) = effective.check() {
        text.push_str("#\n");
        comment(&mut text, &format!("A node cannot start with these yet: {failure}."));
    }
    let mut table = None;
    for chosen in &effective.chosen {
        let (of_table, name) = match chosen.setting.key.split_once('.') {
            Some((table, name)) => (Some(table), name),
            None => (None, chosen.setting.key),
        };
        text.push('\n');
        if let Some(name) = of_table.filter(|_| of_table != table) {
            text += &format!("[{name}]\n");
        }
        table = of_table;
        comment(&mut text, &explained(chosen.setting));
        // A path may hold anything, also what would end the comment.
        let source = chosen.source.to_string();
        text += &format!("{name} = {} # {}\n", chosen.value, source.escape_debug());
    }
    text
}

fn explained(setting: &Setting) -> String {
    let Setting {
        flag,
        variable,
        meaning,
        ..
    } = setting;
    let limits = setting.kind.limits();
    let taken = match setting.taken {
        Taken::AtStart => "",
        Taken::AtSighup => " SIGHUP brings a new value into force.",
    };
    format!("{meaning}{taken} ({limits}; --{flag}, {variable})")
}

/// Adds a comment, in lines that are not too long.
fn comment(text: &mut String, sentence: &str) {
    let mut line = String::from("#");
    for word in sentence.split_whitespace() {
        if line.len() + word.len() >= COLUMNS {
            text.push_str(&line);
            text.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    text.push_str(&line);
    text.push('\n');
}
