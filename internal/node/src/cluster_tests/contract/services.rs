//! Services and their methods, each with who may call it.

use std::fmt::Write;

use prost_types::MethodDescriptorProto;

use super::super::matrix::needs_in_words;
use super::comments::{METHODS, SERVICES, within};
use super::{Source, link, short};
use crate::services::{Class, METHODS as CLASSES};

pub(super) fn write(page: &mut String, source: &Source) {
    for (place, service) in source.file.service.iter().enumerate() {
        let name = service.name();
        let file = source.name();
        let about = source.comments.of_file();
        writeln!(
            page,
            "\n### {name}\n\n[{file}](../api/proto/highwater/v1/{file}). {about}\n"
        )
        .unwrap();
        page.push_str("| call | takes | answers | for | needs |\n|---|---|---|---|---|\n");
        service
            .method
            .iter()
            .for_each(|method| page.push_str(&row(name, method)));
        for (index, method) in service.method.iter().enumerate() {
            let place = within(&within(&[], SERVICES, place), METHODS, index);
            let comment = source.comments.before(&place);
            writeln!(page, "\n#### {name}.{}\n\n{comment}", method.name()).unwrap();
        }
    }
}

/// A call with what goes in, what comes out, and who may make it.
fn row(service: &str, method: &MethodDescriptorProto) -> String {
    let side = |name: &str, is_stream: bool| {
        let stream = if is_stream { "a stream of " } else { "" };
        format!("{stream}{}", link(short(name)))
    };
    let name = method.name();
    let call = format!("[{name}](#{})", format!("{service}{name}").to_lowercase());
    let takes = side(method.input_type(), method.client_streaming());
    let answers = side(method.output_type(), method.server_streaming());
    let needs = needs_in_words(&format!("/highwater.v1.{service}/{name}"));
    format!(
        "| {call} | {takes} | {answers} | {} | {needs} |\n",
        class(service, name)
    )
}

fn class(service: &str, method: &str) -> &'static str {
    let mut classes = CLASSES.iter();
    let found = classes.find(|(known, name, _)| (*known, *name) == (service, method));
    match found.map(|(_, _, class)| class) {
        Some(Class::Operator) => "operators",
        Some(Class::Client) => "clients",
        Some(Class::Public) => "everybody",
        None => panic!("{service}.{method} has no class"),
    }
}

pub(super) fn unexplained(source: &Source) -> Vec<String> {
    let services = source.file.service.iter().enumerate();
    let without = |(place, service): (usize, &prost_types::ServiceDescriptorProto)| {
        let methods = service.method.iter().enumerate();
        let silent = methods.filter(|(index, _)| {
            let place = within(&within(&[], SERVICES, place), METHODS, *index);
            source.comments.before(&place).is_empty()
        });
        let names = silent.map(|(_, method)| format!("{}.{}", service.name(), method.name()));
        names.collect::<Vec<_>>()
    };
    let mut names: Vec<String> = services.flat_map(without).collect();
    if source.comments.of_file().is_empty() {
        names.push("the file itself".to_owned());
    }
    names
}
