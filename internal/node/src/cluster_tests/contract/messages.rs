//! Messages with their fields, and enumerations with their values.

use std::fmt::Write;

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto};

use super::comments::{ENUMS, FIELDS, MESSAGES, NESTED_ENUMS, VALUES, cell, within};
use super::{Source, link, short};

/// An enumeration, its full name, and its place.
type Enumeration<'a> = (String, &'a EnumDescriptorProto, Vec<i32>);

pub(super) fn write(page: &mut String, source: &Source) {
    for (index, message) in source.file.message_type.iter().enumerate() {
        write_message(page, source, message, &within(&[], MESSAGES, index));
    }
    for (name, values, place) in enumerations(source) {
        write_enumeration(page, source, &name, values, &place);
    }
}

fn write_message(page: &mut String, source: &Source, message: &DescriptorProto, place: &[i32]) {
    writeln!(page, "\n### {}\n", message.name()).unwrap();
    let comment = source.comments.before(place);
    if !comment.is_empty() {
        writeln!(page, "{comment}\n").unwrap();
    }
    if message.field.is_empty() {
        page.push_str("It has no fields.\n");
        return;
    }
    page.push_str("| field | number | type | meaning |\n|---|---|---|---|\n");
    for (index, field) in message.field.iter().enumerate() {
        let meaning = cell(&source.comments.before(&within(place, FIELDS, index)));
        let (name, number, kind) = (field.name(), field.number(), kind(message, field));
        writeln!(page, "| `{name}` | {number} | {kind} | {meaning} |").unwrap();
    }
}

fn write_enumeration(page: &mut String, source: &Source, name: &str, values: &EnumDescriptorProto, place: &[i32]) {
    writeln!(page, "\n### {name}\n").unwrap();
    let comment = source.comments.before(place);
    if !comment.is_empty() {
        writeln!(page, "{comment}\n").unwrap();
    }
    page.push_str("| value | number | meaning |\n|---|---|---|\n");
    for (index, value) in values.value.iter().enumerate() {
        let meaning = cell(&source.comments.before(&within(place, VALUES, index)));
        writeln!(page, "| `{}` | {} | {meaning} |", value.name(), value.number()).unwrap();
    }
}

/// The type of a field, and how often it is there.
fn kind(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let name = match field.r#type() {
        Type::Message | Type::Enum => link(short(field.type_name())),
        // As it is written: TYPE_FIXED32 is fixed32.
        plain => plain.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    };
    if field.proto3_optional() {
        return format!("optional {name}");
    }
    if field.label() == Label::Repeated {
        return format!("repeated {name}");
    }
    match field
        .oneof_index
        .and_then(|index| message.oneof_decl.get(usize::try_from(index).ok()?))
    {
        Some(choice) => format!("{name}, one of `{}`", choice.name()),
        None => name,
    }
}

/// Those of the file, and those within its messages.
fn enumerations(source: &Source) -> Vec<Enumeration<'_>> {
    let own = source.file.enum_type.iter().enumerate();
    let own = own.map(|(index, values)| (values.name().to_owned(), values, within(&[], ENUMS, index)));
    let messages = source.file.message_type.iter().enumerate();
    let nested = messages.flat_map(|(index, message)| {
        let place = within(&[], MESSAGES, index);
        let values = message.enum_type.iter().enumerate();
        values.map(move |(index, values)| {
            let name = format!("{}.{}", message.name(), values.name());
            (name, values, within(&place, NESTED_ENUMS, index))
        })
    });
    own.chain(nested).collect()
}

pub(super) fn unexplained(source: &Source) -> Vec<String> {
    let is_silent = |place: &[i32]| source.comments.before(place).is_empty();
    let mut names = Vec::new();
    for (index, message) in source.file.message_type.iter().enumerate() {
        let place = within(&[], MESSAGES, index);
        assert!(
            message.nested_type.is_empty(),
            "{}: messages within messages are not shown",
            message.name()
        );
        // A request and its answer are explained by their method.
        let is_of_method = ["Request", "Response"].iter().any(|end| message.name().ends_with(end));
        if !is_of_method && is_silent(&place) {
            names.push(message.name().to_owned());
        }
        let fields = message.field.iter().enumerate();
        let silent = fields.filter(|(index, _)| is_silent(&within(&place, FIELDS, *index)));
        names.extend(silent.map(|(_, field)| format!("{}.{}", message.name(), field.name())));
    }
    for (name, values, place) in enumerations(source) {
        if is_silent(&place) {
            names.push(name.clone());
        }
        let values = values.value.iter().enumerate();
        let silent = values.filter(|(index, _)| is_silent(&within(&place, VALUES, *index)));
        names.extend(silent.map(|(_, value)| format!("{name}.{}", value.name())));
    }
    names
}
