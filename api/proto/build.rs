//! Compiles the contract without protoc.
//!
//! The public `.proto` files describe a batch as an ordinary message, so that the stock stubs of any language
//! work. Our own code must never decode a batch on its way, so the generated Rust types hold that one field as
//! `bytes`, which has the same wire type. The descriptor for reflection stays the public one.

use std::path::PathBuf;

use prost::Message;
use prost_types::{DescriptorProto, FileDescriptorSet, field_descriptor_proto::Type};

const PROTOS: [&str; 6] = ["log", "topic", "group", "cluster", "access", "error"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=highwater");
    let files = PROTOS.map(|name| format!("highwater/v1/{name}.proto"));
    let public = protox::compile(files, ["."])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("highwater_descriptor.bin"), public.encode_to_vec())?;

    tonic_prost_build::configure()
        .bytes(".")
        .codec_path("crate::codec::CheckedCodec")
        .compile_fds(with_opaque_batches(public))?;
    Ok(())
}

/// Turns each field of type `RecordBatch` into `bytes`.
fn with_opaque_batches(mut set: FileDescriptorSet) -> FileDescriptorSet {
    for message in set.file.iter_mut().flat_map(|file| &mut file.message_type) {
        make_batches_opaque(message);
    }
    set
}

fn make_batches_opaque(message: &mut DescriptorProto) {
    for field in &mut message.field {
        if field.type_name() == ".highwater.v1.RecordBatch" {
            field.type_name = None;
            field.set_type(Type::Bytes);
        }
    }
}
